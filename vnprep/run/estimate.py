"""``--dry-run``: what a command would do, and how large the outcome will be. Nothing is written."""

from __future__ import annotations

import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vnprep.config import PrepareConfig
from vnprep.pipeline import make_shard
from vnprep.run.claim import is_begun
from vnprep.run.commit import refuse_foreign
from vnprep.run.excerpts import Excerpt, take_excerpts
from vnprep.run.progress import Report
from vnprep.run.sampling import sample_inputs
from vnprep.run.task import Mode, make_task
from vnprep.shards.folder import WORK_FOLDER
from vnprep.shards.manifest import ShardRecord
from vnprep.shards.schema import id_type
from vnprep.sources.plan import Input, find_inputs, make_plan
from vnprep.tokenizer.encode import Encoder
from vnprep.tokenizer.load import LoadedTokenizer
from vnprep.tokenizer.parity import choose_encoder, make_encoder
from vnprep.tokenizer.probe import warning

# Beside its tokens a row takes three offsets, its source, its line and its byte offset; a shard
# has a head and a foot.
_BYTES_A_ROW = 3 * 4 + 4 + 8 + 8
_BYTES_A_SHARD = 3_000


@dataclass(frozen=True)
class Kind:
    """The inputs of one format, e.g. ``jsonl`` or ``jsonl, compressed``."""

    name: str
    files: int
    bytes: int


@dataclass(frozen=True)
class Estimate:
    """What a run would do; the figures marked "about" come from encoding a small sample.

    Attributes:
        inputs: to be read, by format.
        skipped: inputs that an append would leave out.
        shards: to be made in all, one for each unit of work.
        shards_done: of these, made already by an earlier run.
        finished: whether nothing is left to do.
        rows, tokens, output_bytes, seconds: about, of the shards to be made in all; None where
            nothing could be sampled.
        sampled_bytes: of the inputs, how much the sample stands for.
        sampled_rejects: records of the sample that were rejected, by reason.
    """

    inputs: tuple[Kind, ...]
    skipped: int
    shards: int
    shards_done: int
    finished: bool
    rows: int | None
    tokens: int | None
    output_bytes: int | None
    seconds: float | None
    sampled_bytes: int
    sampled_rejects: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self)


def estimate(
    arguments: Sequence[str],
    out: Path,
    config: PrepareConfig,
    tokenizer: LoadedTokenizer,
    *,
    workers: int = 1,
    mode: Mode = "new",
    report: Report | None = None,
    tell: Callable[[str], None] | None = None,
) -> Estimate:
    """Foretell what ``vnprep.run.prepare.prepare`` would do with the same arguments.

    All inputs are read once, to tell the units and what is done already; of their text only a
    few megabytes are encoded.

    Raises:
        InputError, OutputError: what ``prepare`` would raise before it begins.
    """
    if tell is not None and (line := warning(tokenizer)):
        tell(line)
    inputs = find_inputs(arguments, config.read.format, out=out, tell=tell)
    refuse_foreign(out, overwrite=mode == "overwrite")
    task = make_task(inputs, out, config, tokenizer, mode, report)
    begun = is_begun(out, task.wanted, task.plan, overwrite=mode == "overwrite")
    sizes = {record.name: record.bytes for record in task.plan.inputs}
    kinds = _by_kind([] if task.done else [item for item in inputs if item.name in sizes])
    units = 0 if task.done else len(task.plan.units)
    found = _Found()
    if kinds:
        texts = sample_inputs(task.plan.sources, config.read)
        encoder = make_encoder(tokenizer, choose_encoder(tokenizer, texts).name)
        encoder.encode(texts)  # so that its start is not taken for its speed
        found = _encode_excerpts(kinds, sizes, config, tokenizer, encoder)
    width = id_type(tokenizer.vocab_size - 1).bit_width // 8
    size = found.tokens * (2 * width + 1) + found.rows * _BYTES_A_ROW + units * _BYTES_A_SHARD
    seconds = found.seconds / max(min(workers, units), 1)
    return Estimate(
        tuple(
            Kind(name, len(items), sum(sizes[item.name] for item in items))
            for name, items in kinds.items()
        ),
        task.skipped,
        units,
        len(list((out / WORK_FOLDER).glob("[0-9]*.json"))) if begun else 0,
        task.done is not None,
        round(found.rows) if found.complete else None,
        round(found.tokens) if found.complete else None,
        round(size) if found.complete else None,
        round(seconds, 1) if found.complete else None,
        round(found.bytes),
        dict(found.rejects),
    )


def _by_kind(inputs: Sequence[Input]) -> dict[str, list[Input]]:
    kinds: defaultdict[str, list[Input]] = defaultdict(list)
    for item in inputs:
        kinds[f"{item.format}, compressed" if item.compressed else item.format].append(item)
    return dict(sorted(kinds.items()))


@dataclass
class _Found:
    """What a sample foretells of all inputs."""

    rows: float = 0.0
    tokens: float = 0.0
    seconds: float = 0.0
    bytes: float = 0.0
    rejects: Counter[str] = field(default_factory=Counter)
    complete: bool = True


def _encode_excerpts(
    kinds: dict[str, list[Input]],
    sizes: dict[str, int],
    config: PrepareConfig,
    tokenizer: LoadedTokenizer,
    encoder: Encoder,
) -> _Found:
    """Encode parts of inputs of each kind, and multiply by what they stand for."""
    found = _Found()
    for inputs in kinds.values():
        total = [sizes[item.name] for item in inputs]
        if not sum(total):
            continue
        with tempfile.TemporaryDirectory(prefix="vnprep-") as name:
            excerpts = take_excerpts(inputs, total, Path(name))
            covered = sum(item.covers for item in excerpts)
            if not covered:
                found.complete = False
                continue
            record, seconds = _encode(excerpts, config, tokenizer, encoder, Path(name))
        times = sum(total) / covered
        found.bytes += covered
        found.rows += record.rows * times
        found.tokens += record.tokens * times
        found.seconds += seconds * times
        found.rejects.update(record.ledger.rejected)
    return found


def _encode(
    excerpts: Sequence[Excerpt],
    config: PrepareConfig,
    tokenizer: LoadedTokenizer,
    encoder: Encoder,
    folder: Path,
) -> tuple[ShardRecord, float]:
    """Make one shard of excerpts; return its record, and the seconds that took."""
    inputs = [excerpt.input for excerpt in excerpts]
    enough = 2 * sum(item.path.stat().st_size for item in inputs) + 1
    (unit,) = make_plan(inputs, config.read, enough).units
    began = time.monotonic()
    record = make_shard(unit, config, tokenizer, encoder, folder)
    return record, time.monotonic() - began
