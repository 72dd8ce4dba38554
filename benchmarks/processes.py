"""Forwards of one process with all threads against those of as many processes with one thread each,
which is what ``chairlift serve --workers N`` makes of a CPU.

    python -m benchmarks.processes

Every process has batches of its own; what is counted is the rows of all of them together. The two
ways take turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import cache
from statistics import median

import torch

from benchmarks.crew import Crew, Measure
from benchmarks.forwards import create_batch
from benchmarks.machine import describe_machine, spread
from chairlift.engine.memory import keep_freed_memory
from chairlift.models.adapter import ForwardBatch
from chairlift.models.family import Family
from chairlift.models.registry import load_model


def make_forwards(keep: bool = True) -> Measure:
    """Measures rows a second.

    Args:
        keep: Freed memory is kept, as a worker does.
    """
    if keep:
        keep_freed_memory()
    adapter = load_model()
    assert isinstance(adapter, Family)

    @cache
    def batch(rows: int) -> ForwardBatch:
        return create_batch(adapter, rows)

    @torch.inference_mode()
    def measure(rows: int, seconds: float) -> float:
        done, start = 0, time.perf_counter()
        while time.perf_counter() < start + seconds:
            adapter.predict(batch(rows))
            done += rows
        return done / (time.perf_counter() - start)

    return measure


def compare(first: Crew, second: Crew, options: argparse.Namespace) -> None:
    """One table row for each number of rows; the two take turns."""
    for rows in options.rows:
        order = (rows, options.seconds)
        pairs = [(first.measure(*order), second.measure(*order)) for _ in range(options.pairs)]
        usual, other = (median(rates) for rates in zip(*pairs, strict=True))
        ratios = spread([more / less for less, more in pairs])
        print(f"| {rows} | {usual:.0f} | {other:.0f} | {ratios} |", flush=True)


def parse(
    description: str, arguments: Sequence[str] | None, *, seconds: float, pairs: int
) -> argparse.Namespace:
    """The options of a comparison, with its defaults."""
    parser = argparse.ArgumentParser(description=description.partition("\n\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seconds", type=float, default=seconds, help="of one measurement")
    parser.add_argument("--pairs", type=int, default=pairs)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    assert __doc__ is not None
    options = parse(__doc__, arguments, seconds=4.0, pairs=3)
    threads = torch.get_num_threads()
    print(f"{describe_machine()}\n")
    print(f"| rows of a forward | one process, rows/s | {threads} processes, rows/s | ratio |")
    print("| --- | --- | --- | --- |")
    with (
        Crew(make_forwards, processes=1, threads=threads) as one,
        Crew(make_forwards, processes=threads, threads=1) as several,
    ):
        compare(one, several, options)


if __name__ == "__main__":
    main()
