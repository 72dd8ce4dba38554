"""Who is here, and how much of the machine each caller has had: what the ``fair`` policy ranks."""

from __future__ import annotations

from collections.abc import Mapping

REMEMBERED = 1000
"""So many callers who have gone are remembered, those that left last."""


class Callers:
    """Counts the rows of each caller and the seconds that they were given.

    Who had no rows has had at least as much as whoever has had least of those that are here: time
    that wasn't used can't be saved up.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._served: dict[int, float] = {}
        self._rows: dict[str, int] = {}
        """Of those that are here."""
        self._gone: dict[str, None] = {}
        """Those that are remembered, who left first before all others."""
        self._last = -1

    @property
    def served(self) -> Mapping[int, float]:
        """Seconds by the numbers of callers."""
        return self._served

    def come(self, name: str) -> int:
        """Count a row of a caller; the caller's number."""
        if name in self._rows:
            self._rows[name] += 1
            return self._numbers[name]
        least = min((self._served[self._numbers[other]] for other in self._rows), default=0.0)
        if name in self._gone:
            del self._gone[name]
        else:
            self._last += 1
            self._numbers[name] = self._last
        number = self._numbers[name]
        self._served[number] = max(self._served.get(number, 0.0), least)
        self._rows[name] = 1
        return number

    def serve(self, name: str, seconds: float) -> None:
        """Count seconds of the machine that a caller who is here was given."""
        self._served[self._numbers[name]] += seconds

    def leave(self, name: str) -> None:
        """Count off a row of a caller. Whoever left longest ago is forgotten, so that memory
        doesn't grow with everybody who was ever here.
        """
        self._rows[name] -= 1
        if self._rows[name]:
            return
        del self._rows[name]
        self._gone[name] = None
        if len(self._gone) > REMEMBERED:
            forgotten = next(iter(self._gone))
            del self._gone[forgotten]
            del self._served[self._numbers.pop(forgotten)]
