"""Forwards in a process that keeps the memory it frees, as a worker does, and in one that gives it
back to the system, as the C library does by itself.

    python -m benchmarks.allocation

Each is a process of its own with all threads; they take turns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from benchmarks.crew import Crew
from benchmarks.machine import describe_machine
from benchmarks.processes import compare, make_forwards, parse


def main(arguments: Sequence[str] | None = None) -> None:
    assert __doc__ is not None
    options = parse(__doc__, arguments, seconds=3.0, pairs=5)
    threads = torch.get_num_threads()
    print(f"{describe_machine()}\n")
    print("| rows of a forward | given back, rows/s | kept, rows/s | ratio |")
    print("| --- | --- | --- | --- |")
    with (
        Crew(make_forwards, False, processes=1, threads=threads) as given_back,
        Crew(make_forwards, True, processes=1, threads=threads) as kept,
    ):
        compare(given_back, kept, options)


if __name__ == "__main__":
    main()
