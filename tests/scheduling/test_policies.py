"""Policies: who goes first, and what none of them may do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chairlift.request import RowId
from chairlift.scheduling.batching import MODES
from chairlift.scheduling.costs import Costs, Shape
from chairlift.scheduling.names import DEFAULT_POLICY, POLICY_NAMES
from chairlift.scheduling.plan import Plan, TickResult
from chairlift.scheduling.policies import POLICIES
from chairlift.scheduling.scheduler import Scheduler
from tests.builders import a_row

TABLE = {
    "shapes": [
        {"width": 64, "height": 64, "step_seconds": {"1": 0.4, "2": 0.42, "4": 0.5, "8": 1.0}},
        {"width": 128, "height": 128, "step_seconds": {"1": 1.0, "2": 2.0, "4": 4.0}},
    ]
}
"""Rows of 64x64 are cheap together, up to four; larger ones gain nothing."""


def create_scheduler(policy: str = DEFAULT_POLICY, **options: Any) -> Scheduler:
    return Scheduler(policy=policy, costs=Costs(TABLE), **options)


class Clock:
    """Runs a scheduler on the times of the table."""

    def __init__(self, scheduler: Scheduler, now: float = 0.0) -> None:
        self.scheduler = scheduler
        self.now = now
        self.costs = Costs(TABLE)
        self.finished: dict[str, float] = {}

    def tick(self) -> Plan:
        plan = self.scheduler.plan(self.now)
        if plan.key is not None:
            side = 8 * plan.key.latent_shape[-1]
            seconds = self.costs.step(Shape(side, side)).seconds(len(plan.running))
            self.now += seconds
            self.scheduler.update(TickResult(plan=plan, seconds=seconds))
            self.finished |= {row.request_id: self.now for row in plan.finishing}
        return plan

    def run(self, ticks: int = 10_000) -> list[str]:
        """The order in which rows finish."""
        while ticks and self.tick().key is not None:
            ticks -= 1
        return list(self.finished)


def order(policy: str, *rows: Any, **options: Any) -> list[str]:
    scheduler = create_scheduler(policy, **options)
    scheduler.submit(rows)
    return Clock(scheduler).run()


def test_every_name_has_a_policy() -> None:
    assert tuple(POLICIES) == POLICY_NAMES
    assert DEFAULT_POLICY in POLICY_NAMES


LONG = a_row("long", side=16, evaluations=30, arrival=-3.0)
MIDDLE = a_row("middle", side=16, evaluations=20, arrival=-2.0)
SHORT = a_row("short", side=16, evaluations=5, arrival=-1.0)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("fcfs", ["long", "middle", "short"]),
        ("srpt", ["short", "middle", "long"]),
        ("hrrn", ["short", "middle", "long"]),
        ("balanced", ["short", "middle", "long"]),
        ("fair", ["long", "middle", "short"]),
        ("deadline", ["short", "middle", "long"]),
    ],
)
def test_large_rows_run_one_after_the_other_in_the_policys_order(
    policy: str, expected: list[str]
) -> None:
    assert order(policy, LONG, MIDDLE, SHORT) == expected


def test_a_short_row_passes_only_those_that_came_a_little_before_it() -> None:
    early = a_row("early", side=16, evaluations=30, arrival=-100.0)
    assert order("balanced", early, SHORT) == ["early", "short"]


def test_rows_are_filled_to_the_knee_and_no_further() -> None:
    scheduler = create_scheduler()
    scheduler.submit([a_row(str(number)) for number in range(9)])
    assert len(scheduler.plan(0.0).running) == 4
    scheduler = create_scheduler()
    scheduler.submit([a_row(str(number), side=16) for number in range(9)])
    assert len(scheduler.plan(0.0).running) == 1


def test_rows_with_guidance_fill_a_forward_twice_as_fast() -> None:
    scheduler = create_scheduler()
    scheduler.submit([a_row(str(number), entries=2) for number in range(9)])
    assert len(scheduler.plan(0.0).running) == 2
    scheduler = create_scheduler(policy="fcfs")
    scheduler.submit(
        [a_row(str(number), entries=entries) for number, entries in enumerate([2, 1, 2, 1, 1])]
    )
    assert [row.request_id for row in scheduler.plan(0.0).running] == ["0", "1"]


def test_a_row_with_guidance_has_twice_the_work() -> None:
    guided = a_row("guided", side=16, evaluations=12, entries=2, arrival=-3.0)
    plain = a_row("plain", side=16, evaluations=20, arrival=-2.0)
    assert order("srpt", guided, plain) == ["plain", "guided"]
    scheduler = create_scheduler(policy="fcfs")
    scheduler.submit([guided])
    assert scheduler.predict(0.0) == pytest.approx({"guided": 12 * 2.0})
    assert scheduler.backlog() == pytest.approx(12 * 2.0)


@pytest.mark.parametrize("entries", [1, 2])
def test_a_batch_size_that_was_measured_in_a_bad_moment_is_tried_again(entries: int) -> None:
    wrong = {"1": 0.1, "2": 0.4, "4": 0.8, "8": 1.6, "16": 3.2}
    shape = {"width": 64, "height": 64, "step_seconds": wrong}
    scheduler = Scheduler(costs=Costs({"shapes": [shape]}))
    rows = [a_row(str(number), evaluations=10_000, entries=entries) for number in range(8)]
    scheduler.submit(rows)
    sizes = []
    for number in range(6000):
        plan = scheduler.plan(0.1 * number)
        sizes.append(len(plan.running))
        scheduler.update(TickResult(plan=plan, seconds=0.1))
    assert sizes[0] == 1
    assert sizes[-1] == 8


@pytest.mark.parametrize("entries", [1, 2])
def test_who_was_alone_at_first_has_company_as_soon_as_there_is_some(entries: int) -> None:
    scheduler = Scheduler()
    scheduler.submit([a_row("first", evaluations=100, entries=entries)])
    for _ in range(10):
        scheduler.update(TickResult(plan=scheduler.plan(0.0), seconds=0.1))
    scheduler.submit([a_row(str(number), evaluations=100, entries=entries) for number in range(5)])
    assert len(scheduler.plan(0.0).running) == 6


def test_a_given_batch_size_is_not_the_knee() -> None:
    scheduler = create_scheduler(max_batch_size=6)
    scheduler.submit([a_row(str(number)) for number in range(9)])
    assert len(scheduler.plan(0.0).running) == 6


def test_after_running_out_of_memory_batches_are_smaller_and_slowly_grow_again() -> None:
    scheduler = Scheduler(max_batch_size=8)
    scheduler.submit([a_row(str(number), evaluations=10_000) for number in range(8)])
    sizes = []
    for number in range(1000):
        plan = scheduler.plan(float(number))
        sizes.append(len(plan.running))
        short = 8 if number == 0 else 0
        scheduler.update(TickResult(plan=plan, seconds=0.1, out_of_memory=short))
    assert sizes[:2] == [8, 4]
    assert sizes == [8, *sorted(sizes[1:])]
    assert sizes[-1] == 8
    assert sizes.index(5) > 100


def test_a_batch_that_would_waste_the_machine_lets_others_go_first() -> None:
    large = [a_row(f"large{n}", side=16, evaluations=10, arrival=0.0) for n in range(3)]
    few = a_row("few", evaluations=10, arrival=-10.0)
    assert order("fcfs", few, *large)[0] == "few"
    assert order("balanced", few, *large)[0] == "large0"
    many = [a_row(f"many{n}", evaluations=10, arrival=-10.0) for n in range(4)]
    assert order("balanced", *many, *large)[0].startswith("many")


def test_a_paused_row_keeps_its_slot_and_its_steps() -> None:
    scheduler = create_scheduler("srpt")
    scheduler.submit([a_row("long", side=16, evaluations=10)])
    clock = Clock(scheduler)
    clock.run(ticks=3)
    scheduler.submit([a_row("short", side=16, evaluations=2, arrival=clock.now)])
    plans = [clock.tick() for _ in range(3)]
    assert [[row.request_id for row in plan.running] for plan in plans] == [
        ["short"],
        ["short"],
        ["long"],
    ]
    assert plans[2].steps == (3,)
    assert plans[2].joining == ()


def test_no_more_rows_have_slots_than_there_are() -> None:
    scheduler = create_scheduler("srpt", max_batch_size=1, max_aboard=2)
    clock = Clock(scheduler)
    for number in range(6):  # Each shorter than those before it.
        scheduler.submit([a_row(str(number), evaluations=60 - 10 * number, arrival=clock.now)])
        clock.tick()
        assert scheduler.snapshot().running <= 2
    clock.run()
    assert len(clock.finished) == 6


def test_every_slot_is_given_away() -> None:
    scheduler = create_scheduler(max_batch_size=4, max_aboard=4)
    scheduler.submit([a_row(str(number)) for number in range(5)])
    assert len(scheduler.plan(0.0).running) == scheduler.snapshot().running == 4


@pytest.mark.parametrize(("deadline", "first"), [(25.0, "strict"), (35.0, "soft")])
def test_without_a_deadline_it_is_three_times_the_time_alone(deadline: float, first: str) -> None:
    soft = a_row("soft", side=16, evaluations=10)
    strict = a_row("strict", side=16, evaluations=10, deadline=deadline)
    assert order("deadline", soft, strict)[0] == first


def test_deadlines_come_before_those_who_have_time() -> None:
    relaxed = a_row("relaxed", side=16, evaluations=5, deadline=1000.0)
    urgent = a_row("urgent", side=16, evaluations=10, deadline=12.0)
    assert order("deadline", relaxed, urgent) == ["urgent", "relaxed"]


def test_who_can_not_make_it_does_not_drag_the_others_down() -> None:
    lost = a_row("lost", side=16, evaluations=30, deadline=10.0)
    others = [a_row(f"other{n}", side=16, evaluations=5, deadline=6.0 * (n + 1)) for n in range(4)]
    scheduler = create_scheduler("deadline")
    scheduler.submit([lost, *others])
    clock = Clock(scheduler)
    clock.run()
    assert all(clock.finished[f"other{n}"] <= 6.0 * (n + 1) for n in range(4))
    assert "lost" in clock.finished


def test_in_overload_the_largest_is_given_up_for_two_that_make_it() -> None:
    large = a_row("large", side=16, evaluations=18, deadline=20.0)
    small = [a_row(f"small{n}", side=16, evaluations=9, deadline=20.5) for n in range(2)]
    scheduler = create_scheduler("deadline")
    scheduler.submit([large, *small])
    clock = Clock(scheduler)
    clock.run()
    assert [clock.finished[f"small{n}"] <= 20.5 for n in range(2)] == [True, True]


def test_a_caller_with_many_requests_does_not_starve_one_with_few() -> None:
    many = [a_row(f"many{n}", side=16, evaluations=10, caller="many") for n in range(50)]
    few = [a_row(f"few{n}", side=16, evaluations=10, caller="few", arrival=0.5) for n in range(2)]
    finished = order("fair", *many, *few)
    assert max(finished.index("few0"), finished.index("few1")) <= 4


@pytest.mark.parametrize("policy", POLICY_NAMES)
def test_priorities_order_classes(policy: str) -> None:
    low = a_row("low", side=16, evaluations=2, priority=-3, arrival=-1.0)
    high = a_row("high", side=16, evaluations=9, priority=3)
    assert order(policy, low, high) == ["high", "low"]


@pytest.mark.parametrize("policy", POLICY_NAMES)
@pytest.mark.parametrize("sides", [(8, 16), (16, 8)])
def test_priorities_order_classes_of_different_sizes(policy: str, sides: tuple[int, int]) -> None:
    low = a_row("low", side=sides[0], evaluations=2, priority=-3, arrival=-1.0)
    high = a_row("high", side=sides[1], evaluations=9, priority=3)
    assert order(policy, low, high) == ["high", "low"]


def test_groups_whose_heads_rank_equal_take_turns() -> None:
    scheduler = create_scheduler("fair")
    scheduler.submit([a_row(str(side), side=side, evaluations=3) for side in (8, 16)])
    clock = Clock(scheduler)
    turns = [clock.tick().running[0].request_id for _ in range(6)]
    assert turns == ["8", "16"] * 3


@pytest.mark.parametrize("policy", POLICY_NAMES)
def test_nobody_starves_under_a_stream_of_more_important_rows(policy: str) -> None:
    scheduler = create_scheduler(policy)
    scheduler.submit([a_row("low", side=16, evaluations=3, priority=-10)])
    clock = Clock(scheduler)
    for number in range(400):
        scheduler.submit(
            [a_row(f"high{number}", side=16, evaluations=3, priority=10, arrival=clock.now)]
        )
        for _ in range(3):
            clock.tick()
        if "low" in clock.finished:
            break
    assert "low" in clock.finished


def test_the_policy_may_change_while_running() -> None:
    scheduler = create_scheduler("fcfs")
    scheduler.submit([LONG, SHORT])
    assert scheduler.plan(0.0).running == (RowId("long", 0),)
    scheduler.set_policy("srpt")
    assert scheduler.plan(0.0).running == (RowId("short", 0),)


@pytest.mark.parametrize("batching", MODES)
def test_the_prediction_of_the_last_to_come_in_order_is_right(batching: str) -> None:
    scheduler = create_scheduler("fcfs", batching=batching)
    scheduler.submit([a_row(f"large{n}", side=16, evaluations=10) for n in range(3)])
    scheduler.submit([a_row(f"small{n}", evaluations=10, arrival=0.1) for n in range(3)])
    scheduler.submit([a_row("last", evaluations=10, arrival=0.5)])
    predicted, backlog = scheduler.predict(0.5)["last"], scheduler.backlog()
    clock = Clock(scheduler)
    clock.run()
    assert predicted == pytest.approx(clock.finished["last"], rel=0.1)
    assert backlog == pytest.approx(clock.now, rel=0.1)


def crowd() -> list[Any]:
    return [
        a_row(f"{side}, {number}", side=side, evaluations=10 + side + number, arrival=side - number)
        for side in (8, 16)
        for number in range(6)
    ]


@pytest.mark.parametrize("policy", ["fcfs", "srpt", "fair"])
def test_predictions_are_right_for_everybody_where_ranks_stay(policy: str) -> None:
    scheduler = create_scheduler(policy)
    scheduler.submit(crowd())
    predicted = scheduler.predict(20.0)
    clock = Clock(scheduler, now=20.0)
    clock.run()
    assert predicted.keys() == clock.finished.keys()
    for id, finished in clock.finished.items():
        assert 20.0 + predicted[id] == pytest.approx(finished, abs=0.06 * clock.now)


@pytest.mark.parametrize("policy", POLICY_NAMES)
def test_the_last_of_all_predictions_is_right(policy: str) -> None:
    scheduler = create_scheduler(policy)
    scheduler.submit(crowd())
    predicted = scheduler.predict(20.0)
    clock = Clock(scheduler, now=20.0)
    clock.run()
    assert 20.0 + max(predicted.values()) == pytest.approx(clock.now, rel=0.1)


def test_who_has_priority_is_predicted_first() -> None:
    scheduler = create_scheduler("fcfs")
    scheduler.submit([a_row("low", side=16), a_row("high", side=16, arrival=1.0, priority=1)])
    predicted = scheduler.predict(1.0)
    assert predicted["high"] < predicted["low"]


def test_who_has_priority_is_predicted_first_in_a_full_forward_too() -> None:
    scheduler = create_scheduler("fcfs")
    scheduler.submit([a_row(f"low {number}") for number in range(8)])
    scheduler.submit([a_row("high", arrival=1.0, priority=1)])
    predicted = scheduler.predict(1.0)
    assert predicted["high"] == min(predicted.values())
    assert predicted["high"] < max(predicted.values())


def test_those_who_ride_together_are_predicted_together() -> None:
    scheduler = create_scheduler("fcfs")
    scheduler.submit([a_row("company", arrival=0.3)])
    scheduler.submit([a_row("large", side=16, arrival=0.2), a_row("first", arrival=0.1)])
    predicted = scheduler.predict(1.0)
    assert max(predicted["first"], predicted["company"]) < predicted["large"]
    clock = Clock(scheduler, now=1.0)
    assert clock.run()[-1] == "large"


def test_nobody_is_predicted_where_nobody_is() -> None:
    assert create_scheduler().predict(0.0) == {}


def test_a_prediction_counts_encoding_and_decoding_of_all_who_come_before() -> None:
    once = {"encode_seconds": {"1": 1.0}, "decode_seconds": {"1": 10.0}}
    table = {"shapes": [shape | once for shape in TABLE["shapes"]]}
    plain = Scheduler(policy="fcfs", costs=Costs(TABLE))
    with_once = Scheduler(policy="fcfs", costs=Costs(table))
    for scheduler in (plain, with_once):
        scheduler.submit([a_row("large", side=16), a_row("small", arrival=0.1)])
    assert with_once.predict(1.0)["small"] == pytest.approx(plain.predict(1.0)["small"] + 22)
    assert with_once.backlog() == pytest.approx(plain.backlog() + 22)


ROWS = st.lists(
    st.tuples(
        st.sampled_from([8, 16, 24]),
        st.integers(1, 12),
        st.integers(-2, 2),
        st.sampled_from([None, 3.0, 30.0]),
        st.sampled_from(["x", "y", ""]),
        st.floats(0, 5),
    ),
    min_size=1,
    max_size=25,
)


def submit_all(scheduler: Scheduler, rows: Any, name: str = "row") -> None:
    scheduler.submit(
        a_row(
            f"{name}{number}",
            side=side,
            evaluations=evaluations,
            priority=priority,
            deadline=deadline,
            caller=caller,
            arrival=arrival,
        )
        for number, (side, evaluations, priority, deadline, caller, arrival) in enumerate(rows)
    )


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, policy=st.sampled_from(POLICY_NAMES), cap=st.sampled_from([None, 1, 3]))
def test_whatever_comes_every_row_ends_and_no_forward_is_empty_or_mixed_or_too_large(
    rows: Any, policy: str, cap: int | None
) -> None:
    scheduler = create_scheduler(policy, max_batch_size=cap, max_aboard=None if cap is None else 4)
    submit_all(scheduler, rows)
    clock = Clock(scheduler)
    made: dict[str, int] = {}
    while (plan := clock.tick()).key is not None:
        sides = {rows[int(row.request_id[3:])][0] for row in plan.running}
        assert sides == {plan.key.latent_shape[-1]}
        assert 1 <= len(set(plan.running)) == len(plan.running) <= (cap or 32)
        for row in plan.running:
            made[row.request_id] = made.get(row.request_id, 0) + 1
    assert made == {f"row{number}": row[1] for number, row in enumerate(rows)}
    assert scheduler.snapshot().waiting == scheduler.snapshot().running == 0


@settings(max_examples=30, deadline=None)
@given(rows=ROWS, policy=st.sampled_from(POLICY_NAMES))
def test_a_plan_depends_on_the_state_and_the_time_and_not_on_names(rows: Any, policy: str) -> None:
    plans = []
    for name in ("row", "zzz"):
        scheduler = create_scheduler(policy)
        submit_all(scheduler, rows, name)
        clock = Clock(scheduler)
        own: list[Any] = []
        while (plan := clock.tick()).key is not None:
            own.append(([row.request_id[3:] for row in plan.running], plan.steps))
        plans.append(own)
    assert plans[0] == plans[1]


# ---------------------------------------------------------------------- memory


def test_rows_that_do_not_fit_into_memory_wait() -> None:
    scheduler = create_scheduler()
    scheduler.limit_memory(350)
    scheduler.submit([a_row(str(number), slot_memory=100, decode_memory=50) for number in range(4)])
    clock = Clock(scheduler)
    assert len(clock.tick().running) == 3
    clock.run()
    assert len(clock.finished) == 4


def test_the_largest_decode_is_reserved_once() -> None:
    scheduler = create_scheduler()
    scheduler.limit_memory(350)
    scheduler.submit([a_row("small", slot_memory=50, decode_memory=10)])
    scheduler.submit([a_row(f"{n}", slot_memory=100, decode_memory=200) for n in range(2)])
    assert len(scheduler.plan(0.0).running) == 2


def test_a_row_that_waits_for_memory_does_not_hold_up_those_that_fit() -> None:
    scheduler = create_scheduler("fcfs")
    scheduler.limit_memory(100)
    scheduler.submit([a_row("first", evaluations=3, slot_memory=60, arrival=0.0)])
    clock = Clock(scheduler)
    clock.tick()
    scheduler.submit([a_row("large", side=16, evaluations=1, slot_memory=90, arrival=-5.0)])
    scheduler.submit([a_row("fits", evaluations=1, slot_memory=30, arrival=1.0)])
    assert [row.request_id for row in clock.tick().running] == ["first", "fits"]
    clock.run()
    assert set(clock.finished) == {"first", "fits", "large"}


def test_those_who_wait_for_memory_do_not_stop_those_who_have_it() -> None:
    """However important they are, and however many."""
    scheduler = create_scheduler(max_batch_size=2)
    scheduler.limit_memory(100)
    scheduler.submit([a_row("low", evaluations=9, slot_memory=60, priority=-1)])
    clock = Clock(scheduler)
    clock.tick()
    scheduler.submit([a_row(f"high {n}", slot_memory=60, arrival=clock.now) for n in range(2)])
    assert clock.tick().running == (RowId("low", 0),)
    assert clock.run()[0] == "low"
    assert len(clock.finished) == 3


@pytest.mark.parametrize("batching", ["off", "dynamic"])
def test_request_level_batches_fit_into_memory_too(batching: str) -> None:
    scheduler = create_scheduler(batching=batching, max_batch_size=8)
    scheduler.limit_memory(250)
    scheduler.submit([a_row("a", image=number, slot_memory=100) for number in range(5)])
    clock = Clock(scheduler)
    sizes = set()
    while (plan := clock.tick()).key is not None:
        sizes.add(len(plan.running))
    assert sizes == {2, 1}
