"""What a file may turn out to be, whatever its name says: refused with what to do about it."""

from __future__ import annotations

from typing import BinaryIO

from vnprep.errors import InputError

_UTF16 = "convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW"
_FOREIGN = {
    b"\xff\xfe": ("UTF-16 text", _UTF16),
    b"\xfe\xff": ("UTF-16 text", _UTF16),
    b"PK\x03\x04": ("a ZIP or Excel workbook", "save it as CSV UTF-8, or unpack it"),
    b"\xd0\xcf\x11\xe0": ("an old Excel or Word file", "save it as CSV UTF-8, or as text"),
    b"PAR1": ("a Parquet file", "pass --format parquet"),
    b"ARROW1": ("an Arrow file", "pass --format arrow"),
    b"\x1f\x8b": ("gzip data", "give it a name that ends in .gz"),
    b"\x28\xb5\x2f\xfd": ("zstd data", "give it a name that ends in .zst"),
}
_BOM = b"\xef\xbb\xbf"


def refuse_foreign(file: BinaryIO, source: str, format_name: str, *, by_lines: bool) -> None:
    r"""Look at how a text file begins.

    Args:
        file: stands at its beginning, and stays there.
        source: the name to report.
        format_name: what it is said to be.
        by_lines: whether it is going to be read line by line.

    Raises:
        InputError: it is something else, its lines end in ``\r`` alone, or it is JSON, but
            not one object a line.
    """
    peek = getattr(file, "peek", None)
    head: bytes = peek(1) if peek is not None else b""
    for magic, (what, remedy) in _FOREIGN.items():
        if head.startswith(magic):
            raise InputError(f"this is {what}", place=source, remedy=remedy)
    if by_lines and b"\n" not in head and sum(map(bool, head.split(b"\r"))) > 1:
        raise InputError(
            "its lines end in CR alone, as on old Macintoshes",
            place=source,
            remedy=r"convert it: tr '\r' '\n' < FILE > NEW",
        )
    if format_name == "jsonl":
        _refuse_json(head.removeprefix(_BOM), source)


def _refuse_json(head: bytes, source: str) -> None:
    first, _, rest = head.partition(b"\n")
    if first.strip() == b"{" or (first.strip() == b"[" and rest.strip()):
        what = "JSON over many lines"
    elif first.lstrip().startswith(b"[") and first.lstrip()[1:].lstrip().startswith(b"{"):
        what = "a JSON array"
    else:
        return
    raise InputError(
        f"this is {what}, not one object a line",
        place=source,
        remedy="pass --format json, or convert it: jq -c '.[]' FILE > NEW.jsonl",
    )
