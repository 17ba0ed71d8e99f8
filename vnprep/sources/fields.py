"""Which columns are read, and what to say when they are not there."""

from __future__ import annotations

from collections.abc import Sequence

from vnprep.config import Layout, ReadOptions
from vnprep.errors import InputError
from vnprep.vietnamese.normalize import to_nfc

#: The columns of ``pretrain.tsv``.
SEED_FIELDS = ("input", "target")

_FIELD_OPTIONS: dict[Layout, str] = {
    "text": "--text-field",
    "pairs": "--request-field and --response-field",
}
_DELIMITERS = {"\t": "tabs", ",": "commas", ";": "semicolons"}


def column_names(cells: Sequence[str]) -> list[str]:
    """Return the names of columns in NFC and without white space at their ends."""
    return [to_nfc(cell.strip()) for cell in cells]


def wanted_fields(options: ReadOptions, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the fields to read; of a table that is known to have them, chat messages too."""
    if options.layout == "seed-tsv":
        return SEED_FIELDS
    if options.layout == "text":
        return (options.text_field,)
    if options.messages_field in names and options.request_field not in names:
        return (options.messages_field,)
    return (options.request_field, options.response_field)


def check_names(
    names: Sequence[str], source: str, options: ReadOptions, delimiter: str | None = None
) -> None:
    """Check that a table has the wanted columns, and none of its names twice.

    Args:
        names: from ``column_names``; an empty one is no name.
        source: for errors.
        options: say which columns are wanted.
        delimiter: what parts the cells, of a text table.

    Raises:
        InputError: it has not.
    """
    wanted = wanted_fields(options, names)
    if missing := [name for name in wanted if name not in names]:
        raise InputError(
            f"no column {', '.join(missing)}; the header has: {', '.join(names)}",
            place=source,
            remedy=_other_delimiter(names, options, delimiter) or _remedy(options.layout, names),
        )
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise InputError(
            f"the header names {', '.join(map(repr, twice))} twice",
            place=source,
            remedy="give every column a name of its own",
        )


def _other_delimiter(names: Sequence[str], options: ReadOptions, delimiter: str | None) -> str:
    """Return what to do if the header's cells were never parted."""
    if delimiter is None or len(names) != 1:
        return ""
    other = next((sign for sign in _DELIMITERS if sign != delimiter and sign in names[0]), "")
    if not other:
        return ""
    if options.layout == "seed-tsv":
        cure = "save the file with a tab between them"
    elif other == "\t":
        cure = "pass --format tsv"
    else:
        cure = f"pass --format csv{' --delimiter ' + repr(other) if other != ',' else ''}"
    parted = ", ".join(column_names(names[0].split(other)))
    told = f"the cells seem to be parted by {_DELIMITERS[other]}: {cure}"
    if options.layout == "seed-tsv":
        return told
    return f"{told}, and name the columns ({parted}): {_FIELD_OPTIONS[options.layout]}"


def _remedy(layout: Layout, names: Sequence[str]) -> str:
    """Return which command or option reads a table with these columns."""
    if layout == "seed-tsv":
        return (
            "vnprep pretrain-tsv reads the columns input and target; other tables are read by "
            "vnprep pretrain-text (documents) and vnprep finetune-pairs (requests and responses)"
        )
    is_seed = set(SEED_FIELDS) <= set(names)
    seed = "; input/target TSV with [BOS] and [EOS] is read by vnprep pretrain-tsv"
    if layout == "text":
        return "name the column with --text-field" + seed * is_seed
    return (
        "name the columns with --request-field and --response-field, or --messages-field"
        + seed * is_seed
    )
