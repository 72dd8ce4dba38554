"""What the page makes of the lift's reports: lift.js alone, with a clock of the test's own."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from playwright.sync_api import Page

from tests.page.conftest import Visit

REPLAY = """
async (reports) => {
  const { Lift } = await import("/page/lift.js");
  const lift = new Lift();
  const seen = [];
  for (const [now, report] of reports) {
    const { latencies } = lift.observe(report, now);
    lift.sweep(now);
    const rows = [...lift.rows.values()].map((row) => [row.key, row.state, row.position(now)]);
    seen.push({ rows, latencies, rate: lift.rate(now) });
  }
  return seen;
}
"""


@pytest.fixture
def page(http: httpx.Client, visit: Visit) -> Page:
    return visit(http)


def report(
    *ticks: dict[str, int], running: int, queue: tuple[str, ...] = (), worker: int = 0
) -> dict[str, Any]:
    """Each tick has the evaluations that its riders had behind them, of ten."""
    return {
        "ticks": [
            {
                "seconds": 0.1,
                "width": 64,
                "height": 64,
                "riders": [[[id, 0], before, 10] for id, before in tick.items()],
                "worker": worker,
            }
            for tick in ticks
        ],
        "running": running,
        "waiting": len(queue),
        "backlog_seconds": 1.0,
        "queue": [{"id": id, "images": 1, "width": 64, "height": 64, "eta_s": 1.0} for id in queue],
        "own": None,
    }


def replay(page: Page, *reports: tuple[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """What the lift looks like after each report; times are in milliseconds."""
    seen: list[dict[str, Any]] = page.evaluate(REPLAY, [list(pair) for pair in reports])
    return seen


def states(seen: dict[str, Any]) -> dict[str, str]:
    return {key.removesuffix("/0"): state for key, state, _ in seen["rows"]}


def test_a_row_glides_to_where_it_is(page: Page) -> None:
    empty = report(running=1)
    seen = replay(page, (0, report({"a": 0}, {"a": 1}, running=1)), (300, empty), (5000, empty))
    places = [rows[0][2] for rows in (one["rows"] for one in seen)]
    assert places[0] == 0
    assert 0 < places[1] < 0.2
    assert places[2] == pytest.approx(0.2)


def test_a_row_that_is_passed_over_rests_until_it_rides_again(page: Page) -> None:
    seen = replay(
        page,
        (0, report({"a": 0, "b": 0}, running=2)),
        (500, report({"a": 1}, running=2)),
        (1000, report({"a": 2}, running=2)),
        (1100, report({"a": 3, "b": 1}, running=2)),
    )
    assert [states(one)["b"] for one in seen] == ["riding", "riding", "resting", "riding"]
    assert {states(one)["a"] for one in seen} == {"riding"}


def test_nobody_rests_because_another_worker_ticks(page: Page) -> None:
    seen = replay(
        page,
        (0, report({"a": 0}, running=2, worker=0)),
        (0, report({"b": 0}, running=2, worker=1)),
        (1000, report({"a": 1}, running=2, worker=0)),
        (2000, report({"c": 0}, running=3, worker=1)),
    )
    assert [states(one).get("b") for one in seen] == [None, "riding", "riding", "resting"]


def test_nobody_rests_while_nobody_rides(page: Page) -> None:
    [_, later] = replay(
        page, (0, report({"a": 0}, running=1)), (9000, report(running=1, queue=("b",)))
    )
    assert states(later) == {"a": "riding"}


def test_who_has_made_the_last_step_arrives_and_is_forgotten(page: Page) -> None:
    seen = replay(
        page,
        (0, report(running=0, queue=("a",))),
        (400, report({"a": 8}, running=1)),
        (1000, report({"a": 9}, running=0)),
        (9000, report(running=0)),
    )
    assert [states(one) for one in seen] == [{}, {"a": "riding"}, {"a": "arrived"}, {}]
    assert [one["latencies"] for one in seen] == [[], [], [1.0], []]


def test_more_rows_than_slots_means_that_the_longest_unseen_are_gone(page: Page) -> None:
    [_, later] = replay(
        page,
        (0, report({"a": 0, "b": 0, "c": 0}, running=3)),
        (100, report({"a": 1, "c": 1}, running=2)),
    )
    assert states(later) == {"a": "riding", "b": "vanished", "c": "riding"}


def test_a_row_that_is_played_again_begins_again(page: Page) -> None:
    seen = replay(
        page,
        (0, report({"a": 6}, running=1)),
        (100, report(running=0)),
        (200, report({"a": 0}, running=1)),
    )
    assert states(seen[1]) == {"a": "vanished"}
    assert seen[2]["rows"] == [["a/0", "riding", 0]]


def test_ticks_a_second_are_counted_over_the_last_seconds(page: Page) -> None:
    seen = replay(
        page,
        (0, report({"a": 0}, {"a": 1}, {"a": 2}, running=1)),
        (2900, report({"a": 3}, running=1)),
        (6000, report(running=1)),
    )
    assert [one["rate"] for one in seen] == pytest.approx([1, 4 / 3, 0])
