"""A fault at every system call by which a run changes its folder: the same command mends it.

After SIGKILL, a full disk or a failing one, at any call, the data set that stood there is still
whole (or its successor is), the same command finishes with the bytes of an undisturbed run, and
units that were committed are not made again.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults.conftest import Figures, folder_hashes
from tests.faults.tracing import Call, End, Tracer, why_not
from vnprep.audit.verify import unfinished, verify

KILL = "signal=SIGKILL"
FAULTS = [KILL, "error=ENOSPC", "error=EIO"]
WORDS = {"error=ENOSPC": "No space left on device", "error=EIO": "Input/output error"}

reason = why_not()
pytestmark = pytest.mark.skipif(reason is not None, reason=str(reason))


@dataclass
class Scenario:
    """A command, the folder as it was before it, and as an undisturbed run leaves it."""

    command: list[object]
    out: Path
    before: Path
    tracer: Tracer
    units: int
    calls: list[Call] = field(init=False)
    old: dict[str, str] = field(init=False)
    new: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.reset()
        self.old = folder_hashes(self.out)
        self.calls = self.tracer.calls(self.command, self.out)
        self.new = folder_hashes(self.out)
        assert len(self.calls) > 50 and verify(self.out) == []

    def reset(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        if self.before.exists():
            shutil.copytree(self.before, self.out)

    def fault(self, call: Call, what: str) -> End:
        """Let the command meet a fault, and check what it says and what it leaves."""
        end = self.tracer.fault(self.command, call, what)
        if what == KILL:
            assert end.code in (0, -9)
        else:
            assert end.code in (0, 1), end.messages
            if end.code == 1:
                assert WORDS[what] in end.messages and "remedy: " in end.messages
            assert "Traceback" not in end.messages
        if end.code == 0:
            assert folder_hashes(self.out) == self.new
        self.check_nothing_is_lost()
        return end

    def check_nothing_is_lost(self) -> None:
        """A whole data set stands there, the old or the new one; or the new is whole aside."""
        if (self.out / "manifest.json").exists():
            assert verify(self.out) == []
            there = folder_hashes(self.out)["manifest.json"]
            assert there in (self.old.get("manifest.json"), self.new["manifest.json"])
        elif self.old:
            aside = {**folder_hashes(self.out), **folder_hashes(self.out / ".work")}
            assert {name: aside[name] for name in self.new} == self.new
            assert unfinished(self.out)

    def finish(self) -> int:
        """Run the command again; return how many units it made that were committed already."""
        work = self.out / ".work"
        committed = len(list(work.glob("[0-9]*.json"))) if work.exists() else 0
        decided = (work / "manifest.json").exists()
        done = folder_hashes(self.out).get("manifest.json") == self.new["manifest.json"]
        end = self.tracer.run(self.command)
        assert end.code == 0, end.messages
        assert folder_hashes(self.out) == self.new
        made: int = json.loads(end.messages.splitlines()[-1])["shards_made_now"]
        return max(0, made - (0 if decided or done else self.units - committed))


@pytest.fixture
def tracer(tmp_path: Path) -> Iterator[Tracer]:
    with Tracer(tmp_path) as tracer:
        yield tracer


@pytest.fixture(params=["new", "append", "overwrite"])
def scenario(
    request: pytest.FixtureRequest, tmp_path: Path, bpe_path: Path, tracer: Tracer
) -> Scenario:
    for name, numbers in (("a", range(60)), ("b", range(60, 100))):
        lines = [b"\xff" if n % 20 == 7 else f"Quạt {n} phòng ngủ".encode() for n in numbers]
        (tmp_path / f"{name}.txt").write_bytes(b"\n".join(lines))
    shape = ("--tokenizer", bpe_path, "--split", "line", "--workers", 1, "--unit-mb", 0.0005)

    def command(name: str, out: Path, *more: str) -> list[object]:
        return ["pretrain-text", tmp_path / f"{name}.txt", "--out", out, "--json", *shape, *more]

    out, before = tmp_path / "out", tmp_path / "before"
    if request.param == "new":
        return Scenario(command("a", out), out, before, tracer, units=3)
    if request.param == "append":
        assert tracer.run(command("a", before)).code == 0
        return Scenario(command("b", out, "--append"), out, before, tracer, units=2)
    assert tracer.run(command("a", before, "--no-eos-loss")).code == 0
    return Scenario(command("a", out, "--overwrite"), out, before, tracer, units=3)


def sweep(scenario: Scenario, calls: Sequence[Call], faults: Sequence[str]) -> Counter[str]:
    """Meet faults at calls, each in a run of its own that is then finished; count what came."""
    counts: Counter[str] = Counter()
    for call, what in itertools.product(calls, faults):
        scenario.reset()
        end = scenario.fault(call, what)
        counts[what] += end.injected
        counts["made again"] += scenario.finish()
    return counts


def sweep_twice(scenario: Scenario, pairs: Sequence[tuple[Call, Call]]) -> int:
    """Kill a run, kill the one that resumes it, and finish; return how often both were killed."""
    both = 0
    for first, second in pairs:
        scenario.reset()
        if scenario.fault(first, KILL).code == -9:
            both += scenario.fault(second, KILL).code == -9
        scenario.finish()
    return both


def test_a_fault_at_a_system_call_is_mended_by_the_same_command(scenario: Scenario) -> None:
    step = len(scenario.calls) // 4
    counts = sweep(scenario, scenario.calls[step // 2 :: step], FAULTS)
    assert min(counts[what] for what in FAULTS) >= 4
    assert counts["made again"] == 0
    # The resuming run makes fewer calls: the second kill comes early in it.
    assert sweep_twice(scenario, [(scenario.calls[45], scenario.calls[12])]) == 1


@pytest.mark.faults
def test_a_fault_at_every_system_call_is_mended_by_the_same_command(
    scenario: Scenario, figures: Figures
) -> None:
    counts = sweep(scenario, scenario.calls, FAULTS)
    runs = len(scenario.calls)
    assert [counts[what] for what in FAULTS] == [runs] * 3
    figures(
        f"{runs} calls; {runs} SIGKILL, {runs} ENOSPC, {runs} EIO: {3 * runs} of {3 * runs} "
        f"finished with equal bytes; {counts['made again']} committed units made again"
    )
    pairs = list(itertools.product(scenario.calls[::12], scenario.calls[::7]))
    both = sweep_twice(scenario, pairs)
    figures(f"killed and killed again as it resumed: {both} of {len(pairs)}, all equal at last")


@pytest.mark.faults
def test_workers_and_parent_killed_at_every_call(scenario: Scenario, figures: Figures) -> None:
    """With two workers the k-th call may be anyone's, the parent's or a worker's."""
    scenario.command[scenario.command.index("--workers") + 1] = 2
    calls = [call for call in scenario.calls if call.name in ("write", "fsync", "rename")][::3]
    ended = Counter[int]()
    for call in calls:
        scenario.reset()
        end = scenario.tracer.fault(scenario.command, call, KILL)
        ended[end.code] += 1
        assert "Traceback" not in end.messages
        scenario.check_nothing_is_lost()
        scenario.finish()
    figures(f"{len(calls)} kills of parent or worker ({dict(ended)}): all equal at last")
