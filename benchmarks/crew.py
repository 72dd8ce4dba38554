"""Processes that measure the same thing at the same time, each with its share of the threads."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Self

import torch

Measure = Callable[..., float]
"""Measures for so many seconds, and says how many a second there were."""


class Crew:
    """The processes.

    Args:
        make: A function of a module, called in each process; what it returns measures.
        arguments: Of ``make``.
        processes: How many.
        threads: Of torch, in each.
    """

    def __init__(
        self, make: Callable[..., Measure], *arguments: Any, processes: int, threads: int
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._ends: list[Connection] = []
        for _ in range(processes):
            own, other = context.Pipe()
            member = context.Process(
                target=_member, args=(other, threads, make, arguments), daemon=True
            )
            member.start()
            self._ends.append(own)
        for end in self._ends:
            end.recv()

    def measure(self, *arguments: Any) -> float:
        """The sum of what all have measured."""
        start = time.time() + 0.5  # Everybody has read the order by then.
        for end in self._ends:
            end.send((start, arguments))
        return float(sum(end.recv() for end in self._ends))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for end in self._ends:
            end.send(None)


def _member(
    orders: Connection, threads: int, make: Callable[..., Measure], arguments: tuple[Any, ...]
) -> None:
    """The life of a process."""
    torch.set_num_threads(threads)
    measure = make(*arguments)
    orders.send("ready")
    while (order := orders.recv()) is not None:
        start, settings = order
        time.sleep(max(0.0, start - time.time()))
        orders.send(measure(*settings))
