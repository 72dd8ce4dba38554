"""What each policy ranks before what, apart from forwards, slots and clocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from chairlift.scheduling.policies import POLICIES, View
from chairlift.scheduling.roster import Roster
from chairlift.scheduling.work import Progress
from tests.builders import a_row


def a_view(
    rows: Mapping[str, Mapping[str, float]],
    *,
    now: float = 1000.0,
    each: float = 1.0,
    waste: float = 0.0,
    finish: float = 0.0,
    served: Mapping[int, float] | None = None,
) -> View:
    """A group in which a step of one entry is a tick; a row's columns by its name."""
    roster = Roster()
    for number, (name, given) in enumerate(rows.items(), 1):
        values = {"arrival": now, "entries": 1, "alone": 1e3, "deadline": 1e6} | {**given}
        row = Progress(a_row(name, entries=int(values["entries"])), number)
        roster.add(row, [values.get(column, 0.0) for column in Roster.COLUMNS])
    return View(
        rows=roster,
        now=now,
        full=1,
        each=each,
        tick=each + waste,
        waste=waste,
        finish=finish,
        served={0: 0.0} if served is None else served,
    )


def ranked(policy: str, *views: View) -> list[str]:
    """Names, the lowest rank first."""
    ranks = [
        (rank, row.work.id.request_id)
        for view, own in zip(views, POLICIES[policy](views), strict=True)
        for rank, row in zip(own.tolist(), view.rows, strict=True)
    ]
    assert len({rank for rank, _ in ranks}) == len(ranks)
    return [name for _, name in sorted(ranks)]


def test_first_come_is_who_arrived_first_and_not_who_was_submitted_first() -> None:
    view = a_view({"late": {"arrival": 2.0, "left": 1}, "early": {"arrival": 1.0, "left": 9}})
    assert ranked("fcfs", view) == ["early", "late"]


@pytest.mark.parametrize(("later", "first"), [(4.0, "short"), (6.0, "long")])
def test_balanced_lets_less_work_pass_what_came_up_to_twice_the_difference_earlier(
    later: float, first: str
) -> None:
    rows = {"long": {"arrival": 0.0, "left": 10}, "short": {"arrival": later, "left": 5}}
    # Its own company makes nobody wait: what the batch wastes doesn't matter.
    assert ranked("balanced", a_view(rows, each=0.5, waste=0.5))[0] == first


def test_balanced_counts_entries_as_work() -> None:
    rows = {
        "guided": {"arrival": 0.0, "left": 6, "entries": 2},
        "plain": {"arrival": 1.0, "left": 10},
    }
    assert ranked("balanced", a_view(rows)) == ["plain", "guided"]


def test_balanced_lets_a_group_wait_for_each_that_its_waste_would_hold_up() -> None:
    few = a_view({"few": {"arrival": 0.0, "left": 10}}, waste=0.1)
    others: dict[str, dict[str, float]] = {"other": {"arrival": 10.0, "left": 10}}
    assert ranked("balanced", few, a_view(others)) == ["few", "other"]
    others |= {"third": {"arrival": 11.0, "left": 10}}
    assert ranked("balanced", few, a_view(others)) == ["other", "third", "few"]


def test_srpt_serves_who_has_waited_twenty_times_the_time_alone_first_and_in_order() -> None:
    rows = {
        "second": {"arrival": 920.0, "left": 1, "alone": 3.0},
        "first": {"arrival": 910.0, "left": 9, "alone": 3.0},
        "short": {"arrival": 999.0, "left": 0.5, "alone": 3.0},
        "patient": {"arrival": 945.0, "left": 2, "alone": 3.0},
    }
    assert ranked("srpt", a_view(rows)) == ["first", "second", "short", "patient"]


def test_srpt_counts_what_a_batch_wastes_as_work() -> None:
    full = a_view({"full": {"left": 10}})
    wasteful = a_view({"wasteful": {"left": 9}}, waste=0.5)
    assert ranked("srpt", full, wasteful) == ["full", "wasteful"]
    cheap = a_view({"cheap": {"left": 11}}, each=0.5)
    assert ranked("srpt", full, cheap) == ["cheap", "full"]


def test_hrrn_serves_short_ones_first_and_long_ones_soon() -> None:
    rows = {"long": {"arrival": 900.0, "left": 50}, "short": {"arrival": 999.0, "left": 1}}
    assert ranked("hrrn", a_view(rows)) == ["long", "short"]
    rows["short"]["arrival"] = 997.0
    assert ranked("hrrn", a_view(rows)) == ["short", "long"]


def due(seconds: float, left: float, **other: float) -> dict[str, Any]:
    """A row with so many ticks left, and the deadline in so many seconds."""
    return {"deadline": 1000.0 + seconds, "left": left, **other}


def test_deadline_serves_the_least_slack_first() -> None:
    rows = {"relaxed": due(100, 10), "urgent": due(110, 50)}
    assert ranked("deadline", a_view(rows)) == ["urgent", "relaxed"]


@pytest.mark.parametrize("finish", [0.0, 3.0])
def test_deadline_serves_last_and_in_order_of_arrival_who_can_not_make_it(finish: float) -> None:
    rows = {
        "lost second": due(1, 10, arrival=902.0),
        "lost first": due(9 + finish, 10, arrival=901.0),
        "just": due(10 + finish, 10, arrival=900.0),
    }
    expected = ["just", "lost first", "lost second"]
    assert ranked("deadline", a_view(rows, finish=finish))[1:] == expected[1:]


def test_deadline_gives_up_the_largest_where_not_all_can_make_it() -> None:
    """With the reserve, work is held to be 11.5, 12.65 and 11.5."""
    rows = {"a": due(12, 10), "b": due(26, 11), "c": due(33, 10), "lost": due(5, 10)}
    assert ranked("deadline", a_view(rows)) == ["a", "c", "b", "lost"]
    rows["c"] = due(36, 10)
    assert ranked("deadline", a_view(rows)) == ["a", "b", "c", "lost"]


def test_deadline_counts_decoding_when_it_looks_who_can_make_it() -> None:
    rows = {"a": due(12, 8), "b": due(24, 9), "c": due(31, 8)}
    assert ranked("deadline", a_view(rows)) == ["a", "b", "c"]
    assert ranked("deadline", a_view(rows, finish=2.0)) == ["a", "c", "b"]


def test_deadline_lets_who_has_time_wait_for_company() -> None:
    full, few = a_view({"full": due(40, 10)}), {"few": due(35, 10)}
    assert ranked("deadline", full, a_view(few)) == ["few", "full"]
    assert ranked("deadline", full, a_view(few, each=0.5, waste=0.5)) == ["full", "few"]


def test_fair_serves_who_has_had_least_and_each_callers_rows_in_order() -> None:
    rows = {
        "rich": {"arrival": 1.0, "caller": 0},
        "poor, later": {"arrival": 900.0, "caller": 1},
        "poor": {"arrival": 800.0, "caller": 1},
    }
    view = a_view(rows, served={0: 10.0, 1: 9.0})
    assert ranked("fair", view) == ["poor", "poor, later", "rich"]
