"""``pretrain.tsv``: header ``input<TAB>target``, two shifted cells with literal markers.

    input                    target
    [BOS] Tôi đang bật đèn   Tôi đang bật đèn [EOS]

The markers are stripped and the two cells must then be the same text. Empty cells between the
two columns are dropped and counted.
"""

from __future__ import annotations

from collections.abc import Iterator

from vnprep.shards.ledger import Excluded
from vnprep.shards.schema import Origin
from vnprep.sources.delimited import check_header
from vnprep.sources.lines import Line
from vnprep.sources.records import Record, document, dropped, rejected
from vnprep.tokenizer.special import BOS, EOS

HEADER = ("input", "target")
EXTRA_TABS = "extra-tabs"


def read_seed_tsv(lines: Iterator[Line | Excluded], source: str) -> Iterator[Record | Excluded]:
    """Yield the sentence of every row.

    Raises:
        InputError: the header is not ``input<TAB>target``.
    """
    header = False
    for line in lines:
        if isinstance(line, Excluded):
            yield line
        elif not header:
            check_header(line.text.split("\t"), source, HEADER, "\t")
            header = True
        else:
            yield _row(line)
    if not header:
        yield dropped(Origin(source, 1, 0), "empty-file")


def _row(line: Line) -> Record | Excluded:
    if not line.text.strip():
        return dropped(line.origin, "blank-line")
    cells = [cell for cell in line.text.split("\t") if cell.strip()]
    if len(cells) != 2:
        detail = f"{len(cells)} filled cells, expected input and target"
        return rejected(line.origin, "ragged-row", detail, line.text)
    notes = (EXTRA_TABS,) if line.text.count("\t") != 1 else ()
    head, tail = cells[0].strip(), cells[1].strip()
    if not head.startswith(BOS) or not tail.endswith(EOS):
        detail = f"the input must begin with {BOS} and the target end with {EOS}"
        return rejected(line.origin, "missing-marker", detail, line.text)
    sentence, shifted = head.removeprefix(BOS).strip(), tail.removesuffix(EOS).strip()
    if sentence != shifted:
        detail = "input and target are not the same text, shifted by one token"
        return rejected(line.origin, "not-shifted", detail, line.text)
    return document(sentence, line.origin, notes)
