"""Whole training runs: real DeepSpeed, two gloo ranks, the launcher where it matters.

Most of a small run's time are its imports, so the ranks of most runs are forked from a process
that has done them (``rank_server.py``), and runs are shared between tests.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from metrics import read_metrics
from validation import supervised_tokens, to_device
from vnprep.loader import PackedLoader
from vnprep.shards.read import ShardSet
from weights import load_model

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "ds_configs"
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
    """This process's environment without what launchers set."""
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

    def start(self, ranks: int, script: str, *arguments: object) -> Ranks:
        """Start the ranks of one run."""
        argv = [str(ROOT / "train" / script), *map(str, arguments)]
        port = str(free_port())
        requests = []
        for rank in range(ranks):
            numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_SIZE": ranks}
            names = {name: str(number) for name, number in numbers.items()}
            group = names | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if ranks > 1 else {}
            self._count += 1
            errors = str(self._folder / f"stderr-{self._count}.txt")
            requests.append({"argv": argv, "env": clean_environment(**group), "stderr": errors})
        processes = self._ask({"start": requests})
        return Ranks(processes, [Path(str(request["stderr"])) for request in requests])

    def finish(self, ranks: Ranks) -> Result:
        """Wait for the ranks of a run; they must agree on the exit code."""
        codes = set(self._ask({"wait": ranks.processes}))
        text = "".join(path.read_text() for path in ranks.errors)
        assert len(codes) == 1, text
        return Result(codes.pop(), text)

    def run(self, ranks: int, script: str, *arguments: object) -> Result:
        """Run a script on some ranks, without DeepSpeed's launcher."""
        return self.finish(self.start(ranks, script, *arguments))

    def close(self) -> None:
        """End the server."""
        self._process.communicate()


def launch_command(script: str, *arguments: object) -> list[str]:
    """The command that the README gives, on two ranks."""
    launcher = Path(sys.executable).with_name("deepspeed")
    head = [str(launcher), "--num_accelerators", "2", "--master_port", str(free_port())]
    return [*head, str(ROOT / "train" / script), *map(str, arguments)]


def launch(script: str, *arguments: object) -> Result:
    """Run a script by DeepSpeed's launcher on two ranks."""
    done = subprocess.run(
        launch_command(script, *arguments),
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return Result(done.returncode, done.stdout)


def losses(out: Path) -> list[float]:
    """The loss of every step, in order."""
    rows = [row for row in read_metrics(out / "metrics.jsonl") if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["loss"] for row in rows]


def checkpoints(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").glob("step-*"))


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@dataclass(frozen=True)
class Workshop:
    """Data, a small model and DeepSpeed files, shared by all tests."""

    folder: Path
    pretrain: Path
    valid: Path
    pairs: Path
    model: Path

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
            "--eval-every": 6,
            "--save-every": 5,
            "--keep-last": 9,
            "--log-every": 1,
        }
        for name, value in changes.items():
            options["--" + name.replace("_", "-")] = value
        return [part for pair in options.items() for part in pair]


def document(rng: random.Random, length: int) -> list[int]:
    """Counting in threes from somewhere: easy to learn, long enough to be cut into windows."""
    first = rng.randrange(90)
    return [4 + (first + 3 * place) % 90 for place in range(length)]


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def staged(server: Server, workshop: Workshop) -> dict[int, Path]:
    """The same run under ZeRO 0, 1, 2 and 3, on two ranks."""
    outs = {}
    for stage in (0, 1, 2, 3):
        out = workshop.folder / f"zero{stage}"
        result = server.run(2, "pretrain.py", *workshop.pretraining(out, workshop.config(stage)))
        assert result.code == 0, result.text
        outs[stage] = out
    return outs


def test_every_zero_stage_gives_the_same_run(staged: dict[int, Path]) -> None:
    reference = losses(staged[0])
    assert len(reference) == STEPS
    for stage in (1, 2, 3):
        assert losses(staged[stage]) == pytest.approx(reference, abs=1e-5)
        rows, expected = (read_metrics(staged[each] / "metrics.jsonl") for each in (stage, 0))
        for row, other in zip(rows, expected, strict=True):
            assert row.keys() == other.keys()
            for name in row.keys() & {"loss", "valid_loss", "grad_norm"}:
                assert row[name] == pytest.approx(other[name], rel=1e-4, abs=1e-5), (stage, row)
    weights = {stage: load_file(out / "model/model.safetensors") for stage, out in staged.items()}
    for stage in (1, 2, 3):
        assert weights[stage].keys() == weights[0].keys()
        for name, tensor in weights[0].items():
            assert weights[stage][name].dtype == torch.float32
            torch.testing.assert_close(weights[stage][name], tensor, atol=2e-5, rtol=0)


def test_the_loss_falls(staged: dict[int, Path]) -> None:
    rows = read_metrics(staged[1] / "metrics.jsonl")
    valid = {row["step"]: row["valid_perplexity"] for row in rows if "valid_loss" in row}
    assert sorted(valid) == [0, 6, STEPS]
    # An untrained model knows nothing: about as many guesses as the vocabulary has entries.
    assert valid[0] == pytest.approx(128, rel=0.2)
    assert valid[STEPS] < valid[6] < valid[0]
    assert valid[STEPS] < 0.6 * valid[0]
    curve = losses(staged[1])
    assert curve[-1] < curve[0] - 0.5


def test_the_run_leaves_what_it_promised(staged: dict[int, Path], workshop: Workshop) -> None:
    out = staged[3]
    assert checkpoints(out) == ["step-00000005", "step-00000010", "step-00000012"]
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    row = next(row for row in read_metrics(out / "metrics.jsonl") if "loss" in row)
    assert (row["supervised_share"], row["step"]) == (1.0, 1)
    assert 0 < row["tokens"] <= 2 * 4 * 32
    # The weights that were written give the validation loss that was logged.
    model = load_model(out).model.eval()
    loader = PackedLoader(ShardSet.open(workshop.valid), seq_len=32, micro_batch=4, shuffle=False)
    total = tokens = 0.0
    with torch.no_grad():
        for step in range(loader.steps_per_epoch):
            for batch in loader.step(step):
                total += float(model(**to_device(batch, torch.device("cpu"))))
                tokens += supervised_tokens(batch)
    logged = read_metrics(out / "metrics.jsonl")[-1]
    assert logged["valid_tokens"] == tokens
    assert logged["valid_loss"] == pytest.approx(total / tokens, abs=1e-5)


def test_accumulating_on_one_rank_is_the_same_as_two_ranks(
    server: Server, staged: dict[int, Path], workshop: Workshop
) -> None:
    out = workshop.folder / "alone"
    arguments = workshop.pretraining(out, workshop.config(1), accumulation=2, steps=STEPS)
    result = server.run(1, "pretrain.py", *arguments)
    assert result.code == 0, result.text
    assert losses(out)[:5] == pytest.approx(losses(staged[1])[:5], abs=1e-6)
    assert losses(out) == pytest.approx(losses(staged[1]), abs=1e-5)


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_a_resumed_run_is_bit_identical(
    server: Server, staged: dict[int, Path], workshop: Workshop, stage: int
) -> None:
    """The newest checkpoint is damaged: the one before is taken, and nothing else changes."""
    out = workshop.folder / f"resumed{stage}"
    shutil.copytree(staged[stage], out)
    shutil.rmtree(out / "model")
    shutil.rmtree(out / "checkpoints" / "step-00000012")
    damaged = sorted((out / "checkpoints" / "step-00000010").rglob("*model_states.pt"))[0]
    flip_a_byte(damaged)
    expected = (out / "metrics.jsonl").read_bytes()
    result = server.run(2, "pretrain.py", *workshop.pretraining(out, workshop.config(stage)))
    assert result.code == 0, result.text
    assert "checkpoint passed over" in result.text
    assert f"step-00000010: state/{damaged.name} is damaged" in result.text
    assert "continuing after step 5 " in result.text
    assert losses(out) == losses(staged[stage])
    timeless = [{**row, "tokens_per_s": 0} for row in read_metrics(out / "metrics.jsonl")]
    (out / "metrics.jsonl").write_bytes(expected)
    assert timeless == [{**r, "tokens_per_s": 0} for r in read_metrics(out / "metrics.jsonl")]
    weights, reference = (path / "model/model.safetensors" for path in (out, staged[stage]))
    assert weights.read_bytes() == reference.read_bytes()
    assert checkpoints(out) == checkpoints(staged[stage])


def test_a_finished_run_is_not_done_again(
    server: Server, staged: dict[int, Path], workshop: Workshop
) -> None:
    out = workshop.folder / "again"
    shutil.copytree(staged[1], out)
    before = (out / "metrics.jsonl").read_bytes()
    result = server.run(2, "pretrain.py", *workshop.pretraining(out, workshop.config(1)))
    assert result.code == 0, result.text
    assert "continuing after step 12 " in result.text
    assert (out / "metrics.jsonl").read_bytes() == before


def test_damaged_checkpoints_never_mean_starting_over(
    server: Server, staged: dict[int, Path], workshop: Workshop
) -> None:
    out = workshop.folder / "damaged"
    shutil.copytree(staged[1], out)
    for name in checkpoints(out):
        flip_a_byte(out / "checkpoints" / name / "commit.json")
    before = (out / "metrics.jsonl").read_bytes()
    result = server.run(2, "pretrain.py", *workshop.pretraining(out, workshop.config(1)))
    assert result.code == 1
    assert result.text.count("error: ") == 1, result.text
    assert "no checkpoint is whole" in result.text and "Traceback" not in result.text
    assert (out / "metrics.jsonl").read_bytes() == before


def test_other_ranks_cannot_continue_and_are_told_so(
    server: Server, staged: dict[int, Path], workshop: Workshop
) -> None:
    out = workshop.folder / "fewer"
    shutil.copytree(staged[1], out)
    result = server.run(
        1, "pretrain.py", *workshop.pretraining(out, workshop.config(1), accumulation=2)
    )
    assert result.code == 1
    assert "was written by 2 ranks under ZeRO stage 1, this is 1 rank" in result.text


def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    server: Server, staged: dict[int, Path], workshop: Workshop
) -> None:
    """SIGTERM saves and leaves with a code of its own; the same command ends the run."""
    out = workshop.folder / "stopped"
    arguments = workshop.pretraining(out, workshop.config(1))
    ranks = server.start(2, "pretrain.py", *arguments)
    wait_for_steps(out, 1)
    for process in ranks.processes:
        os.kill(process, signal.SIGTERM)
    stopped = server.finish(ranks)
    assert stopped.code == 128 + signal.SIGTERM, stopped.text
    assert "the same command continues from here" in stopped.text
    done = len(losses(out))
    assert 1 <= done < STEPS and not (out / "model").exists()
    assert checkpoints(out)[-1] == f"step-{done:08d}"
    result = server.run(2, "pretrain.py", *arguments)
    assert result.code == 0, result.text
    assert losses(out) == losses(staged[1])


def wait_for_steps(out: Path, steps: int) -> None:
    """Wait until a run has logged some steps."""
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        if len([row for row in read_metrics(out / "metrics.jsonl") if "loss" in row]) >= steps:
            return
        time.sleep(0.005)
    raise AssertionError("the run does not begin")


def test_ranks_do_not_outlive_the_launcher(workshop: Workshop) -> None:
    """On SIGTERM the ``deepspeed`` command dies at once; its ranks notice, save and end."""
    out = workshop.folder / "orphans"
    arguments = workshop.pretraining(out, workshop.config(1), steps=20_000, save_every=0)
    launcher = subprocess.Popen(
        launch_command("pretrain.py", *arguments),
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    family = []
    try:
        wait_for_steps(out, 1)
        family = psutil.Process(launcher.pid).children(recursive=True)
        launcher.terminate()
        launcher.wait(timeout=TIMEOUT_S)
        _, alive = psutil.wait_procs(family, timeout=60)
        assert alive == []
    finally:
        for process in family:
            if process.is_running():
                process.kill()
        launcher.kill()
        launcher.wait()
    assert len(family) >= 3  # DeepSpeed's launcher on the node, and two ranks
    assert checkpoints(out) == [f"step-{len(losses(out)):08d}"]


def test_a_loss_that_is_no_number_stops_the_run(server: Server, workshop: Workshop) -> None:
    out = workshop.folder / "exploded"
    arguments = workshop.pretraining(
        out, workshop.config(1), lr=1e30, warmup=0, grad_clip=0, save_every=1, eval_every=0
    )
    result = server.run(2, "pretrain.py", *arguments)
    assert result.code == 1
    assert result.text.count("error: ") == 1, result.text
    assert "is not finite" in result.text or "the loss of step" in result.text
    assert "lower --lr" in result.text and "Traceback" not in result.text
    assert not (out / "model").exists()
    assert all(math.isfinite(loss) for loss in losses(out))


@pytest.mark.parametrize("name", ["zero1", "zero2", "zero3", "zero3_offload"])
def test_the_files_for_gpus_train_on_two_cpu_ranks(
    server: Server, staged: dict[int, Path], workshop: Workshop, name: str
) -> None:
    out = workshop.folder / f"bf16-{name}"
    arguments = workshop.pretraining(out, CONFIGS / f"{name}.json", save_every=0)
    result = server.run(2, "pretrain.py", *arguments)
    assert result.code == 0, result.text
    # bf16 has 8 bits of mantissa: near the fp32 curve, not on it.
    assert losses(out) == pytest.approx(losses(staged[1]), abs=0.1)
    tensors = load_file(out / "model/model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


def test_finetuning_by_the_launcher(staged: dict[int, Path], workshop: Workshop) -> None:
    """The README's command, with ``cpu.json`` as it is."""
    fine = workshop.folder / "fine"
    tuning: list[object] = ["--data", workshop.pairs, "--valid", workshop.pairs, "--epochs", 2]
    tuning += ["--init", staged[1], "--deepspeed_config", CONFIGS / "cpu.json", "--out", fine]
    result = launch("finetune.py", *tuning, "--micro-batch", 2)
    assert result.code == 0, result.text
    rows = read_metrics(fine / "metrics.jsonl")
    assert rows[-1]["valid_loss"] < rows[0]["valid_loss"]
    trained = [row for row in rows if "loss" in row]
    # 60 requests of some 7 tokens: each row is a request, [SEP] and as long a response.
    assert all(0.4 < row["supervised_share"] < 0.6 for row in trained)
    supervised = sum(row["tokens"] * row["supervised_share"] for row in trained)
    manifest = ShardSet.open(workshop.pairs).manifest
    assert supervised == pytest.approx(2 * manifest.supervised_tokens, rel=1e-3)
    assert load_model(fine).stage == "finetune"


def test_a_refusal_is_one_error_and_leaves_nothing(workshop: Workshop) -> None:
    out = workshop.folder / "refused"
    tuning: list[Any] = ["--data", workshop.pretrain, "--init", workshop.folder, "--out", out]
    result = launch("finetune.py", *tuning, "--deepspeed_config", CONFIGS / "cpu.json")
    assert result.code == 1
    assert result.text.count("error: ") == 1, result.text
    assert "holds pretraining data, this is fine-tuning" in result.text
    assert "remedy: use train/pretrain.py" in result.text
    assert "Traceback" not in result.text
    assert not out.exists()


def test_a_wrong_option_is_told_once(server: Server, workshop: Workshop) -> None:
    arguments = workshop.pretraining(workshop.folder / "x", CONFIGS / "cpu.json")
    result = server.run(2, "pretrain.py", *arguments, "--stepz")
    assert result.code == 2
    assert result.text.count("No such option") == 1, result.text
