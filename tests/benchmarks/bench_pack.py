"""Sequences packed a second and how full: ``vnprep`` beside best-fit-decreasing in plain Python.

    python tests/benchmarks/bench_pack.py [DIR] [--seq-len 2048] [--rows 2000000] [--rounds 3]

Both pack the same windows: those of a data folder, or of as many rows with lengths as corpora have
them (log-normal). The two take turns; medians are printed. Both must fill as many packed rows.
"""

from __future__ import annotations

import argparse
import statistics
import time
from bisect import bisect_left, insort
from collections.abc import Callable

import numpy as np

from vnprep.packing.bins import best_fit_decreasing, windows
from vnprep.shards.read import ShardSet


def plain_best_fit(lengths: list[int], capacity: int) -> list[list[int]]:
    """Pack item by item: the rooms that there are in a sorted list, bins of one room in a stack."""
    bins: list[list[int]] = []
    rooms: list[int] = []
    by_room: dict[int, list[int]] = {}
    for item in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        length = lengths[item]
        at = bisect_left(rooms, length)
        if at == len(rooms):
            number, room = len(bins), capacity
            bins.append([])
        else:
            room = rooms[at]
            number = by_room[room].pop()
            if not by_room[room]:
                del by_room[room], rooms[at]
        bins[number].append(item)
        room -= length
        if room in by_room:
            by_room[room].append(number)
        elif room:
            by_room[room] = [number]
            insort(rooms, room)
    return bins


def timed(action: Callable[[], int]) -> tuple[float, int]:
    """Return the seconds that it took, and what it returned."""
    started = time.perf_counter()
    result = action()
    return time.perf_counter() - started, result


def main() -> None:
    """Run both sides and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", help="a data folder; without one, made-up lengths")
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=2_000_000, help="made-up rows")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.data:
        rows = ShardSet.open(options.data, check="sizes").lengths
    else:
        rows = np.maximum(np.random.default_rng(0).lognormal(5, 1, options.rows), 2).astype(int)
    lengths = windows(rows, options.seq_len).length
    as_list = lengths.tolist()

    def ours() -> int:
        return len(best_fit_decreasing(windows(rows, options.seq_len).length, options.seq_len))

    def plain() -> int:
        return len(plain_best_fit(as_list, options.seq_len))

    sides = {"vnprep": ours, "plain Python": plain}
    runs = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, side in sides.items():
            runs[name].append(timed(side))
    print(f"{len(rows):,} rows, {len(lengths):,} windows, packed rows of {options.seq_len:,}")
    print(f"{'':<14}{'median s':>10}{'windows/s':>14}{'packed rows':>13}{'fill':>10}")
    seconds = {}
    for name, results in runs.items():
        seconds[name] = statistics.median(second for second, _ in results)
        (bins,) = {bins for _, bins in results}
        fill = int(rows.sum()) / (bins * options.seq_len)
        rate = len(lengths) / seconds[name]
        print(f"{name:<14}{seconds[name]:>10.3f}{rate:>14,.0f}{bins:>13,}{fill:>10.3%}")
    print(f"ratio {seconds['plain Python'] / seconds['vnprep']:.1f}")


if __name__ == "__main__":
    main()
