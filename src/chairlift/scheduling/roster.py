"""The rows of one group in columns, so that a policy ranks thousands of them at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from chairlift.request import RowId
from chairlift.scheduling.work import Progress

Numbers = NDArray[np.float64]
_FIRST_SIZE = 64
_FEW = 16


class Roster:
    """Columns that grow; a row that leaves is replaced by the last one.

    The order of the columns means nothing: ties are broken by ``number``, in which rows came.
    """

    COLUMNS = ("number", "arrival", "left", "entries", "alone", "deadline", "priority", "caller")

    def __init__(self) -> None:
        self._rows: list[Progress] = []
        self._places: dict[RowId, int] = {}
        self._table = np.zeros((len(self.COLUMNS), _FIRST_SIZE))
        self.entries = 0
        """Of all rows together."""

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, id: RowId) -> bool:
        return id in self._places

    def __iter__(self) -> Iterator[Progress]:
        return iter(self._rows)

    def __getitem__(self, id: RowId) -> Progress:
        return self._rows[self._places[id]]

    def column(self, name: str) -> Numbers:
        """``(rows,)``, a view."""
        return self._table[_INDEX[name], : len(self._rows)]

    def add(self, row: Progress, values: Sequence[float]) -> None:
        """Append a row with a value for each column."""
        if len(self._rows) == self._table.shape[1]:
            self._table = np.concatenate([self._table, np.zeros_like(self._table)], axis=1)
        place = len(self._rows)
        self._table[:, place] = values
        self._rows.append(row)
        self._places[row.work.id] = place
        self.entries += row.entries

    def place(self, id: RowId) -> int:
        """Where a row is in the columns."""
        return self._places[id]

    def oldest(self) -> Progress:
        """The row that came first; there must be one."""
        return self._rows[int(np.argmin(self.column("arrival")))]

    def set(self, id: RowId, name: str, value: float) -> None:
        self._table[_INDEX[name], self._places[id]] = value

    def remove(self, id: RowId) -> Progress:
        place = self._places.pop(id)
        row, last = self._rows[place], self._rows.pop()
        # Its own are those of its next leg, if it has begun that.
        self.entries -= int(self._table[_INDEX["entries"], place])
        if row is not last:
            self._rows[place] = last
            self._places[last.work.id] = place
            self._table[:, place] = self._table[:, len(self._rows)]
        return row

    def best(self, ranks: Numbers, count: int) -> list[Progress]:
        """The ``count`` rows of the highest priority and, within it, of the lowest rank."""
        size = len(self._rows)
        if size == 1:
            return self._rows[:]
        priority = self.column("priority")
        if size <= _FEW:  # Faster than numpy.
            numbers = self.column("number").tolist()
            keys = zip((-priority).tolist(), ranks.tolist(), numbers, range(size), strict=True)
            first = [min(keys)] if count == 1 else sorted(keys)[:count]
            return [self._rows[place] for *_, place in first]
        places = np.arange(size)
        if count < size and priority.min() == priority.max():
            # Only those that can be among the first are sorted.
            bound = np.partition(ranks, count - 1)[count - 1]
            places = np.flatnonzero(ranks <= bound)
        order = np.lexsort((self.column("number")[places], ranks[places], -priority[places]))
        return [self._rows[place] for place in places[order[:count]]]


_INDEX = {name: index for index, name in enumerate(Roster.COLUMNS)}
