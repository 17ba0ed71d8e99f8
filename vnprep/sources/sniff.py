"""Find out what a file's records look like, for commands that take any of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from vnprep.config import Layout, ReadOptions
from vnprep.errors import InputError
from vnprep.shards.ledger import Excluded
from vnprep.sources.delimited import SEP_LINE, split_header
from vnprep.sources.fields import SEED_FIELDS
from vnprep.sources.inputs import Input
from vnprep.sources.json_values import read_values
from vnprep.sources.jsonl import decode_json
from vnprep.sources.lines import read_lines
from vnprep.sources.opening import open_bytes
from vnprep.sources.tables import table_names

_HEAD = 1 << 20


def sniff(item: Input, options: ReadOptions) -> ReadOptions:
    """Return the options with the layout that the file's own fields tell."""
    return replace(options, layout=_layout(item, options))


def _layout(item: Input, options: ReadOptions) -> Layout:
    match item.format:
        case "text":
            return "text"
        case "blocks":
            return "pairs"
        case "parquet" | "arrow":
            try:
                return _by_fields(table_names(item), options)
            except InputError:
                return "text"  # the reader will say what is wrong with it
    line = _first_line(item)
    if item.format in ("jsonl", "json"):
        try:
            value = decode_json(line)
        except (ValueError, RecursionError):
            return "text"
        return _by_fields(value if isinstance(value, dict) else (), options)
    if item.format == "tsv":
        names = split_header(line, "\t")
        return "seed-tsv" if set(SEED_FIELDS) <= set(names) else _by_fields(names, options)
    # A name of several words may hold the other delimiter; which of the two is meant, the
    # reader decides when it knows what is wanted.
    return _by_fields({*split_header(line, ","), *split_header(line, ";")}, options)


def _first_line(item: Input) -> str:
    """Return the first line, or value, that is not blank; "" if it cannot be read.

    A line too broken to read here will be rejected, with its place, when it is read.
    """
    with open_bytes(item.path) as file:
        if item.format == "json":
            lines = read_values(file, item.name, _HEAD)
        else:
            lines = read_lines(file, item.name, limit=_HEAD)
        for line in lines:
            if isinstance(line, Excluded):
                return ""
            if line.text.strip() and not SEP_LINE.fullmatch(line.text):
                return line.text
    return ""


def _by_fields(names: Iterable[str], options: ReadOptions) -> Layout:
    present = set(names)
    if options.text_field in present:
        return "text"
    pairs = {options.request_field, options.messages_field}
    return "pairs" if pairs & present else "text"
