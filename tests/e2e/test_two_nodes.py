"""Two nodes: a launcher on each, as ``deepspeed --no_ssh`` starts them; the folder is shared.

On one machine the nodes are two launchers on the loopback, or two network namespaces that a cable
(veth) joins.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from trainer.metrics import read_metrics

pytestmark = pytest.mark.e2e

if TYPE_CHECKING:
    from conftest import Server, Workshop

SCRIPT = Path(__file__).parents[2] / "train" / "pretrain.py"
TIMEOUT_S = 240
#: Steps of a run that is to be stopped while it runs; it takes seconds.
MANY = 300
SIGNALLED = 128 + signal.SIGTERM

_ports = itertools.count(29_700 + os.getpid() % 1_000)


class Nodes:
    """The launchers of two nodes, one rank each."""

    def __init__(
        self,
        server: Server,
        hostfile: Path,
        arguments: Sequence[object],
        *,
        address: str = "127.0.0.1",
        places: Sequence[Sequence[str]] = ((), ()),
        **variables: str,
    ) -> None:
        hostfile.write_text("first slots=1\nsecond slots=1\n")
        head = [Path(sys.executable).with_name("deepspeed"), "--hostfile", hostfile, "--no_ssh"]
        head += ["--master_addr", address, "--master_port", next(_ports)]
        self._logs = [hostfile.with_suffix(f".node{node}") for node in (0, 1)]
        self.launchers = []
        for node, (place, log) in enumerate(zip(places, self._logs, strict=True)):
            command = [*place, *head, "--node_rank", node, SCRIPT, *arguments]
            with log.open("wb") as output:
                self.launchers.append(
                    subprocess.Popen(
                        list(map(str, command)),
                        env=server.environment() | variables,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )

    def wait(self) -> tuple[list[int], list[str]]:
        """Wait for both; return their exit codes and what they said."""
        codes = [launcher.wait(timeout=TIMEOUT_S) for launcher in self.launchers]
        return codes, [log.read_text() for log in self._logs]

    def family(self, node: int) -> list[psutil.Process]:
        """Return the launcher that DeepSpeed runs on a node, and its ranks."""
        return psutil.Process(self.launchers[node].pid).children(recursive=True)

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        for launcher in self.launchers:
            if launcher.poll() is None:
                for process in psutil.Process(launcher.pid).children(recursive=True):
                    process.kill()
                launcher.kill()
                launcher.wait()


def is_the_same_run(workshop: Workshop, out: Path, reference: Path) -> None:
    """The same losses and weights, to the last bit."""
    assert workshop.losses(out) == workshop.losses(reference)
    ends = [run / "model/model.safetensors" for run in (out, reference)]
    assert ends[0].read_bytes() == ends[1].read_bytes()


def wait_for_a_step(out: Path) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not any("loss" in row for row in read_metrics(out / "metrics.jsonl")):
        assert time.monotonic() < end, "the run does not begin"
        time.sleep(0.01)


def test_two_nodes_train_as_two_ranks_of_one(
    server: Server, staged: dict[int, Path], workshop: Workshop
) -> None:
    out = workshop.folder / "nodes"
    arguments = workshop.pretraining(out, workshop.config(1))
    with Nodes(server, workshop.folder / "loopback", arguments) as nodes:
        codes, texts = nodes.wait()
    assert codes == [0, 0], texts
    assert "nnodes=2, num_local_procs=1, node_rank=1" in texts[1]
    # The first node speaks for the run; the second does not repeat it.
    assert "2 ranks × micro-batch 4" in texts[0] and "ranks × micro-batch" not in texts[1]
    is_the_same_run(workshop, out, staged[1])


@pytest.fixture(scope="module")
def undisturbed(server: Server, workshop: Workshop) -> Path:
    """A run of ``MANY`` steps by two ranks of one node."""
    out = workshop.folder / "undisturbed"
    arguments = workshop.pretraining(out, workshop.config(2), steps=MANY, save_every=0)
    assert server.run(2, "pretrain.py", *arguments).code == 0
    return out


@pytest.mark.parametrize("who", ["the command", "the launcher of the node"])
def test_sigterm_on_one_node_stops_both_and_one_node_goes_on(
    server: Server, workshop: Workshop, undisturbed: Path, who: str
) -> None:
    out = workshop.folder / f"nodes-stopped-by-{who.split()[-1]}"
    arguments = workshop.pretraining(out, workshop.config(2), steps=MANY, save_every=0)
    with Nodes(server, out.with_suffix(".hosts"), arguments) as nodes:
        wait_for_a_step(out)
        family = [process for node in (0, 1) for process in nodes.family(node)]
        target = nodes.launchers[1] if who == "the command" else nodes.family(1)[0]
        target.terminate()
        codes, texts = nodes.wait()
        _, alive = psutil.wait_procs(family, timeout=60)
        assert alive == []
    # The node that was told: the command dies of the signal, DeepSpeed's launcher ends with 1.
    assert codes == [SIGNALLED, -signal.SIGTERM if who == "the command" else 1], texts
    assert len(family) == 4  # a launcher and a rank on each
    assert "the same command continues from here" in texts[0]
    done = len(workshop.losses(out))
    assert 1 <= done < MANY and workshop.checkpoints(out) == [f"step-{done:08d}"]
    result = server.run(2, "pretrain.py", *arguments)
    assert result.code == 0, result.text
    assert f"continuing after step {done} " in result.text
    is_the_same_run(workshop, out, undisturbed)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def two_networks() -> Iterator[list[str]]:
    """Names of two network namespaces that see each other as 10.211.7.1 and 10.211.7.2."""
    if shutil.which("ip") is None:
        pytest.skip("no command ip (package iproute2)")
    names = [f"vnprep{os.getpid()}n{node}" for node in (1, 2)]
    try:
        for name in names:
            _ip("netns", "add", name)
        peer = ["peer", "name", "cable", "netns", names[1]]
        _ip("link", "add", "cable", "netns", names[0], "type", "veth", *peer)
        for node, name in enumerate(names, start=1):
            _ip("-n", name, "address", "add", f"10.211.7.{node}/24", "dev", "cable")
            for device in ("cable", "lo"):
                _ip("-n", name, "link", "set", device, "up")
        yield names
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    finally:
        for name in names:
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", name)


def test_two_machines_by_their_network(
    server: Server, staged: dict[int, Path], workshop: Workshop, two_networks: list[str]
) -> None:
    """Each node sees its own network alone, and the other by the cable."""
    out = workshop.folder / "networks"
    arguments = workshop.pretraining(out, workshop.config(3))
    places = [["ip", "netns", "exec", name] for name in two_networks]
    with Nodes(
        server,
        workshop.folder / "networks.hosts",
        arguments,
        address="10.211.7.1",
        places=places,
        GLOO_SOCKET_IFNAME="cable",
    ) as nodes:
        codes, texts = nodes.wait()
    assert codes == [0, 0], texts
    is_the_same_run(workshop, out, staged[3])
