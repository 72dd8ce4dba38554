"""How the loop takes in a flood of messages, and how often it says when everybody will be done."""

from __future__ import annotations

from collections.abc import Collection
from types import SimpleNamespace

import pytest

from chairlift.engine import loop as engine_loop
from chairlift.engine import reporter
from chairlift.engine.loop import MESSAGES, Loop
from chairlift.engine.messages import Accepted, Activity, Cancel, Failed, FromEngine, Submit
from chairlift.engine.reporter import PREDICTED_ROWS, REPORT_SECONDS
from chairlift.models.fake import FakeModel
from chairlift.request import RowId
from chairlift.scheduling.costs import Costs
from chairlift.scheduling.scheduler import Scheduler
from tests.builders import a_request

ONE_SECOND = {
    "shapes": [{"width": 64, "height": 64, "step_seconds": {"1": 1.0}, "decode_seconds": {}}]
}
"""Costs of a step."""


class CountingScheduler(Scheduler):
    """Counts its predictions."""

    predictions = 0

    def predict(self, now: float, rows: Collection[RowId] | None = None) -> dict[str, float]:
        self.predictions += 1
        return super().predict(now, rows)


def accepted(said: list[FromEngine]) -> dict[str, float]:
    """What was predicted for whom."""
    return {message.request_id: message.eta_s for message in said if isinstance(message, Accepted)}


def refused(said: list[FromEngine]) -> dict[str, str]:
    return {message.request_id: message.code for message in said if isinstance(message, Failed)}


def test_one_prediction_serves_all_who_came_together() -> None:
    said: list[FromEngine] = []
    scheduler = CountingScheduler()
    loop = Loop(FakeModel(), scheduler, said.append)
    ids = [str(number) for number in range(MESSAGES)]
    for id in ids:
        loop.send(Submit(request=a_request(id)))
    loop.turn()
    assert list(accepted(said)) == ids
    assert scheduler.predictions == 1


def test_a_flood_does_not_hold_up_the_next_tick() -> None:
    said: list[FromEngine] = []
    loop = Loop(FakeModel(), Scheduler(max_batch_size=4), said.append)
    loop.send(Submit(request=a_request("first", steps=50)))
    loop.turn()
    for number in range(3 * MESSAGES):
        loop.send(Submit(request=a_request(str(number), steps=50)))
    for turns in range(1, 4):
        loop.turn()
        assert len(accepted(said)) == 1 + turns * MESSAGES
    ticks = sum(len(message.ticks) for message in said if isinstance(message, Activity))
    assert ticks >= 1


def test_a_deadline_is_held_against_those_who_came_before_and_were_accepted() -> None:
    said: list[FromEngine] = []
    scheduler = Scheduler(policy="fcfs", max_batch_size=1, costs=Costs(ONE_SECOND, row_entries=2))
    loop = Loop(FakeModel(), scheduler, said.append, strict=True)
    for id, steps, deadline_ms in (
        ("first", 10, 12_000),
        ("too late", 10, 15_000),
        ("in its place", 4, 15_000),
        ("patient", 10, None),
        ("behind the patient", 1, 20_000),
        ("last", 1, 26_000),
    ):
        loop.send(Submit(request=a_request(id, steps=steps, deadline_ms=deadline_ms)))
    loop.turn()
    assert set(refused(said)) == {"too late", "behind the patient"}
    assert accepted(said) == pytest.approx(
        {"first": 10, "in its place": 14, "patient": 24, "last": 25}
    )


def test_who_comes_and_goes_at_once_is_not_accepted_any_more() -> None:
    said: list[FromEngine] = []
    loop = Loop(FakeModel(), Scheduler(), said.append)
    loop.send(Submit(request=a_request("gone")))
    loop.send(Submit(request=a_request("here")))
    loop.send(Cancel(request_id="gone"))
    loop.turn()
    assert list(accepted(said)) == ["here"]
    assert refused(said) == {"gone": "cancelled"}


@pytest.mark.parametrize(("requests", "every"), [(1, 1), (PREDICTED_ROWS // 25, 4)])
def test_the_more_wait_the_more_rarely_they_are_told_when(
    requests: int, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    for module in (engine_loop, reporter):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    said: list[FromEngine] = []
    loop = Loop(FakeModel(), Scheduler(max_batch_size=1), said.append)
    for number in range(requests):
        loop.send(Submit(request=a_request(str(number), steps=200, n=10)))
    while len(accepted(said)) < requests:
        loop.turn()
    said.clear()
    for _ in range(5 * every):
        now += 1.01 * REPORT_SECONDS
        loop.turn()
    reports = [bool(message.eta_s) for message in said if isinstance(message, Activity)]
    assert len(reports) == 5 * every
    assert reports.count(True) == 5
