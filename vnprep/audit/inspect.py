"""Show what a row teaches."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vnprep.audit.pieces import Pieces
from vnprep.shards.read import Row

_LOSS, _NO_LOSS = "●", "-"
_SPECIAL_STYLE, _LOSS_STYLE, _NO_LOSS_STYLE = "magenta", "green", "dim"

# A text cell of a TSV cannot hold these.
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})

TSV_HEADER = "input\ttarget"


def row_tsv(row: Row, pieces: Pieces) -> str:
    r"""Return ``input<TAB>target`` in the seed's notation; tabs and line ends as ``\t``, ``\n``."""
    cells = (pieces.text(row.input.tolist()), pieces.text(row.target.tolist()))
    return "\t".join(cell.translate(_ESCAPES) for cell in cells)


def row_json(number: int, row: Row, pieces: Pieces) -> dict[str, Any]:
    """Return a row as plain JSON, ids and pieces both."""
    return {
        "row": number,
        "source": row.origin.source,
        "line": row.origin.line,
        "byte_offset": row.origin.byte_offset,
        "input": row.input.tolist(),
        "target": row.target.tolist(),
        "loss_mask": row.loss_mask.tolist(),
        "input_pieces": [pieces.piece(token) for token in row.input.tolist()],
        "target_pieces": [pieces.piece(token) for token in row.target.tolist()],
    }


def row_view(number: int, row: Row, pieces: Pieces, limit: int | None = None) -> RenderableType:
    """Return a row for a terminal: where it came from, its text, and every position.

    What carries loss is green and marked ``●``, the rest ``-``: it can be told without
    colour too.
    Of a row longer than ``limit`` positions, the first and last ``limit // 2`` are shown.
    """
    half = len(row.input) if limit is None or len(row.input) <= limit else max(limit // 2, 1)
    supervised = int(np.count_nonzero(row.loss_mask))
    head = Text.assemble(
        (f"row {number:,}", "bold"),
        f"  {row.origin.source}:{row.origin.line}  ",
        (f"{len(row.input)} positions, loss on {supervised}", "cyan"),
    )
    if half == len(row.input):
        return Group(head, _flowing(row, pieces), _positions(row, pieces), Text())
    last = len(row.input) - half
    left_out = f"  … {last - half:,} positions not shown; see --max-positions …"
    return Group(
        head,
        _flowing(_part(row, 0, half), pieces),
        _positions(_part(row, 0, half), pieces),
        Text(left_out, style="yellow"),
        _flowing(_part(row, last, len(row.input)), pieces),
        _positions(_part(row, last, len(row.input)), pieces, last),
        Text(),
    )


def _part(row: Row, start: int, end: int) -> Row:
    part = slice(start, end)
    return Row(row.input[part], row.target[part], row.loss_mask[part], row.origin)


def _flowing(row: Row, pieces: Pieces) -> Text:
    """Return the sequence as running text: what is taught in green, the rest dim."""
    text = Text("  ")
    sequence = [int(row.input[0]), *row.input[1:].tolist()]
    # Position i of the input is the target of position i - 1.
    taught = np.concatenate(([0], row.loss_mask))
    sequence.append(int(row.target[-1]))
    start = 0
    for end in range(1, len(sequence) + 1):
        if end == len(sequence) or taught[end] != taught[start]:
            run = pieces.text(sequence[start:end]).strip()
            text.append(run + " ", style=_LOSS_STYLE if taught[start] else _NO_LOSS_STYLE)
            start = end
    return text


def _positions(row: Row, pieces: Pieces, first: int = 0) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 1), pad_edge=False)
    table.add_column("  #", justify="right", style="dim")
    table.add_column("input")
    table.add_column("→ target")
    table.add_column("loss", justify="center")
    for place, (given, target, loss) in enumerate(
        zip(row.input.tolist(), row.target.tolist(), row.loss_mask.tolist(), strict=True), first
    ):
        style = _LOSS_STYLE if loss else _NO_LOSS_STYLE
        table.add_row(
            str(place),
            _styled(pieces.piece(given), ""),
            _styled(pieces.piece(target), style),
            Text(_LOSS if loss else _NO_LOSS, style=style),
        )
    return table


def _styled(piece: str, style: str) -> Text:
    special = piece.startswith("[") and piece.endswith("]") and len(piece) == 5
    return Text(piece, style=_SPECIAL_STYLE if special and style != _NO_LOSS_STYLE else style)
