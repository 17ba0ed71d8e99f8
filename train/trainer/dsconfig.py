"""Settings of a DeepSpeed file that DeepSpeed would never read.

Most sections are checked by DeepSpeed itself, but a misspelt name at the top level, in
``data_types`` or in ``aio`` is passed over in silence, and the run trains with a default.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from vnprep.errors import TrainingError

#: Sections whose names DeepSpeed looks up one by one, so that it misses no others.
_LOOKED_UP = ("data_types", "aio")


class Watched(dict[str, Any]):
    """A dictionary that notes which names it is asked for: those that DeepSpeed knows."""

    def __init__(self, content: dict[str, Any]) -> None:
        super().__init__(content)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)


def watched(config: dict[str, Any]) -> Watched:
    """Return a copy of a configuration that notes what is read of it."""
    sections = {name: config[name] for name in _LOOKED_UP if isinstance(config.get(name), dict)}
    return Watched(config | {name: Watched(section) for name, section in sections.items()})


def refuse_unread(config: Watched, place: Path) -> None:
    """See that each setting was asked for; DeepSpeed has read the configuration by now.

    Raises:
        TrainingError: one was not, so that it would do nothing.
    """
    _refuse(config, "", place)
    for section in _LOOKED_UP:
        found = dict.get(config, section)
        if isinstance(found, Watched):
            _refuse(found, f"{section}.", place)


def _refuse(config: Watched, prefix: str, place: Path) -> None:
    for name in config:
        if name not in config.asked:
            close = difflib.get_close_matches(name, sorted(config.asked), n=1)
            remedy = f"did you mean {prefix + close[0]!r}?" if close else "remove it"
            raise TrainingError(
                f"has a setting {prefix + name!r}, which DeepSpeed does not know",
                place=place,
                remedy=f"{remedy} DeepSpeed would go on without it",
            )
