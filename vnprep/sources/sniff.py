"""Find out what a file's records look like, for commands that take any of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from vnprep.config import Layout, ReadOptions
from vnprep.sources.opening import open_bytes
from vnprep.sources.plan import Input
from vnprep.sources.seed_tsv import HEADER

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
        case "parquet":
            try:
                return _by_fields(pq.read_schema(item.path).names, options)
            except pa.ArrowException:
                return "text"  # the reader will say what is wrong with it
    with open_bytes(item.path) as file:
        # A line too broken to read here will be rejected, with its place, when it is read.
        line = file.readline(_HEAD).decode("utf-8-sig", "replace").strip()
        while not line and (raw := file.readline(_HEAD)):
            line = raw.decode("utf-8", "replace").strip()
    if item.format == "jsonl":
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return "text"
        return _by_fields(value if isinstance(value, dict) else (), options)
    delimiter = "\t" if item.format == "tsv" else ","
    try:
        cells = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return "text"
    if set(HEADER) <= set(cells) and item.format == "tsv":
        return "seed-tsv"
    return _by_fields(cells, options)


def _by_fields(names: Iterable[str], options: ReadOptions) -> Layout:
    present = set(names)
    if options.text_field in present:
        return "text"
    pairs = {options.request_field, options.messages_field}
    return "pairs" if pairs & present else "text"
