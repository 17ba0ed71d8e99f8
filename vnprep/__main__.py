"""The program ``vnprep``, also as ``python -m vnprep``: signals first, then everything else."""

from __future__ import annotations

from vnprep.interrupts import watch
from vnprep.startup import keep_pandas_out


def main() -> None:
    """Run the command line and exit."""
    watch()
    keep_pandas_out()
    from vnprep.cli import main as run  # later, so that a signal finds a listener meanwhile

    run()


if __name__ == "__main__":
    main()
