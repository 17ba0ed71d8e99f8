"""Walk a folder: the files to read, in one order everywhere, and what is passed over."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from vnprep.errors import InputError
from vnprep.shards.manifest import TOKENIZER_NAME
from vnprep.sources.formats import ending_of

_NAMED = 3
_SHARD = re.compile(r"shard-\d+\.arrow")


class Folder:
    """The files below a folder, sorted by the parts of their path.

    Hidden names are skipped, and so is what is no input: files with other endings, links to
    folders, links to files that are read under their own name, and data sets that vnprep wrote,
    the one that is to be written among them. All but hidden names can be told afterwards.

    Args:
        place: the folder's path.
        out: a folder never to be read, or None.
        endings: of the files to read; None means all files.
    """

    def __init__(self, place: str, out: Path | None, endings: frozenset[str] | None) -> None:
        self._place = place
        self._root = os.path.realpath(place)
        self._out = None if out is None else os.path.realpath(out)
        self._endings = endings
        self._passed: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def __iter__(self) -> Iterator[str]:
        """Yield paths.

        Raises:
            InputError: a folder cannot be read, or the whole is a data set of vnprep.
        """
        found = list(self._walk(self._place))
        # Which files are read as themselves is known when all have been seen.
        links = any(is_link for _, is_link in found)
        files = {self._real(path) for path, is_link in found if links and not is_link}
        for path, is_link in found:
            # A link that leads nowhere goes on: whoever opens it says so.
            if is_link and os.path.realpath(path) in files:
                self._pass("links to files that are read as themselves", path)
            else:
                yield path

    def passed_over(self) -> list[str]:
        """Return a line for each kind of thing that was passed over, naming the first few."""
        lines = []
        for what, names in self._passed.items():
            count = self._counts[what]
            more = ", …" if count > len(names) else ""
            lines.append(f"{self._place}: passed over {count:,} {what}: {', '.join(names)}{more}")
        return lines

    def _walk(self, folder: str) -> Iterator[tuple[str, bool]]:
        """Yield the files that are wanted, and whether each is a link."""
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise InputError(
                f"this folder cannot be read ({error.strerror})",
                place=folder,
                remedy="check its permissions",
            ) from None
        if self._is_data_set(folder, {entry.name for entry in found}):
            return
        for entry in found:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if entry.is_symlink():
                    self._pass("links to folders", entry.path)
                else:
                    yield from self._walk(_plain(entry.path))
            elif self._is_wanted(entry):
                yield _plain(entry.path), entry.is_symlink()

    def _is_data_set(self, folder: str, names: set[str]) -> bool:
        if self._out is not None and os.path.realpath(folder) == self._out:
            what = "output folder"
        elif TOKENIZER_NAME in names and any(map(_SHARD.fullmatch, names)):
            what = "data sets of vnprep"
        else:
            return False
        if folder == self._place:
            raise InputError(
                "this is a data set that vnprep wrote, no input",
                place=folder,
                remedy="vnprep inspect shows its rows; name the files that it was made from",
            )
        self._pass(what, folder)
        return True

    def _is_wanted(self, entry: os.DirEntry[str]) -> bool:
        if self._endings is not None and ending_of(entry.name)[0] not in self._endings:
            self._pass("files whose ending tells no format that is read", entry.path)
            return False
        if not entry.is_symlink() and not entry.is_file():
            self._pass("pipes, sockets and devices", entry.path)
            return False
        return True

    def _real(self, path: str) -> str:
        """Return the path without links of a file that is none: the walk follows no links."""
        return os.path.join(self._root, self._below(path))  # noqa: PTH118 - a million files

    def _below(self, path: str) -> str:
        return path.removeprefix(self._place.rstrip(os.sep) + os.sep)

    def _pass(self, what: str, path: str) -> None:
        self._counts[what] = self._counts.get(what, 0) + 1
        names = self._passed.setdefault(what, [])
        if len(names) < _NAMED:
            names.append(self._below(path))


def _plain(path: str) -> str:
    """Return a path as people write it: without the ``./`` of the folder ``.``."""
    return path.removeprefix("./")
