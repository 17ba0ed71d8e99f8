"""Prepare a data set: plan, run what is missing, and commit it at the end.

A rerun of the same command trusts the units whose shard still matches its record, does the
rest, and ends with the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vnprep.config import PrepareConfig
from vnprep.durable import TEMPORARY_SUFFIX, sha256_file, write_text
from vnprep.engines.local import Crew, Job, run_units
from vnprep.errors import EncoderMismatch, InputError, NoRowsError, OutputError, VnprepError
from vnprep.run.claim import begin, identity_of
from vnprep.run.commit import carry_through, clear, commit, hold
from vnprep.run.encoders import Gate, Tell, encoder_of_run, use_reference
from vnprep.run.progress import Report, Totals
from vnprep.run.records import forget_records, read_record, write_record
from vnprep.run.rejects import Judge, RejectLimit, no_rows, refuse_finished
from vnprep.run.task import Mode, Task, make_task
from vnprep.shards.folder import UNPACKED_FOLDER, WORK_FOLDER
from vnprep.shards.inputs import inputs_name, write_inputs
from vnprep.shards.manifest import (
    MANIFEST_NAME,
    TOKENIZER_NAME,
    FileRecord,
    Inputs,
    Manifest,
    ShardRecord,
    TokenizerRecord,
)
from vnprep.sources.plan import Input, Plan, Stamp, Unit, find_inputs
from vnprep.tokenizer.load import LoadedTokenizer
from vnprep.tokenizer.probe import warning


@dataclass(frozen=True)
class Prepared:
    """The outcome.

    Attributes:
        manifest: of the finished data set.
        done_now: units done by this call; the others were there from an earlier one.
        added: inputs that this call added.
        skipped: inputs that an append left out, since the data set has their content already.
    """

    manifest: Manifest
    done_now: int
    added: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class _Conduct:
    """How a run goes about its work; none of it changes the bytes."""

    workers: int
    mode: Mode
    max_rejects: RejectLimit | None
    report: Report | None
    tell: Tell | None


def prepare(
    arguments: Sequence[str],
    out: Path,
    config: PrepareConfig,
    tokenizer: LoadedTokenizer,
    *,
    workers: int = 1,
    mode: Mode = "new",
    max_rejects: RejectLimit | None = None,
    report: Report | None = None,
    tell: Tell | None = None,
) -> Prepared:
    """Turn inputs into a data folder.

    Args:
        arguments: files, folders and globs.
        out: the folder to write; made if it is not there.
        config: all that decides the bytes, beside inputs and tokenizer.
        tokenizer: makes the ids; a copy goes into the folder.
        workers: processes; any number gives the same bytes.
        mode: what to do with a data set that stands in ``out``. Replaced or added to, it stays
            as it is until its successor is whole.
        max_rejects: with more rejects the data set is not written; None allows any number.
        report: called as work goes on.
        tell: called with lines for the user: what is passed over, which encoder serves and why.

    Raises:
        InputError: an input cannot be used, or there are too many rejects.
        NoRowsError: nothing was left to write.
        OutputError: ``out`` cannot be written to, holds something else, or another run is
            writing there.
    """
    conduct = _Conduct(workers, mode, max_rejects, report, tell)
    if tell is not None and (line := warning(tokenizer)):
        tell(line)
    try:
        inputs = find_inputs(arguments, config.read.format, out=out, tell=tell)
        with (
            hold(out, overwrite=mode == "overwrite"),
            Crew(_crew_size(inputs, out, config, conduct)) as crew,
        ):
            gate = Gate(inputs, config.read, tokenizer, early=bool(crew.connections))
            try:
                return _prepare(inputs, out, config, tokenizer, crew, gate, conduct)
            finally:
                shutil.rmtree(out / WORK_FOLDER / UNPACKED_FOLDER, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            f"cannot go on ({error.strerror or error})",
            place=error.filename or out,
            remedy="check space and permissions, then run the same command again: it goes on",
        ) from None


def _crew_size(inputs: list[Input], out: Path, config: PrepareConfig, conduct: _Conduct) -> int:
    """Return how many workers to start before it is known what they will have to do."""
    if conduct.mode == "new" and (out / MANIFEST_NAME).exists():
        return 0  # in all likelihood it is finished
    total = sum(item.path.stat().st_size * (1 + 3 * item.compressed) for item in inputs)
    return min(conduct.workers, -(-total // config.unit_bytes))


def _prepare(
    inputs: list[Input],
    out: Path,
    config: PrepareConfig,
    tokenizer: LoadedTokenizer,
    crew: Crew,
    gate: Gate,
    conduct: _Conduct,
) -> Prepared:
    """Do the work of ``prepare`` in a folder that is held."""
    carried = carry_through(out)
    unpacked = out / WORK_FOLDER / UNPACKED_FOLDER
    shutil.rmtree(unpacked, ignore_errors=True)  # of a run that was killed
    task = make_task(inputs, out, config, tokenizer, conduct.mode, conduct.report, unpacked)
    if task.done is not None:
        refuse_finished(conduct.max_rejects, task.done, out)
        return Prepared(task.done, 0, skipped=task.skipped)
    if carried and identity_of(Manifest.read(out)) == task.wanted:
        return Prepared(Manifest.read(out), 0)  # this very command was all but through
    begin(out, task.wanted, task.plan, overwrite=conduct.mode == "overwrite")
    work = out / WORK_FOLDER
    try:
        manifest, done_now = _run(task, work, config, tokenizer, crew, gate, conduct)
    except VnprepError as error:
        # Nothing worth resuming: leave the folder free for a corrected command.
        if isinstance(error, NoRowsError) or not any(work.glob("[0-9]*.json")):
            clear(work)
        raise
    commit(out, manifest)
    return Prepared(manifest, done_now, len(task.plan.inputs), task.skipped)


def _run(
    task: Task,
    work: Path,
    config: PrepareConfig,
    tokenizer: LoadedTokenizer,
    crew: Crew,
    gate: Gate,
    conduct: _Conduct,
) -> tuple[Manifest, int]:
    """Make the missing shards in the work folder; return the manifest and the units done now."""
    for leftover in work.glob(f"*{TEMPORARY_SUFFIX}"):
        leftover.unlink()  # of a run that was killed while it wrote
    units, base = task.plan.units, task.base
    text = tokenizer.text
    if base is not None:  # the same tokenizer, but perhaps another layout of its file
        text = (work.parent / TOKENIZER_NAME).read_text(encoding="utf-8")
    write_text(work / TOKENIZER_NAME, text)
    inputs = write_inputs(work / inputs_name(len(base.inputs) if base else 0), task.plan.inputs)
    encoder = encoder_of_run(work, gate, conduct.tell)
    job = Job(config, tokenizer.special, encoder, work)
    try:
        records, done_now = _make_units(units, job, crew, conduct)
    except EncoderMismatch as mismatch:
        use_reference(work, mismatch)
        with Crew(crew.count) as fresh:
            return _run(task, work, config, tokenizer, fresh, gate, conduct)
    _refuse_changed(work, task.plan)
    shards = tuple(records[unit.number] for unit in units)
    return _manifest(work, config, tokenizer, encoder, base, inputs, shards), done_now


def _make_units(
    units: Sequence[Unit], job: Job, crew: Crew, conduct: _Conduct
) -> tuple[dict[int, ShardRecord], int]:
    """Make the units that are missing; return the records of all, and how many were made now."""
    work = job.folder
    records = {unit.number: record for unit in units if (record := read_record(work, unit))}
    totals = Totals("encode", sum(unit.bytes for unit in units), conduct.report)
    for unit in units:
        if unit.number in records:
            totals.add(unit, records[unit.number])
    judge = Judge(conduct.max_rejects, units, work)
    judge.look(records)
    todo = [unit for unit in units if unit.number not in records]
    try:
        for unit, record in run_units(job, todo, crew, totals.advance):
            write_record(work, unit, record)
            records[unit.number] = record
            totals.add(unit, record)
            judge.look(records)
    finally:
        crew.dismiss()  # before anybody tidies the work folder up
    if sum(record.rows for record in records.values()) == 0:
        raise no_rows(totals.ledger, work, units, job.config.stage)
    return records, len(todo)


def _refuse_changed(work: Path, plan: Plan) -> None:
    """Refuse inputs that were written to since they were hashed; what was made of them goes."""
    pairs = zip(plan.sources, plan.stamps, strict=True)
    changed = [source.name for source, stamp in pairs if Stamp.of(source.path.stat()) != stamp]
    if changed:
        # Put back as it was, the input has its old hash again, and would lend it to these shards.
        forget_records(work, plan.units, frozenset(changed))
        raise InputError(
            "changed while it was being read",
            place=changed[0],
            remedy="run again with --overwrite once nothing writes to it",
        )


def _manifest(
    work: Path,
    config: PrepareConfig,
    tokenizer: LoadedTokenizer,
    encoder: str,
    base: Manifest | None,
    inputs: Inputs,
    shards: tuple[ShardRecord, ...],
) -> Manifest:
    path = work / TOKENIZER_NAME
    encoders = {encoder, *(base.tokenizer.encoder.split("+") if base else ())}
    applied = TokenizerRecord(
        tokenizer.fingerprint, tokenizer.vocab_size, tokenizer.special, "+".join(sorted(encoders))
    )
    return Manifest(
        config.stage,
        config.to_json(),
        (*(base.inputs if base else ()), inputs),
        applied,
        FileRecord(TOKENIZER_NAME, path.stat().st_size, sha256_file(path)),
        (*(base.shards if base else ()), *shards),
    )
