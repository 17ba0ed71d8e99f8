"""The formats that files may have, and the names that tell them."""

#: File endings → format names, as ``--format`` takes them.
FORMATS = {
    ".txt": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
}

#: Every name that ``--format`` takes.
FORMAT_NAMES = tuple(sorted({*FORMATS.values(), "blocks"}))

#: Endings that are taken off before the format is looked up.
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
