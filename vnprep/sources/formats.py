"""The formats that files may have, and the names that tell them."""

from __future__ import annotations

import os

#: File endings → format names, as ``--format`` takes them.
FORMATS = {
    ".txt": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}

#: Formats that hold columns, not text.
TABLES = ("parquet", "arrow")

#: Every name that ``--format`` takes.
FORMAT_NAMES = tuple(sorted({*FORMATS.values(), "blocks"}))

#: Endings that are taken off before the format is looked up.
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")


def ending_of(path: str) -> tuple[str, bool]:
    """Return a path's ending, in small letters, and whether another one says it is compressed."""
    stem, ending = os.path.splitext(path)  # noqa: PTH122 - a million inputs
    if ending.lower() in COMPRESSIONS:
        return os.path.splitext(stem)[1].lower(), True  # noqa: PTH122
    return ending.lower(), False
