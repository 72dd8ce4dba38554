"""Forwards in a process that keeps the memory it frees, as a worker does, and in one that gives it
back to the system, as the C library does by itself.

    python -m benchmarks.allocation

Each is a process of its own with all threads; they take turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from statistics import median

import torch

from benchmarks.crew import Crew
from benchmarks.machine import describe_machine, spread
from benchmarks.processes import make_forwards


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement")
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args(arguments)
    threads = torch.get_num_threads()
    print(f"{describe_machine()}\n")
    print("| rows of a forward | given back, rows/s | kept, rows/s | ratio |")
    print("| --- | --- | --- | --- |")
    with (
        Crew(make_forwards, False, processes=1, threads=threads) as given_back,
        Crew(make_forwards, True, processes=1, threads=threads) as kept,
    ):
        for rows in options.rows:
            order = (rows, options.seconds)
            pairs = [
                (given_back.measure(*order), kept.measure(*order)) for _ in range(options.pairs)
            ]
            usual, own = (median(rates) for rates in zip(*pairs, strict=True))
            ratios = spread([more / less for less, more in pairs])
            print(f"| {rows} | {usual:.0f} | {own:.0f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
