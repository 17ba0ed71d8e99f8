"""Training runs for tests: ranks that start quickly, small data, a small model.

Most of a small run's time are its imports, so the ranks of most runs are forked from a process
that has done them (``rank_server.py``). What concerns DeepSpeed's launcher goes through it.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from trainer.metrics import read_metrics

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "ds_configs"
#: Optimizer steps of a small run.
STEPS = 12
TIMEOUT_S = 240

Make = Callable[..., Path]


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    code: int
    text: str


@dataclass(frozen=True)
class Ranks:
    """The processes of one run, and where each one's stderr goes."""

    processes: list[int]
    errors: list[Path]


def clean_environment(**changes: str) -> dict[str, str]:
    """Return this process's environment without what launchers set."""
    launcher = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    kept = {name: value for name, value in os.environ.items() if name not in launcher}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | changes


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """Starts ranks as a launcher would, from ``rank_server.py``; one rank is started bare."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        #: Where the ranks of the newest run met.
        self.last_port = ""
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("rank_server.py"))],
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _ask(self, request: dict[str, Any]) -> list[int]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        answer: list[int] = json.loads(stdout.readline())
        return answer

    def start(self, ranks: int, script: str, *arguments: object, **variables: str) -> Ranks:
        """Start the ranks of one run, with some more environment variables."""
        self.last_port = port = str(free_port())
        groups: list[dict[str, str]] = []
        for rank in range(ranks):
            numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_SIZE": ranks}
            names = {name: str(number) for name, number in numbers.items()}
            group = names | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            groups.append(variables | (group if ranks > 1 else {}))
        return self._start(groups, script, *arguments)

    def _start(self, groups: list[dict[str, str]], script: str, *arguments: object) -> Ranks:
        argv = [str(ROOT / "train" / script), *map(str, arguments)]
        requests = []
        for group in groups:
            self._count += 1
            errors = str(self._folder / f"stderr-{self._count}.txt")
            requests.append({"argv": argv, "env": clean_environment(**group), "stderr": errors})
        processes = self._ask({"start": requests})
        return Ranks(processes, [Path(str(request["stderr"])) for request in requests])

    def run_in(self, group: dict[str, str], script: str, *arguments: object) -> Result:
        """Run one rank with these variables for its group."""
        return self.finish(self._start([group], script, *arguments))

    def environment(self) -> dict[str, str]:
        """Return what a launcher should be started in."""
        return clean_environment()

    def wait(self, ranks: Ranks) -> list[int]:
        """Wait for the ranks of a run; return their exit codes, negative for a signal."""
        return self._ask({"wait": ranks.processes})

    def finish(self, ranks: Ranks) -> Result:
        """Wait for the ranks of a run; they must agree on the exit code."""
        codes = set(self.wait(ranks))
        text = "".join(path.read_text() for path in ranks.errors)
        assert len(codes) == 1, text
        return Result(codes.pop(), text)

    def run(self, ranks: int, script: str, *arguments: object) -> Result:
        """Run a script on some ranks, without DeepSpeed's launcher."""
        return self.finish(self.start(ranks, script, *arguments))

    def close(self) -> None:
        """End the server."""
        self._process.communicate()

    def launch_command(self, script: str, *arguments: object) -> list[str]:
        """The command that the README gives, on two ranks."""
        launcher = Path(sys.executable).with_name("deepspeed")
        head = [str(launcher), "--num_accelerators", "2", "--master_port", str(free_port())]
        return [*head, str(ROOT / "train" / script), *map(str, arguments)]

    def launch(self, script: str, *arguments: object) -> Result:
        """Run a script by DeepSpeed's launcher on two ranks."""
        done = subprocess.run(
            self.launch_command(script, *arguments),
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        return Result(done.returncode, done.stdout)


@dataclass(frozen=True)
class Workshop:
    """Data, a small model and DeepSpeed files, shared by all tests."""

    folder: Path
    pretrain: Path
    valid: Path
    pairs: Path
    model: Path
    config_folder: Path = CONFIGS

    def config(self, stage: int) -> Path:
        """``cpu.json`` at another ZeRO stage."""
        path = self.folder / f"stage{stage}.json"
        content = json.loads((CONFIGS / "cpu.json").read_text())
        content["zero_optimization"] = {"stage": stage, "overlap_comm": False}
        path.write_text(json.dumps(content))
        return path

    def pretraining(self, out: Path, config: Path, **changes: object) -> list[object]:
        """Arguments of a small pretraining run."""
        options: dict[str, object] = {
            "--data": self.pretrain,
            "--valid": self.valid,
            "--model": self.model,
            "--deepspeed_config": config,
            "--out": out,
            "--steps": STEPS,
            "--seq-len": 32,
            "--micro-batch": 4,
            "--lr": 5e-3,
            "--min-lr-ratio": 0,
            "--eval-every": STEPS - 1,
            "--save-every": 5,
            "--keep-last": 9,
            "--log-every": 1,
        }
        for name, value in changes.items():
            options["--" + name.replace("_", "-")] = value
        return [part for pair in options.items() for part in pair]

    @staticmethod
    def losses(out: Path) -> list[float]:
        """The loss of every step, in order."""
        rows = [row for row in read_metrics(out / "metrics.jsonl") if "loss" in row]
        assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
        return [row["loss"] for row in rows]

    @staticmethod
    def checkpoints(out: Path) -> list[str]:
        """Name the checkpoints of a run, oldest first."""
        return sorted(path.name for path in (out / "checkpoints").glob("step-*"))


def document(rng: random.Random, length: int) -> list[int]:
    """Counting in threes from somewhere: easy to learn, long enough to be cut into windows."""
    first = rng.randrange(90)
    return [4 + (first + 3 * place) % 90 for place in range(length)]


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory, make_data: Make) -> Workshop:
    folder = tmp_path_factory.mktemp("training")
    rng = random.Random(0)
    documents = [[document(rng, rng.randrange(3, 70))] for _ in range(120)]
    held_out = [[document(rng, rng.randrange(3, 70))] for _ in range(15)]
    requests = [document(rng, rng.randrange(3, 12)) for _ in range(60)]
    model = folder / "config.json"
    shape = {
        "model_type": "llama",
        "vocab_size": 128,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
    }
    model.write_text(json.dumps(shape))
    return Workshop(
        folder,
        make_data(folder / "pretrain", documents, stage="pretrain", shard_rows=50),
        make_data(folder / "valid", held_out, stage="pretrain"),
        make_data(folder / "pairs", [[each, each[::-1]] for each in requests]),
        model,
    )


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def staged(server: Server, workshop: Workshop) -> dict[int, Path]:
    """The same run under ZeRO 0, 1, 2 and 3, on two ranks."""
    outs = {}
    for stage in (0, 1, 2, 3):
        out = workshop.folder / f"zero{stage}"
        result = server.run(2, "pretrain.py", *workshop.pretraining(out, workshop.config(stage)))
        assert result.code == 0, result.text
        outs[stage] = out
    return outs
