"""``--dry-run`` in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vnprep.run.estimate import Estimate
    from vnprep.run.task import Mode

_STEP = 1024.0


def estimate_lines(foretold: Estimate, out: Path, mode: Mode) -> Iterator[str]:
    """Yield the lines that say what a run would do."""
    for kind in foretold.inputs:
        yield f"read         {kind.files:,} × {kind.name}, {_size(kind.bytes)}"
    if foretold.skipped:
        yield f"skip         {foretold.skipped:,} inputs that are in {out} already"
    if foretold.finished:
        yield f"nothing to do: {out} is finished already"
        return
    verb = {"new": "write", "overwrite": "replace", "append": "add"}[mode]
    done = f", {foretold.shards_done:,} of them made already" if foretold.shards_done else ""
    shards = "1 shard" if foretold.shards == 1 else f"{foretold.shards:,} shards"
    yield f"{verb:<13}{shards} in {out}{done}"
    if foretold.tokens is None or foretold.rows is None or foretold.output_bytes is None:
        yield "size         unknown: no sample could be taken of some of these formats"
    else:
        yield f"about        {foretold.rows:,} rows, {foretold.tokens:,} tokens"
        yield f"on disk      about {_size(foretold.output_bytes)}"
        yield f"time         about {max(foretold.seconds or 0, 1):,.0f} s"
    rejects = ", ".join(f"{count:,} {name}" for name, count in foretold.sampled_rejects.items())
    judged = _size(foretold.sampled_bytes)
    yield f"judged by    {judged} of the input; rejects there: {rejects or 0}"
    yield "nothing was written (--dry-run)"


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < _STEP:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= _STEP
    return f"{count:,.1f} TiB"
