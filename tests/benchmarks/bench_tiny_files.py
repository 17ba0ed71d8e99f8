"""What many tiny files cost: time and peak memory over their number, one line of text in each.

    python tests/benchmarks/bench_tiny_files.py [NUMBER…]

The last lines extrapolate from the two largest numbers to a million files.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from running import Side

from vnprep.tokenizer.train import to_text, train_tokenizer

NUMBERS = (50_000, 100_000, 200_000)
MILLION = 1_000_000


def main(numbers: list[int]) -> None:
    print(f"{'files':>10} {'seconds':>9} {'peak MiB':>9}  files/s")
    found = [(number, *measure(number)) for number in numbers]
    if len(found) > 1:
        (one, seconds, peak), (two, more_seconds, more_peak) = found[-2:]
        share = (MILLION - two) / (two - one)
        print(
            f"{MILLION:>10,} {more_seconds + share * (more_seconds - seconds):9.1f} "
            f"{more_peak + share * (more_peak - peak):9.0f}  extrapolated"
        )


def measure(number: int) -> tuple[float, float]:
    """Return the seconds that a data set of so many files takes, and the largest process's MiB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = folder / "tokenizer.json"
        tokenizer.write_text(to_text(train_tokenizer(["Bật quạt phòng ngủ lên mức 2"] * 4, 300)))
        for file in range(number):
            part = folder / "in" / f"{file // 1000:04d}"
            if file % 1000 == 0:
                part.mkdir(parents=True)
            text = f"Bật quạt số {file} trong phòng ngủ lên mức 2\n"
            (part / f"van-ban-{file:07d}.txt").write_text(text, encoding="utf-8")
        words = ["pretrain-text", str(folder / "in"), "--tokenizer", str(tokenizer)]
        # Several units at every number, as there are with a million files and the usual 16 MiB.
        shape = ["--unit-mb", "1", "--workers", "2", "--out", "{out}"]
        command = [sys.executable, "-m", "vnprep", *words, *shape]
        side = Side(f"{number:,} files", command)
        side.run()
    print(
        f"{number:>10,} {side.seconds[0]:9.1f} {side.peak_mib[0]:9.0f} "
        f"{number / side.seconds[0]:8,.0f}",
        flush=True,
    )
    return side.seconds[0], side.peak_mib[0]


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or list(NUMBERS))
