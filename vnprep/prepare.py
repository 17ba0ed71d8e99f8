"""Prepare a data set: plan, run what is missing, and commit it at the end.

A rerun of the same command trusts the units whose shard still matches its record, does the
rest, and ends with the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from vnprep.append import choose, numbered_from
from vnprep.claim import begin, finished, identity, identity_of, refuse_other
from vnprep.commit import carry_through, clear, commit, hold
from vnprep.config import PrepareConfig
from vnprep.durable import TEMPORARY_SUFFIX, canonical_json, readable_json, sha256_file, write_text
from vnprep.engines.local import Job, run_units
from vnprep.errors import EncoderMismatch, InputError, NoRowsError, OutputError, VnprepError
from vnprep.pipeline import rejects_name
from vnprep.sampling import sample_inputs
from vnprep.shards.folder import WORK_FOLDER
from vnprep.shards.inputs import inputs_name, read_inputs, write_inputs
from vnprep.shards.ledger import Ledger
from vnprep.shards.manifest import (
    MANIFEST_NAME,
    TOKENIZER_NAME,
    FileRecord,
    Inputs,
    Manifest,
    ShardRecord,
    TokenizerRecord,
)
from vnprep.shards.read import file_problem
from vnprep.sources.plan import Input, Plan, Unit, find_inputs, make_plan
from vnprep.tokenizer.encode import ReferenceEncoder
from vnprep.tokenizer.load import LoadedTokenizer
from vnprep.tokenizer.parity import EncoderChoice, choose_encoder

#: What a run does with a data set that stands in its folder: keep it if it is the one that is
#: wanted and refuse it otherwise, replace it, or add to it.
Mode = Literal["new", "overwrite", "append"]

_ENCODER_NAME = "encoder.json"
_EXAMPLES = 3


@dataclass(frozen=True)
class Progress:
    """What is told while work goes on; every number counts from the start.

    Attributes:
        phase: ``plan`` while inputs are hashed, then ``encode``.
        bytes, total_bytes: of the inputs.
        ledger, tokens: so far.
    """

    phase: str
    bytes: int
    total_bytes: int
    ledger: Ledger
    tokens: int


Report = Callable[[Progress], None]


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


@dataclass
class _Totals:
    """Adds up finished units and passes the sums on."""

    phase: str
    total_bytes: int
    report: Report | None
    bytes: int = 0
    tokens: int = 0
    ledger: Ledger = field(default_factory=Ledger)

    def add_bytes(self, count: int) -> None:
        self.bytes += count
        self._tell()

    def add(self, unit: Unit, record: ShardRecord) -> None:
        self.bytes += unit.bytes
        self.tokens += record.tokens
        self.ledger.add(record.ledger)
        self._tell()

    def _tell(self) -> None:
        if self.report is not None:
            state = Progress(self.phase, self.bytes, self.total_bytes, self.ledger, self.tokens)
            self.report(state)


def prepare(
    arguments: Sequence[str],
    out: Path,
    config: PrepareConfig,
    tokenizer: LoadedTokenizer,
    *,
    workers: int = 1,
    mode: Mode = "new",
    report: Report | None = None,
    tell: Callable[[str], None] | None = None,
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
        report: called as work goes on.
        tell: called with lines for the user on what is passed over.

    Raises:
        InputError: an input cannot be used.
        NoRowsError: nothing was left to write.
        OutputError: ``out`` cannot be written to, holds something else, or another run is
            writing there.
    """
    try:
        inputs = find_inputs(arguments, config.read.format, out=out, tell=tell)
        with hold(out, overwrite=mode == "overwrite"):
            return _prepare(inputs, out, config, tokenizer, workers, mode, report, tell)
    except OSError as error:
        raise OutputError(
            f"cannot go on ({error.strerror or error})",
            place=error.filename or out,
            remedy="check space and permissions, then run the same command again: it goes on",
        ) from None


def _prepare(
    inputs: list[Input],
    out: Path,
    config: PrepareConfig,
    tokenizer: LoadedTokenizer,
    workers: int,
    mode: Mode,
    report: Report | None,
    tell: Callable[[str], None] | None,
) -> Prepared:
    """Do the work of ``prepare`` in a folder that is held."""
    carried = carry_through(out)
    stands = (out / MANIFEST_NAME).exists()
    plan = _plan(inputs, config, report)
    base, skipped = None, 0
    if mode == "append" and stands:
        base = Manifest.read(out)
        _refuse_unlike(base, plan, out, config, tokenizer)
        choice = choose(read_inputs(out, base.inputs), plan.inputs)
        skipped = choice.skipped
        if not choice.new:
            return Prepared(base, 0, skipped=skipped)
        if skipped:
            plan = _plan([item for item in inputs if item.name in choice.new], config, report)
        plan = numbered_from(plan, len(base.shards))
    wanted = identity(plan, config, tokenizer, base)
    if mode == "new" and stands:
        return Prepared(finished(out, wanted, plan), 0)
    if carried and identity_of(Manifest.read(out)) == wanted:
        return Prepared(Manifest.read(out), 0)  # this very command was all but through
    begin(out, wanted, plan, overwrite=mode == "overwrite")
    work = out / WORK_FOLDER
    try:
        manifest, done_now = _run(plan, work, config, tokenizer, base, workers, report, tell)
    except VnprepError as error:
        # Nothing worth resuming: leave the folder free for a corrected command.
        if isinstance(error, NoRowsError) or not any(work.glob("[0-9]*.json")):
            clear(work)
        raise
    commit(out, manifest)
    return Prepared(manifest, done_now, len(plan.inputs), skipped)


def _plan(inputs: list[Input], config: PrepareConfig, report: Report | None) -> Plan:
    total = sum(item.path.stat().st_size for item in inputs) if report else 0
    progress = _Totals("plan", total, report).add_bytes
    return make_plan(inputs, config.read, config.unit_bytes, progress)


def _refuse_unlike(
    base: Manifest, plan: Plan, out: Path, config: PrepareConfig, tokenizer: LoadedTokenizer
) -> None:
    """Refuse to add to a data set that was made otherwise, or that is not whole.

    Sizes are compared and not every byte: an append should cost what it adds.
    """
    wanted = {**identity(plan, config, tokenizer, base), "input": identity_of(base)["input"]}
    refuse_other(identity_of(base), wanted, out, "a finished data set")
    if any(file_problem(out, record, "sizes") for record in base.files):
        raise OutputError(
            "the data set that stands here is damaged",
            place=out,
            remedy="vnprep verify names its files; pass --overwrite to prepare it again",
        )


def _run(
    plan: Plan,
    work: Path,
    config: PrepareConfig,
    tokenizer: LoadedTokenizer,
    base: Manifest | None,
    workers: int,
    report: Report | None,
    tell: Callable[[str], None] | None,
) -> tuple[Manifest, int]:
    """Make the plan's shards in the work folder; return the manifest and the units done now."""
    for leftover in work.glob(f"*{TEMPORARY_SUFFIX}"):
        leftover.unlink()  # of a run that was killed while it wrote
    text = tokenizer.text
    if base is not None:  # the same tokenizer, but perhaps another layout of its file
        text = (work.parent / TOKENIZER_NAME).read_text(encoding="utf-8")
    write_text(work / TOKENIZER_NAME, text)
    inputs = write_inputs(work / inputs_name(len(base.inputs) if base else 0), plan.inputs)
    records = {unit.number: record for unit in plan.units if (record := _committed(work, unit))}
    totals = _Totals("encode", sum(unit.bytes for unit in plan.units), report)
    for unit in plan.units:
        if unit.number in records:
            totals.add(unit, records[unit.number])
    todo = [unit for unit in plan.units if unit.number not in records]
    encoder = _encoder(work, plan, config, tokenizer, tell)
    job = Job(config, tokenizer.special, encoder, work)
    try:
        for unit, record in run_units(job, todo, workers):
            write_text(_record_path(work, unit), readable_json(record.to_json()))
            records[unit.number] = record
            totals.add(unit, record)
    except EncoderMismatch as mismatch:
        # What it made before is not to be trusted either.
        _record_encoder(work, EncoderChoice(ReferenceEncoder.name, mismatch.cause))
        for unit in plan.units:
            _record_path(work, unit).unlink(missing_ok=True)
        return _run(plan, work, config, tokenizer, base, workers, report, tell)
    _refuse_changed(plan)
    shards = tuple(records[unit.number] for unit in plan.units)
    if sum(shard.rows for shard in shards) == 0:
        raise _no_rows(totals.ledger, work, plan)
    return _manifest(work, config, tokenizer, encoder, base, inputs, shards), len(todo)


def _encoder(
    work: Path,
    plan: Plan,
    config: PrepareConfig,
    tokenizer: LoadedTokenizer,
    tell: Callable[[str], None] | None,
) -> str:
    """Return the name of the encoder; an interrupted run goes on with the one it began with."""
    path = work / _ENCODER_NAME
    if path.exists():
        choice = EncoderChoice(**json.loads(path.read_text(encoding="utf-8")))
    else:
        choice = choose_encoder(tokenizer, sample_inputs(plan, config.read))
        _record_encoder(work, choice)
    if choice.reason and tell is not None:
        tell(f"encoding with tokenizers, many times slower than gigatoken: {choice.reason}")
    return choice.name


def _record_encoder(work: Path, choice: EncoderChoice) -> None:
    write_text(work / _ENCODER_NAME, canonical_json(asdict(choice)))


def _record_path(work: Path, unit: Unit) -> Path:
    return work / f"{unit.number:05d}.json"


def _committed(work: Path, unit: Unit) -> ShardRecord | None:
    """Return the record of a unit that was finished earlier and whose files are whole."""
    try:
        record = ShardRecord.from_json(
            json.loads(_record_path(work, unit).read_text(encoding="utf-8"))
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    files = [record.file, *([record.rejects] if record.rejects else [])]
    return None if any(file_problem(work, file, "full") for file in files) else record


def _refuse_changed(plan: Plan) -> None:
    """Refuse inputs that grew or shrank while they were read."""
    for source, record in zip(plan.sources, plan.inputs, strict=True):
        if source.path.stat().st_size != record.bytes:
            raise InputError(
                "changed while it was being read",
                place=record.name,
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
    return Manifest(
        config.stage,
        config.to_json(),
        (*(base.inputs if base else ()), inputs),
        TokenizerRecord(tokenizer.fingerprint, tokenizer.vocab_size, tokenizer.special, encoder),
        FileRecord(TOKENIZER_NAME, path.stat().st_size, sha256_file(path)),
        (*(base.shards if base else ()), *shards),
    )


def _no_rows(ledger: Ledger, work: Path, plan: Plan) -> NoRowsError:
    """Say why nothing is left, with the first few rejects: their files go with the folder."""
    reasons = (ledger.dropped + ledger.rejected).most_common()
    counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
    examples = [example for unit in plan.units for example in _examples(work, unit.number)]
    remedy = "give inputs that hold text"
    if "invalid-utf8" in ledger.rejected:
        remedy = "the text is not UTF-8: convert it, e.g. iconv -f WINDOWS-1258 -t UTF-8 OLD > NEW"
    elif "missing-field" in ledger.rejected:
        remedy = (
            "name the field with --text-field"
            if manifest.stage == "pretrain"
            else "name the fields with --request-field and --response-field, or --messages-field"
        )
    elif "too-long" in ledger.dropped:
        remedy = "raise --max-len, or choose another --truncation"
    elif ledger.rejected:
        remedy = "mend the records named above"
    cause = f"no rows left: {ledger.read:,} read ({counts or 'nothing in it'})"
    return NoRowsError("\n  ".join([cause, *examples[:_EXAMPLES]]), remedy=remedy)


def _examples(work: Path, unit: int) -> list[str]:
    path = work / rejects_name(unit)
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as lines:
        found = [json.loads(line) for line, _ in zip(lines, range(_EXAMPLES), strict=False)]
    return [
        f"{item['source']}:{item['line']}: {item['reason']}"
        + (f" ({item['detail']})" if item["detail"] else "")
        for item in found
    ]
