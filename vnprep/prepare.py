"""Prepare a data set: plan, run what is missing, and write the manifest last.

A rerun of the same command trusts the units whose shard still matches its record, does the
rest, and ends with the same bytes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vnprep.claim import WORK_FOLDER, claim, forget_replaced, give_up, identity
from vnprep.config import PrepareConfig
from vnprep.durable import (
    TEMPORARY_SUFFIX,
    folder_lock,
    fsync_folder,
    readable_json,
    sha256_file,
    write_text,
)
from vnprep.engines.local import Job, run_units
from vnprep.errors import InputError, NoRowsError, VnprepError
from vnprep.pipeline import rejects_name
from vnprep.shards.ledger import Ledger
from vnprep.shards.manifest import (
    TOKENIZER_NAME,
    FileRecord,
    Manifest,
    ShardRecord,
    TokenizerRecord,
)
from vnprep.shards.read import file_problem
from vnprep.sources.plan import Plan, Unit, find_inputs, make_plan
from vnprep.tokenizer.load import LoadedTokenizer

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
    """

    manifest: Manifest
    done_now: int


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
    overwrite: bool = False,
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
        overwrite: remove a data set that stands in ``out``.
        report: called as work goes on.
        tell: called with lines for the user on what is passed over.

    Raises:
        InputError: an input cannot be used.
        NoRowsError: nothing was left to write.
        OutputError: ``out`` holds something else, or another run is writing there.
    """
    inputs = find_inputs(arguments, config.read.format, out=out, tell=tell)
    total = sum(item.path.stat().st_size for item in inputs)
    plan = make_plan(
        inputs, config.read, config.unit_bytes, _Totals("plan", total, report).add_bytes
    )
    finished = claim(out, identity(plan, config, tokenizer), overwrite)
    if finished is not None:
        return Prepared(finished, 0)
    with folder_lock(out / WORK_FOLDER):
        try:
            return _run(plan, out, config, tokenizer, workers, report)
        except VnprepError as error:
            # Nothing worth resuming: leave the folder free for a corrected command.
            done = any((out / WORK_FOLDER).glob("[0-9]*.json"))
            if isinstance(error, NoRowsError) or not done:
                give_up(out)
            raise


def _run(
    plan: Plan,
    out: Path,
    config: PrepareConfig,
    tokenizer: LoadedTokenizer,
    workers: int,
    report: Report | None,
) -> Prepared:
    for leftover in out.glob(f"*{TEMPORARY_SUFFIX}"):
        leftover.unlink()  # of a run that was killed while it wrote
    write_text(out / TOKENIZER_NAME, tokenizer.text)
    records = {unit.number: record for unit in plan.units if (record := _committed(out, unit))}
    totals = _Totals("encode", sum(unit.bytes for unit in plan.units), report)
    for unit in plan.units:
        if unit.number in records:
            totals.add(unit, records[unit.number])
    todo = [unit for unit in plan.units if unit.number not in records]
    job = Job(config, tokenizer.text, tokenizer.special, out)
    for unit, record in run_units(job, todo, workers):
        write_text(_record_path(out, unit), readable_json(record.to_json()))
        records[unit.number] = record
        totals.add(unit, record)
    _refuse_changed(plan)
    manifest = _manifest(plan, out, config, tokenizer, records)
    if manifest.rows == 0:
        raise _no_rows(manifest, out)
    manifest.write(out)
    shutil.rmtree(out / WORK_FOLDER)
    fsync_folder(out)
    forget_replaced(out)
    return Prepared(manifest, len(todo))


def _record_path(out: Path, unit: Unit) -> Path:
    return out / WORK_FOLDER / f"{unit.number:05d}.json"


def _committed(out: Path, unit: Unit) -> ShardRecord | None:
    """Return the record of a unit that was finished earlier and whose files are whole."""
    path = _record_path(out, unit)
    if not path.exists():
        return None
    record = ShardRecord.from_json(json.loads(path.read_text(encoding="utf-8")))
    files = [record.file, *([record.rejects] if record.rejects else [])]
    return None if any(file_problem(out, file, "full") for file in files) else record


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
    plan: Plan,
    out: Path,
    config: PrepareConfig,
    tokenizer: LoadedTokenizer,
    records: dict[int, ShardRecord],
) -> Manifest:
    path = out / TOKENIZER_NAME
    return Manifest(
        config.stage,
        config.to_json(),
        plan.inputs,
        TokenizerRecord(tokenizer.fingerprint, tokenizer.vocab_size, tokenizer.special),
        FileRecord(TOKENIZER_NAME, path.stat().st_size, sha256_file(path)),
        tuple(records[unit.number] for unit in plan.units),
    )


def _no_rows(manifest: Manifest, out: Path) -> NoRowsError:
    """Say why nothing is left, with the first few rejects: their files go with the folder."""
    ledger = manifest.ledger
    reasons = (ledger.dropped + ledger.rejected).most_common()
    counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
    examples = [example for unit in range(len(manifest.shards)) for example in _examples(out, unit)]
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


def _examples(out: Path, unit: int) -> list[str]:
    path = out / rejects_name(unit)
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as lines:
        found = [json.loads(line) for line, _ in zip(lines, range(_EXAMPLES), strict=False)]
    return [
        f"{item['source']}:{item['line']}: {item['reason']}"
        + (f" ({item['detail']})" if item["detail"] else "")
        for item in found
    ]
