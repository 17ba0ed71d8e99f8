"""``pretrain.tsv``: header ``input<TAB>target``, two shifted cells with literal markers.

    input                    target
    [BOS] Tôi đang bật đèn   Tôi đang bật đèn [EOS]

The markers are stripped and the two cells must then be the same text. Empty cells between the
two columns are dropped and counted.
"""

from __future__ import annotations

from collections.abc import Iterator

from vnprep.config import ReadOptions
from vnprep.shards.ledger import Excluded
from vnprep.shards.schema import Origin
from vnprep.sources.delimited import refuse_unreadable_header
from vnprep.sources.fields import check_names, column_names
from vnprep.sources.lines import Line
from vnprep.sources.records import Record, document, dropped, rejected
from vnprep.tokenizer.special import BOS, EOS

EXTRA_TABS = "extra-tabs"


_OPTIONS = ReadOptions("seed-tsv")


def read_seed_tsv(lines: Iterator[Line | Excluded], source: str) -> Iterator[Record | Excluded]:
    """Yield the sentence of every row.

    Raises:
        InputError: the header has no columns ``input`` and ``target``.
    """
    names: list[str] | None = None
    for line in lines:
        if names is None:
            refuse_unreadable_header(line, source)
        if isinstance(line, Excluded):
            yield line
        elif names is None:
            names = column_names(line.text.split("\t"))
            check_names(names, source, _OPTIONS, "\t")
        else:
            yield _row(line, names)
    if names is None:
        yield dropped(Origin(source, 1, 0), "empty-file")


def _row(line: Line, names: list[str]) -> Record | Excluded:
    if not line.text.strip():
        return dropped(line.origin, "blank-line")
    fields, notes = _by_name(line.text.split("\t"), names)
    if fields is None:
        filled = sum(bool(cell.strip()) for cell in line.text.split("\t"))
        detail = f"{filled} filled cells, expected input and target"
        return rejected(line.origin, "ragged-row", detail, line.text)
    head, tail = fields["input"].strip(), fields["target"].strip()
    if not head.startswith(BOS) or not tail.endswith(EOS):
        detail = f"the input must begin with {BOS} and the target end with {EOS}"
        return rejected(line.origin, "missing-marker", detail, line.text)
    sentence, shifted = head.removeprefix(BOS).strip(), tail.removesuffix(EOS).strip()
    if sentence != shifted:
        detail = "input and target are not the same text, shifted by one token"
        return rejected(line.origin, "not-shifted", detail, line.text)
    return document(sentence, line.origin, notes)


def _by_name(cells: list[str], names: list[str]) -> tuple[dict[str, str] | None, tuple[str, ...]]:
    """Give the cells their columns' names; None if they do not fit them.

    Empty cells beyond those of the header are ignored, wherever they stand.
    """
    if len(cells) == len(names):
        fields = dict(zip(names, cells, strict=True))
        if fields["input"].strip() and fields["target"].strip():
            return fields, ()
    filled = [cell for cell in cells if cell.strip()]
    named = [name for name in names if name]
    if len(filled) != len(named):
        return None, ()
    return dict(zip(named, filled, strict=True)), (EXTRA_TABS,)
