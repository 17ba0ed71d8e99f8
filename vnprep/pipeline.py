"""One work unit → one shard: the only place where the stages meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from vnprep.config import PrepareConfig, Stage
from vnprep.errors import TokenizerError
from vnprep.examples import Columns, Mask, Segments, build
from vnprep.shards.ledger import Excluded, Ledger
from vnprep.shards.manifest import ShardRecord
from vnprep.shards.schema import Origin, Origins, id_type, shard_schema, to_batch
from vnprep.shards.write import ExcludedWriter, write_shard
from vnprep.sources.batch import TextBatch, coalesce
from vnprep.sources.batches import read_batches
from vnprep.sources.plan import Unit
from vnprep.sources.records import dropped, rejected
from vnprep.tokenizer.encode import Encoder, holds_special
from vnprep.tokenizer.load import LoadedTokenizer
from vnprep.tokenizer.parity import UnitCheck
from vnprep.truncation import row_lengths, truncate

#: To be raised whenever the same unit, configuration and tokenizer make other bytes than before:
#: a run that another version began is then not continued with shards of both.
ENGINE_VERSION = 2


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:05d}.arrow"


def rejects_name(number: int) -> str:
    """Return the name of the file that lists what a unit left out."""
    return f"shard-{number:05d}.rejects.jsonl"


@dataclass(frozen=True)
class Advance:
    """How far a unit is.

    Attributes:
        bytes: of text that was encoded.
        rows, tokens, rejected: so far.
    """

    bytes: int
    rows: int
    tokens: int
    rejected: int


Report = Callable[[Advance], None]


def make_shard(
    unit: Unit,
    config: PrepareConfig,
    tokenizer: LoadedTokenizer,
    encoder: Encoder,
    folder: Path,
    report: Report | None = None,
) -> ShardRecord:
    """Turn a unit into its shard, and a file of rejects if there are any.

    The bytes depend on the unit, the configuration and the tokenizer alone.

    Args:
        unit: what to read.
        config: how.
        tokenizer, encoder: they make the ids.
        folder: where the files go.
        report: called after each record batch.

    Raises:
        InputError: one of the unit's inputs cannot be used at all.
        TokenizerError: a text cannot be encoded.
        EncoderMismatch: the fast encoder cannot be trusted with this text.
    """
    with ExcludedWriter(folder / rejects_name(unit.number)) as rejects:
        tally = _Tally(rejects)
        maker = _ShardMaker(unit, config, tokenizer, encoder, tally, report)
        file = write_shard(folder / shard_name(unit.number), maker.schema, maker.batches())
    assert tally.ledger.closes, tally.ledger
    return ShardRecord(
        file,
        tally.rows,
        tally.tokens,
        tally.supervised,
        tally.longest,
        rejects.record(),
        tally.ledger,
    )


@dataclass
class _Tally:
    """What is counted while a shard is written."""

    rejects: ExcludedWriter
    ledger: Ledger = field(default_factory=Ledger)
    rows: int = 0
    tokens: int = 0
    supervised: int = 0
    longest: int = 0

    def exclude(self, excluded: Sequence[Excluded]) -> None:
        for item in excluded:
            self.ledger.exclude(item.outcome, item.reason)
        # Blank lines are counted; listing each would bury what matters.
        self.rejects.write(item for item in excluded if item.reason != "blank-line")

    def keep(self, columns: Columns) -> None:
        self.rows += len(columns.offsets) - 1
        self.ledger.kept += len(columns.offsets) - 1
        self.tokens += len(columns.input)
        self.supervised += int(np.count_nonzero(columns.loss_mask))
        self.longest = max(self.longest, int(columns.lengths.max(initial=0)))


@dataclass
class _Work:
    """Records on their way: their texts and what became of them, row by row."""

    batch: TextBatch
    segments: Segments
    left_out: list[Excluded]

    def select(self, keep: Mask) -> None:
        """Keep the records of a mask."""
        if keep.all():
            return
        self.batch = self.batch.take(keep)
        self.segments = _select(self.segments, keep)


class _ShardMaker:
    """Turns the records of a unit into record batches, and counts what becomes of each."""

    def __init__(
        self,
        unit: Unit,
        config: PrepareConfig,
        tokenizer: LoadedTokenizer,
        encoder: Encoder,
        tally: _Tally,
        report: Report | None,
    ) -> None:
        self.tally = tally
        self.schema = shard_schema(tokenizer.vocab_size - 1)
        self._unit = unit
        self._config = config
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._check = UnitCheck(tokenizer, encoder)
        self._report = report
        self._sources = sorted({piece.input.name for piece in unit.pieces})

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the shard's record batches; none is empty."""
        number = {name: place for place, name in enumerate(self._sources)}
        read = chain.from_iterable(
            read_batches(piece, number[piece.input.name], self._config.read)
            for piece in self._unit.pieces
        )
        text_bytes = 0
        for batch in coalesce(read):
            text_bytes += batch.nbytes
            if (made := self._make(batch)) is not None:
                yield made
            if self._report is not None:
                tally, rejected = self.tally, self.tally.ledger.rejected.total()
                self._report(Advance(text_bytes, tally.rows, tally.tokens, rejected))

    def _make(self, batch: TextBatch) -> pa.RecordBatch | None:
        """Make the record batch of some records, if any of them is kept."""
        ledger = self.tally.ledger
        ledger.read += len(batch) + len(batch.excluded) + batch.blank_lines
        if batch.blank_lines:
            ledger.dropped["blank-line"] += batch.blank_lines
        ledger.noted.update(batch.noted)
        work = _Work(batch, self._encode(batch), list(batch.excluded))
        self._drop_unusable(work)
        self._truncate(work)
        self._note_unknown(work.segments)
        columns = self._build(work)
        order = {name: place for place, name in enumerate(self._sources)}
        self.tally.exclude(
            sorted(work.left_out, key=lambda item: (order[item.origin.source], item.origin.line))
        )
        self.tally.keep(columns)
        if not len(work.batch):
            return None
        origins = Origins(work.batch.source, work.batch.line, work.batch.byte_offset)
        return to_batch(columns, origins, self._sources, self.schema)

    def _encode(self, batch: TextBatch) -> Segments:
        """Encode every segment alone, so that no merge crosses ``[SEP]``."""
        self._check(batch.texts)
        ids, offsets = self._encoder.encode(batch.texts)
        if len(ids) and int(ids.max()) >= self._tokenizer.vocab_size:
            raise TokenizerError(
                f"it made the id {int(ids.max())}, which its vocabulary does not have",
                remedy="the tokenizer.json is damaged; take another",
            )
        stored = ids.astype(id_type(self._tokenizer.vocab_size - 1).to_pandas_dtype())
        counts = np.diff(batch.record_offsets)
        return Segments(
            stored,
            offsets,
            batch.record_offsets,
            _supervised(batch.record_offsets, counts, self._config.stage),
            np.ones(len(offsets) - 1, dtype=np.bool_),
        )

    def _note_unknown(self, segments: Segments) -> None:
        """Count the records of which the tokenizer could not encode a part."""
        unknown = self._tokenizer.unknown
        if unknown is None or not (hits := segments.ids == unknown).any():
            return
        texts = np.searchsorted(segments.offsets, np.flatnonzero(hits), side="right") - 1
        records = np.searchsorted(segments.record_offsets, texts, side="right") - 1
        self.tally.ledger.noted["unknown-token"] += len(np.unique(records))

    def _drop_unusable(self, work: _Work) -> None:
        """Reject records in which a text has no tokens, or holds a special token."""
        segments = work.segments
        special = holds_special(segments.ids, segments.offsets, self._tokenizer)
        empty = np.diff(segments.offsets) == 0
        if not (special.any() or empty.any()):
            return
        usable = np.ones(len(work.batch), dtype=np.bool_)
        for reason, flags in (("special-token-in-text", special), ("no-tokens", empty)):
            hit = np.logical_or.reduceat(flags, segments.record_offsets[:-1]) & usable
            usable &= ~hit
            for number in np.flatnonzero(hit):
                text, origin = self._place(work.batch, int(number))
                work.left_out.append(rejected(origin, reason, "", text))
        work.select(usable)

    def _truncate(self, work: _Work) -> None:
        config = self._config
        if config.max_len is None:
            return
        lengths = row_lengths(work.segments)
        result = truncate(work.segments, config.max_len, config.truncation)
        for number in np.flatnonzero(result.too_long):
            detail = f"{lengths[number]} positions, --max-len is {config.max_len}"
            text, origin = self._place(work.batch, int(number))
            work.left_out.append(dropped(origin, "too-long", detail, text))
        if cut := int(result.cut.sum()):
            self.tally.ledger.noted[f"cut:{config.truncation}"] += cut
        work.segments = result.segments
        work.select(~result.too_long)

    def _build(self, work: _Work) -> Columns:
        """Build the columns; reject rows without a token that carries loss: they teach nothing."""
        config, special = self._config, self._tokenizer.special
        keep_targets = config.stage == "pretrain"
        columns = build(work.segments, special, eos_loss=config.eos_loss, keep_targets=keep_targets)
        if config.eos_loss:
            return columns  # every segment has a token, so every row has a loss
        teaching = columns.supervised_tokens() > 0
        if teaching.all():
            return columns
        for number in np.flatnonzero(~teaching):
            text, origin = self._place(work.batch, int(number))
            work.left_out.append(rejected(origin, "no-supervised-token", "", text))
        work.select(teaching)
        return build(work.segments, special, eos_loss=False, keep_targets=keep_targets)

    def _place(self, batch: TextBatch, record: int) -> tuple[str, Origin]:
        return batch.first_text(record), batch.origin(record, self._sources)


def _supervised(record_offsets: np.ndarray, counts: np.ndarray, stage: Stage) -> Mask:
    """Tell which segments carry loss: all of pretraining; in fine-tuning every second one."""
    segments = int(record_offsets[-1])
    if stage == "pretrain":
        return np.ones(segments, dtype=np.bool_)
    # Request, response, request, response, … within each record.
    within = np.arange(segments) - np.repeat(record_offsets[:-1], counts)
    return np.asarray(within % 2 == 1)


def _select(segments: Segments, keep: Mask) -> Segments:
    """Keep the records of a mask."""
    counts = np.diff(segments.record_offsets)
    keep_segments = np.repeat(keep, counts)
    lengths = np.diff(segments.offsets)
    return Segments(
        segments.ids[np.repeat(keep_segments, lengths)],
        np.concatenate(([0], np.cumsum(lengths[keep_segments], dtype=np.int64))),
        np.concatenate(([0], np.cumsum(counts[keep], dtype=np.int64))),
        segments.supervised[keep_segments],
        segments.ended[keep_segments],
    )
