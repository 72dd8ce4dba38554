"""The scheduler in its three modes, on a clock of the test's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chairlift.errors import ConfigurationError
from chairlift.request import RowId
from chairlift.scheduling.batch_key import BatchKey
from chairlift.scheduling.costs import Shape
from chairlift.scheduling.plan import Plan, TickResult
from chairlift.scheduling.scheduler import Scheduler
from chairlift.scheduling.work import Leg, RowWork
from tests.builders import a_row


def create_scheduler(
    batching: str = "continuous", max_batch_size: int = 4, batch_delay: float = 0.0
) -> Scheduler:
    return Scheduler(batching=batching, max_batch_size=max_batch_size, batch_delay=batch_delay)


def tick(scheduler: Scheduler, now: float = 100.0, failed: frozenset[RowId] = frozenset()) -> Plan:
    plan = scheduler.plan(now)
    scheduler.update(TickResult(plan=plan, failed=failed, seconds=0.1))
    return plan


def names(rows: object) -> list[str]:
    assert isinstance(rows, tuple | frozenset)
    return sorted(row.request_id for row in rows)


def run_to_end(scheduler: Scheduler, limit: int = 10_000) -> list[Plan]:
    plans = []
    while (plan := tick(scheduler)).key is not None:
        plans.append(plan)
        assert len(plans) < limit
    return plans


def test_an_idle_scheduler_plans_nothing() -> None:
    assert create_scheduler().plan(0.0) == Plan()


def test_a_row_joins_a_running_batch_at_the_next_tick() -> None:
    scheduler = create_scheduler()
    scheduler.submit([a_row("a", evaluations=3)])
    tick(scheduler)
    scheduler.submit([a_row("b", evaluations=3)])
    plan = tick(scheduler)
    assert names(plan.joining) == ["b"]
    assert dict(zip(plan.running, plan.steps, strict=True)) == {RowId("a", 0): 1, RowId("b", 0): 0}


def test_a_row_leaves_after_its_last_evaluation_and_its_slot_is_taken_at_once() -> None:
    scheduler = create_scheduler(max_batch_size=1)
    scheduler.submit([a_row("a", evaluations=2), a_row("b", evaluations=1)])
    assert [names(plan.running) for plan in run_to_end(scheduler)] == [["a"], ["a"], ["b"]]


def test_the_batch_is_never_larger_than_the_maximum() -> None:
    scheduler = create_scheduler(max_batch_size=3)
    scheduler.submit([a_row(str(number)) for number in range(10)])
    assert max(len(plan.running) for plan in run_to_end(scheduler)) == 3


def test_a_row_of_another_shape_waits_for_nobody() -> None:
    scheduler = create_scheduler(max_batch_size=2)
    scheduler.submit([a_row(str(number), evaluations=100) for number in range(6)])
    tick(scheduler)
    scheduler.submit([a_row("odd", side=16, evaluations=1)])
    assert ["odd"] in [names(tick(scheduler).running) for _ in range(2)]


def test_a_row_of_another_shape_does_not_wait_for_a_long_one() -> None:
    scheduler = create_scheduler()
    scheduler.submit([a_row("long", evaluations=100)])
    tick(scheduler)
    scheduler.submit([a_row("short", side=16, evaluations=3, arrival=1.0)])
    assert [names(tick(scheduler).running) for _ in range(4)] == [["short"]] * 3 + [["long"]]


def test_a_stream_of_new_shapes_starves_nobody() -> None:
    scheduler = create_scheduler()
    scheduler.submit([a_row("long", evaluations=50)])
    served = 0
    for number in range(100):
        if number % 2:
            scheduler.submit([a_row(f"short{number}", side=16 + number, evaluations=1)])
        served += names(tick(scheduler).running) == ["long"]
    assert served == 50


def test_cancelled_rows_are_gone_whether_they_wait_or_run() -> None:
    scheduler = create_scheduler(max_batch_size=1)
    scheduler.submit([a_row("runs"), a_row("waits"), a_row("stays", evaluations=1)])
    tick(scheduler)
    scheduler.cancel([RowId("runs", 0), RowId("waits", 0), RowId("never was", 0)])
    assert [names(plan.running) for plan in run_to_end(scheduler)] == [["stays"]]


def test_a_failed_row_frees_its_slot() -> None:
    scheduler = create_scheduler(max_batch_size=1)
    scheduler.submit([a_row("bad"), a_row("good", evaluations=1)])
    tick(scheduler, failed=frozenset({RowId("bad", 0)}))
    assert [names(plan.running) for plan in run_to_end(scheduler)] == [["good"]]


def test_off_runs_one_request_at_a_time_with_its_images_together() -> None:
    scheduler = create_scheduler("off")
    scheduler.submit([a_row("a", image=image, evaluations=2) for image in range(3)])
    scheduler.submit([a_row("b", evaluations=1, arrival=1.0)])
    scheduler.submit([a_row("c", evaluations=1, arrival=0.5, side=16)])
    plans = [names(plan.running) for plan in run_to_end(scheduler)]
    assert plans == [["a", "a", "a"], ["a", "a", "a"], ["c"], ["b"]]


def test_off_splits_a_request_that_is_larger_than_the_batch() -> None:
    scheduler = create_scheduler("off", max_batch_size=2)
    scheduler.submit([a_row("a", image=image, evaluations=1) for image in range(3)])
    assert [len(plan.running) for plan in run_to_end(scheduler)] == [2, 1]


@pytest.mark.parametrize("batching", ["off", "dynamic"])
def test_who_comes_at_the_same_instant_is_served_in_the_order_of_submission(batching: str) -> None:
    scheduler = create_scheduler(batching, max_batch_size=1)
    scheduler.submit([a_row(name, evaluations=1) for name in "abcd"])
    assert [names(plan.running) for plan in run_to_end(scheduler)] == [["a"], ["b"], ["c"], ["d"]]


def test_dynamic_waits_for_company_until_the_delay_since_the_head_has_passed() -> None:
    scheduler = create_scheduler("dynamic", batch_delay=0.5)
    scheduler.submit([a_row("a", arrival=10.0)])
    assert scheduler.plan(10.2) == Plan(wake_at=10.5)
    scheduler.submit([a_row("b", arrival=10.3)])
    assert scheduler.plan(10.4).key is None
    assert names(scheduler.plan(10.5).running) == ["a", "b"]


def test_dynamic_starts_at_once_when_the_batch_is_full() -> None:
    scheduler = create_scheduler("dynamic", max_batch_size=2, batch_delay=60.0)
    scheduler.submit([a_row("a"), a_row("b")])
    assert names(scheduler.plan(0.0).running) == ["a", "b"]


def test_dynamic_lets_nobody_join_a_running_batch() -> None:
    scheduler = create_scheduler("dynamic")
    scheduler.submit([a_row("a", evaluations=3)])
    tick(scheduler)
    scheduler.submit([a_row("b", evaluations=3)])
    assert [names(plan.running) for plan in run_to_end(scheduler)] == [["a"]] * 2 + [["b"]] * 3


def test_dynamic_batches_only_equal_settings() -> None:
    scheduler = create_scheduler("dynamic")
    scheduler.submit(
        [
            a_row("a", settings=20, evaluations=1),
            a_row("b", settings=30, evaluations=1, arrival=0.1),
            a_row("c", settings=20, evaluations=1, arrival=0.2),
        ]
    )
    assert [names(plan.running) for plan in run_to_end(scheduler)] == [["a", "c"], ["b"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batching": "sometimes"}, "batching is 'sometimes'; it must be one of continuous"),
        ({"max_batch_size": 0}, "max_batch_size is 0; it must be at least 1"),
        ({"batch_delay": -1.0}, "batch_delay is -1.0 s"),
        ({"batch_delay": float("nan")}, "batch_delay is nan s"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, object], message: str) -> None:
    defaults: dict[str, object] = {"batching": "continuous", "max_batch_size": 4}
    with pytest.raises(ConfigurationError, match=message):
        Scheduler(**(defaults | options))  # type: ignore[arg-type]


def test_the_backlog_is_the_work_left_at_the_pace_so_far() -> None:
    scheduler = create_scheduler()
    scheduler.submit([a_row("a", evaluations=11)])
    tick(scheduler)
    snapshot = scheduler.snapshot()
    assert (snapshot.running, snapshot.waiting) == (1, 0)
    assert snapshot.backlog_seconds == pytest.approx(10 * 0.1)


rows = st.builds(
    lambda number, evaluations, side, settings: (number, evaluations, side, settings),
    st.integers(0, 10**6),
    st.integers(1, 6),
    st.sampled_from([8, 16, 24]),
    st.integers(0, 1),
)


@given(
    batching=st.sampled_from(["continuous", "dynamic", "off"]),
    max_batch_size=st.integers(1, 5),
    work=st.lists(rows, max_size=30, unique_by=lambda row: row[0]),
    arrivals=st.lists(st.integers(0, 3), max_size=40),
)
def test_every_row_makes_all_its_evaluations_beside_its_like(
    batching: str,
    max_batch_size: int,
    work: list[tuple[int, int, int, int]],
    arrivals: list[int],
) -> None:
    scheduler = create_scheduler(batching, max_batch_size)
    todo = {RowId(str(number), 0): (count, side) for number, count, side, _ in work}
    made = dict.fromkeys(todo, 0)
    waiting = [
        a_row(str(number), evaluations=count, side=side, settings=settings)
        for number, count, side, settings in work
    ]
    for arriving in [*arrivals, len(waiting), *[0] * 400]:
        scheduler.submit(waiting[:arriving])
        waiting = waiting[arriving:]
        before = scheduler.snapshot()
        plan = tick(scheduler)
        assert (plan.key is None) == (before.running + before.waiting == 0)  # work-conserving
        assert len(plan.running) <= max_batch_size
        assert len({todo[row][1] for row in plan.running}) <= 1
        for row, step in zip(plan.running, plan.steps, strict=True):
            assert step == made[row]
            made[row] += 1
            assert (row in plan.finishing) == (made[row] == todo[row][0])
    assert made == {row: count for row, (count, _) in todo.items()}


# ---------------------------------------------------------------------- rows that change groups


def a_journey(
    id: str, *legs: tuple[str, int], arrival: float = 0.0, settings: object = None
) -> RowWork:
    """A row that goes through several denoisers: the name of each, and its evaluations there."""
    return RowWork(
        id=RowId(id, 0),
        legs=tuple(Leg(BatchKey(model, (4, 8, 8), "text"), count) for model, count in legs),
        shape=Shape(64, 64),
        settings=settings,
        arrival=arrival,
    )


def where(plan: Plan) -> tuple[str, list[str]]:
    """The denoiser of a tick, and who is aboard."""
    assert plan.key is not None
    return plan.key.model, names(plan.running)


def test_a_row_changes_its_group_after_the_last_evaluation_of_a_leg() -> None:
    scheduler = create_scheduler()
    scheduler.submit([a_journey("a", ("high", 3), ("low", 2))])
    plans = run_to_end(scheduler)
    assert [where(plan) for plan in plans] == [("high", ["a"])] * 3 + [("low", ["a"])] * 2
    assert [plan.steps for plan in plans] == [(0,), (1,), (2,), (3,), (4,)]
    assert [names(plan.joining) for plan in plans] == [["a"], [], [], [], []]
    assert [names(plan.changing) for plan in plans] == [[], [], ["a"], [], []]
    assert [names(plan.finishing) for plan in plans] == [[], [], [], [], ["a"]]


def test_rows_that_cross_at_different_times_share_the_forwards_of_both_groups() -> None:
    scheduler = create_scheduler()
    scheduler.submit(
        [a_journey("a", ("high", 1), ("low", 3)), a_journey("b", ("high", 2), ("low", 1))]
    )
    assert [where(plan) for plan in run_to_end(scheduler)] == [
        ("high", ["a", "b"]),
        ("high", ["b"]),
        ("low", ["a", "b"]),
        ("low", ["a"]),
        ("low", ["a"]),
    ]


def test_a_row_that_crosses_is_ahead_of_those_that_come_to_the_group_later() -> None:
    scheduler = create_scheduler(max_batch_size=1)
    scheduler.submit([a_journey("a", ("high", 1), ("low", 2))])
    tick(scheduler)
    scheduler.submit([a_journey("later", ("low", 2), arrival=0.1)])
    plans = [where(plan) for plan in run_to_end(scheduler)]
    assert plans == [("low", ["a"])] * 2 + [("low", ["later"])] * 2


def test_a_row_may_be_cancelled_between_two_groups() -> None:
    scheduler = create_scheduler()
    scheduler.submit([a_journey("a", ("high", 1), ("low", 5))])
    assert names(tick(scheduler).changing) == ["a"]
    assert scheduler.snapshot().waiting == 1
    scheduler.cancel([RowId("a", 0)])
    assert scheduler.snapshot().waiting == 0
    assert scheduler.plan(100.0) == Plan()


def test_a_caller_who_comes_back_has_not_saved_up_time() -> None:
    scheduler = Scheduler(policy="fair", max_batch_size=1)
    us, them = a_row("us", evaluations=1, caller="us"), a_row("them", evaluations=9, caller="them")
    scheduler.submit([us, them])
    for seconds in (1.0, 10.0):
        scheduler.update(TickResult(plan=scheduler.plan(100.0), seconds=seconds))
    scheduler.submit([a_row("us again", caller="us", arrival=50.0)])
    assert names(scheduler.plan(100.0).running) == ["them"]


def test_a_caller_whose_row_crosses_has_not_been_away() -> None:
    """Under ``fair``, who comes back has had as much as those who were here meanwhile."""
    scheduler = Scheduler(policy="fair", max_batch_size=1)
    journey = a_journey("ours", ("high", 1), ("low", 3))
    scheduler.submit([replace(journey, caller="us"), a_row("theirs", evaluations=9, caller="them")])
    took = {"ours": 1.0, "theirs": 10.0}
    turns = []
    for _ in range(5):
        plan = scheduler.plan(100.0)
        turns += names(plan.running)
        scheduler.update(TickResult(plan=plan, seconds=took[turns[-1]]))
    assert turns == ["ours", "theirs", "ours", "ours", "ours"]


def test_a_row_that_fails_where_it_would_cross_does_not_cross() -> None:
    scheduler = create_scheduler()
    scheduler.submit([a_journey("a", ("high", 1), ("low", 5))])
    assert names(tick(scheduler, failed=frozenset({RowId("a", 0)})).changing) == ["a"]
    assert scheduler.plan(100.0) == Plan()


def test_a_row_between_two_groups_waits_and_all_its_work_is_in_the_backlog() -> None:
    scheduler = create_scheduler()
    scheduler.submit([a_journey("a", ("high", 2), ("low", 5))])
    assert scheduler.backlog() == pytest.approx(0.7)
    counts = []
    for _ in range(4):
        tick(scheduler)
        snapshot = scheduler.snapshot()
        counts.append((snapshot.running, snapshot.waiting, round(snapshot.backlog_seconds, 6)))
    assert counts == [(1, 0, 0.6), (0, 1, 0.5), (1, 0, 0.4), (1, 0, 0.3)]


@pytest.mark.parametrize("batching", ["dynamic", "off"])
def test_request_level_modes_run_a_row_to_its_end_before_the_next(batching: str) -> None:
    scheduler = create_scheduler(batching, batch_delay=60.0)
    scheduler.submit(
        [
            a_journey("a", ("high", 2), ("low", 2), arrival=0.0),
            a_journey("b", ("high", 1), ("low", 1), arrival=0.1, settings="others"),
            a_journey("c", ("low", 1), arrival=0.2, settings="others still"),
        ]
    )
    plans = [where(plan) for plan in run_to_end(scheduler)]
    assert plans == [
        *[("high", ["a"])] * 2,
        *[("low", ["a"])] * 2,
        ("high", ["b"]),
        ("low", ["b"]),
        ("low", ["c"]),
    ]


def test_a_batch_that_has_lost_its_head_still_runs_to_its_end_before_the_next() -> None:
    scheduler = create_scheduler("dynamic", max_batch_size=2)
    scheduler.submit(
        [
            a_journey("head", ("high", 1), ("low", 1), arrival=0.0),
            a_journey("other", ("high", 1), ("low", 1), arrival=0.1, settings="others"),
            a_journey("mate", ("high", 1), ("low", 1), arrival=0.2),
        ]
    )
    assert where(tick(scheduler)) == ("high", ["head", "mate"])
    scheduler.cancel([RowId("head", 0)])
    assert [where(plan) for plan in run_to_end(scheduler)] == [
        ("low", ["mate"]),
        ("high", ["other"]),
        ("low", ["other"]),
    ]


def test_dynamic_does_not_wait_for_company_in_the_middle() -> None:
    scheduler = create_scheduler("dynamic", batch_delay=60.0)
    scheduler.submit([a_journey("a", ("high", 1), ("low", 1), arrival=0.0)])
    tick(scheduler, now=60.0)
    assert where(scheduler.plan(1.0)) == ("low", ["a"])


journeys = st.tuples(
    st.integers(0, 10**6),
    st.lists(st.tuples(st.sampled_from("xyz"), st.integers(1, 4)), min_size=1, max_size=3),
    st.integers(0, 1),
)


@given(
    batching=st.sampled_from(["continuous", "dynamic", "off"]),
    max_batch_size=st.integers(1, 4),
    work=st.lists(journeys, max_size=20, unique_by=lambda row: row[0]),
    arrivals=st.lists(st.integers(0, 3), max_size=30),
)
def test_every_row_makes_each_evaluation_in_its_own_group(
    batching: str,
    max_batch_size: int,
    work: list[tuple[int, list[tuple[str, int]], int]],
    arrivals: list[int],
) -> None:
    scheduler = create_scheduler(batching, max_batch_size)
    todo = {
        RowId(str(number), 0): [model for model, count in legs for _ in range(count)]
        for number, legs, _ in work
    }
    # Equal settings mean equal legs.
    waiting = [
        a_journey(str(number), *legs, settings=(legs, settings)) for number, legs, settings in work
    ]
    made = dict.fromkeys(todo, 0)
    joined = list[RowId]()
    for arriving in [*arrivals, len(waiting), *[0] * 240]:
        scheduler.submit(waiting[:arriving])
        waiting = waiting[arriving:]
        before = scheduler.snapshot()
        plan = tick(scheduler)
        assert (plan.key is None) == (before.running + before.waiting == 0)  # work-conserving
        assert len(plan.running) <= max_batch_size
        joined += plan.joining
        for row, step in zip(plan.running, plan.steps, strict=True):
            assert plan.key is not None
            assert step == made[row]
            assert plan.key.model == todo[row][step]
            made[row] += 1
        assert plan.finishing == {row for row in plan.running if made[row] == len(todo[row])}
    assert made == {row: len(models) for row, models in todo.items()}
    assert sorted(joined) == sorted(todo)  # each once
