"""What will happen, and when."""

from __future__ import annotations

import heapq
from collections.abc import Callable

Action = Callable[[float], None]
"""Gets the time."""


class Events:
    """A queue by time; of one instant, what was put in first happens first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Action]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next_at(self) -> float:
        """When the next one is; there must be one."""
        return self._heap[0][0]

    def at(self, time: float, action: Action) -> None:
        """Do ``action`` at ``time``."""
        self._count += 1
        heapq.heappush(self._heap, (time, self._count, action))

    def happen(self) -> None:
        """Let the next one happen."""
        time, _, action = heapq.heappop(self._heap)
        action(time)
