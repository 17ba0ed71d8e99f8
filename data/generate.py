"""Write the project's sample data, or check that the files are what this program writes.

    python data/generate.py            write the four files beside this program
    python data/generate.py --check    change nothing; exit 1 if a file differs

The output depends on the program and its templates alone: no random generator, no clock.
"""

from __future__ import annotations

import argparse
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
if __name__ == "__main__":
    # Python looks beside the script for modules; the package ``data`` is one folder up.
    sys.path.insert(0, str(FOLDER.parent))

from data import pairs, sentences  # noqa: E402


def files() -> dict[str, str]:
    """Return the text of each file by its name."""
    train, valid = sentences.train_and_valid()
    taught, heldout = pairs.train_and_heldout()
    return {
        "pretrain.tsv": _sentence_table(train),
        "pretrain_valid.tsv": _sentence_table(valid),
        "smarthome_train.tsv": _table(pairs.HEADER, (pair.cells for pair in taught)),
        "smarthome_heldout.tsv": _table(pairs.HEADER, (pair.cells for pair in heldout)),
    }


def differing(texts: dict[str, str], folder: Path) -> list[str]:
    """Return the names of the files that are missing or hold other bytes."""
    names = []
    for name, text in texts.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != text.encode("utf-8"):
            names.append(name)
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the files; return the exit code."""
    parser = argparse.ArgumentParser(description="Write the project's sample data.")
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 on difference")
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="where the files are (default: data/)"
    )
    options = parser.parse_args(arguments)
    texts = files()
    if options.check:
        names = differing(texts, options.folder)
        for name in names:
            print(f"{options.folder / name}: not what data/generate.py writes", file=sys.stderr)
        if names:
            print("  remedy: run python data/generate.py", file=sys.stderr)
        return 1 if names else 0
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (options.folder / name).write_bytes(text.encode("utf-8"))
        print(f"{name}: {text.count(chr(10)) - 1} rows, {len(text.encode('utf-8'))} bytes")
    return 0


def _sentence_table(rows: Iterable[str]) -> str:
    return _table(("input", "target"), ((f"[BOS] {row}", f"{row} [EOS]") for row in rows))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = "".join("\t".join(row) + "\n" for row in (header, *rows))
    assert unicodedata.is_normalized("NFC", text), "a word list or a template is not NFC"
    return text


if __name__ == "__main__":
    sys.exit(main())
