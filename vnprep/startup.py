"""What the program's own processes do before anything else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


class _NoPandas:
    """An import hook: pandas is not there."""

    def find_spec(
        self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "pandas":
            raise ModuleNotFoundError("vnprep does without pandas", name=name)
        return None


def keep_pandas_out() -> None:
    """Spare this process the import of pandas, a fifth of a second.

    Wherever pandas is installed, Arrow imports it to see whether an object that it is handed is
    one of its kind. Here none ever is. Only for processes that are the program's own: whoever
    uses vnprep as a library may want pandas.
    """
    sys.meta_path.insert(0, _NoPandas())
