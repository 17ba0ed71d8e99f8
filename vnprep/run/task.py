"""What a command asks for, held against what stands in its folder; nothing is written here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vnprep.config import PrepareConfig
from vnprep.errors import OutputError
from vnprep.run.append import choose, numbered_from
from vnprep.run.claim import Identity, finished, identity, identity_of, refuse_other
from vnprep.run.progress import Report, Totals
from vnprep.shards.inputs import read_inputs
from vnprep.shards.manifest import MANIFEST_NAME, Manifest
from vnprep.shards.read import file_problem
from vnprep.sources.plan import Input, Plan, make_plan
from vnprep.sources.unpacking import NOWHERE
from vnprep.tokenizer.load import LoadedTokenizer

#: What a run does with a data set that stands in its folder: keep it if it is the one that is
#: wanted and refuse it otherwise, replace it, or add to it.
Mode = Literal["new", "overwrite", "append"]


@dataclass(frozen=True)
class Task:
    """What is to be done.

    Attributes:
        plan: the inputs to be read and the units to be made.
        wanted: what this run has in common with any that writes the same bytes.
        base: the data set that is added to, or None.
        skipped: inputs left out by an append, since the data set has their content already.
        done: the data set, if nothing is left to do.
    """

    plan: Plan
    wanted: Identity
    base: Manifest | None = None
    skipped: int = 0
    done: Manifest | None = None


def make_task(
    inputs: Sequence[Input],
    out: Path,
    config: PrepareConfig,
    tokenizer: LoadedTokenizer,
    mode: Mode,
    report: Report | None = None,
    unpacked: Path = NOWHERE,
) -> Task:
    """Read the inputs once and find out what is to be done.

    Args:
        inputs: to read.
        out: the folder to write to, later.
        config, tokenizer, mode: what is wanted.
        report: called as the inputs are read.
        unpacked: where large compressed files are unpacked; ``NOWHERE`` if nothing is to be done
            but to know.

    Raises:
        InputError: an input cannot be read, or was changed since it was added.
        OutputError: what stands in ``out`` is not what is wanted, nor to be replaced.
    """
    stands = (out / MANIFEST_NAME).exists()
    if mode == "append" and stands:
        return _append(inputs, out, config, tokenizer, report, unpacked)
    done = mode == "new" and stands
    plan = _plan(inputs, config, report, None if done else unpacked)
    wanted = identity(plan, config, tokenizer, None)
    return Task(plan, wanted, done=finished(out, wanted, plan) if done else None)


def _append(
    inputs: Sequence[Input],
    out: Path,
    config: PrepareConfig,
    tokenizer: LoadedTokenizer,
    report: Report | None,
    unpacked: Path,
) -> Task:
    base = Manifest.read(out)
    plan = _plan(inputs, config, report, None)
    there = identity_of(base)
    wanted = identity(plan, config, tokenizer, base)
    refuse_other(there, {**wanted, "input": there["input"]}, out, "a finished data set")
    # Sizes are compared and not every byte: an append should cost what it adds.
    if any(file_problem(out, record, "sizes") for record in base.files):
        raise OutputError(
            "the data set that stands here is damaged",
            place=out,
            remedy="vnprep verify names its files; pass --overwrite to prepare it again",
        )
    streams = {item.name for item in inputs if item.label}
    choice = choose(read_inputs(out, base.inputs), plan.inputs, streams)
    if not choice.new:
        return Task(plan, there, base, choice.skipped, done=base)
    if choice.skipped or any(item.compressed for item in inputs):
        new = [item for item in inputs if item.name in choice.new]
        plan = _plan(new, config, report, unpacked)
        wanted = identity(plan, config, tokenizer, base)
    return Task(numbered_from(plan, len(base.shards)), wanted, base, choice.skipped)


def _plan(
    inputs: Sequence[Input], config: PrepareConfig, report: Report | None, unpacked: Path | None
) -> Plan:
    total = sum(item.path.stat().st_size for item in inputs) if report else 0
    progress = Totals("plan", total, report).add_bytes
    return make_plan(inputs, config.read, config.unit_bytes, progress, unpacked)
