"""Say what this machine lacks, with the remedy, before anything is installed.

Runs on any Python 3, the system's own included, so it uses nothing newer than 3.6.
"""

import importlib.util
import shutil
import sys

OLDEST = (3, 11)


def missing():
    """Return one line for each thing that is missing."""
    lines = []
    if sys.version_info < OLDEST:
        lines.append(
            "Python {}.{} or newer; this is {}.{}. ".format(*OLDEST, *sys.version_info[:2])
            + "Install one and run: make PYTHON=python3.11 TARGET"
        )
    if any(importlib.util.find_spec(name) is None for name in ("venv", "ensurepip")):
        lines.append("Python's venv module. On Debian and Ubuntu: sudo apt install python3-venv")
    if shutil.which("c++") is None and shutil.which("g++") is None:
        lines.append("a C++ compiler, for DeepSpeed. On Debian and Ubuntu: sudo apt install g++")
    return lines


if __name__ == "__main__":
    found = missing()
    for line in found:
        sys.stderr.write("missing: " + line + "\n")
    sys.exit(1 if found else 0)
