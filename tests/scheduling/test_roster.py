"""Rows in columns, beside a plain list of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from chairlift.scheduling.roster import Roster
from chairlift.scheduling.work import Progress
from tests.builders import a_row

ROW = st.tuples(st.integers(0, 3), st.integers(-1, 1), st.integers(1, 2), st.integers(0, 9))


def fill(roster: Roster, rows: list[tuple[int, int, int, int]]) -> list[Progress]:
    """Add rows of these ranks, priorities, entries and arrivals; ``left`` is the rank."""
    added = []
    for number, (rank, priority, entries, arrival) in enumerate(rows, 1):
        work = a_row(str(number), entries=entries, priority=priority, arrival=arrival)
        row = Progress(work, number)
        values = {"number": number, "arrival": arrival, "left": rank}
        values |= {"entries": entries, "priority": priority}
        roster.add(row, [values.get(name, 0) for name in Roster.COLUMNS])
        added.append(row)
    return added


@given(
    rows=st.lists(ROW, min_size=17, max_size=40),
    leave=st.sets(st.integers(0, 39), max_size=30),
    count=st.integers(1, 20),
)
def test_the_best_are_of_the_highest_priority_then_of_the_lowest_rank_then_the_first_to_come(
    rows: list[tuple[int, int, int, int]], leave: set[int], count: int
) -> None:
    roster = Roster()
    added = fill(roster, rows)
    here = [row for place, row in enumerate(added) if place not in leave]
    for row in added:
        if row not in here:
            assert roster.remove(row.work.id) is row
    assert sorted(row.number for row in roster) == [row.number for row in here]
    assert roster.entries == sum(row.entries for row in here)
    assert all(roster[row.work.id] is row for row in here)
    assert [row.work.id in roster for row in added] == [row in here for row in added]
    if not here:
        return
    ranks = {row.number: float(rank) for row, (rank, *_) in zip(added, rows, strict=True)}
    order = sorted(here, key=lambda row: (-row.work.priority, ranks[row.number], row.number))
    assert roster.best(roster.column("left"), count) == order[:count]
    assert roster.oldest().work.arrival == min(row.work.arrival for row in here)


def test_there_is_room_for_any_number_of_rows() -> None:
    roster = Roster()
    added = fill(roster, [(number, 0, 1, 0) for number in range(200, 0, -1)])
    assert roster.best(roster.column("left"), 3) == added[:-4:-1]
    for row in added[:190]:
        roster.remove(row.work.id)
    assert roster.best(np.zeros(10), 10) == added[190:]
