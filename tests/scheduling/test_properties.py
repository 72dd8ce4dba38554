"""What holds whatever happens: rows come, are cancelled, fail, run out of memory and change groups,
and policies change.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chairlift.request import RowId
from chairlift.scheduling.batch_key import BatchKey
from chairlift.scheduling.batching import GUARD, MODES, PATIENCE, PROBE
from chairlift.scheduling.costs import Costs, Shape
from chairlift.scheduling.names import POLICY_NAMES
from chairlift.scheduling.plan import Plan, TickResult
from chairlift.scheduling.scheduler import Scheduler
from chairlift.scheduling.work import Leg, RowWork
from tests.builders import a_row

ONCE = {"encode_seconds": {"1": 0.1}, "decode_seconds": {"1": 0.3}}
SMALL = {"1": 0.4, "2": 0.42, "4": 0.5, "8": 1.0}
TABLE: dict[str, Any] = {
    "shapes": [
        {"width": 64, "height": 64, "step_seconds": SMALL},
        {"width": 128, "height": 128, "step_seconds": {"1": 1.0, "2": 2.0, "4": 4.0}} | ONCE,
    ]
}
KNEE = {64: 4, 128: 1}
MEMORY = 100

REQUEST = st.fixed_dictionaries(
    {
        "side": st.sampled_from([64, 128]),
        "legs": st.lists(
            st.tuples(st.integers(1, 4), st.sampled_from([1, 2])), min_size=1, max_size=2
        ),
        "n": st.sampled_from([1, 1, 1, 2, 5]),
        "priority": st.sampled_from([0, 0, 0, -10, 10]),
        "deadline": st.sampled_from([None, None, 0.5, 5.0, 50.0]),
        "caller": st.sampled_from(["", "ada", "grace"]),
        "slot_memory": st.sampled_from([0, 5, 30, 60]),
        "decode_memory": st.sampled_from([0, 10, 40]),
    }
)
SUBMIT = st.tuples(st.just("submit"), REQUEST)
TICK = st.tuples(st.just("tick"), st.sampled_from(["well", "well", "well", "failed", "memory"]))
EVENTS = st.lists(
    SUBMIT
    | TICK
    | st.tuples(st.just("cancel"), st.integers(0, 50))
    | st.tuples(st.just("policy"), st.sampled_from(POLICY_NAMES))
    | st.tuples(st.just("pass"), st.sampled_from([0.1, 30.0, 1000.0])),
    max_size=50,
)
OPTIONS = st.fixed_dictionaries(
    {
        "batching": st.sampled_from(["continuous", "continuous", "off", "dynamic"]),
        "policy": st.sampled_from(POLICY_NAMES),
        "max_batch_size": st.sampled_from([None, 1, 2, 5]),
    }
)


class World:
    """A scheduler, a machine whose ticks cost what the table says, and what both must keep.

    Args:
        name: Requests and callers are called so.
        asks: Whether there are questions between ticks, and each is planned twice.
        options: Of the scheduler.
    """

    def __init__(self, name: str, asks: bool, **options: Any) -> None:
        self.costs = Costs(TABLE)
        self.scheduler = Scheduler(costs=Costs(TABLE), **options)
        self.scheduler.limit_memory(MEMORY)
        self.continuous = options["batching"] == "continuous"
        self.to_knee = self.continuous and options["max_batch_size"] is None
        self.cap = options["max_batch_size"] or 32
        self.name = name
        self.asks = asks
        self.now = 5.0
        self.ticks = 0
        self.submitted = 0
        self.here: dict[RowId, RowWork] = {}
        self.made: Counter[RowId] = Counter()
        self.aboard: dict[RowId, RowWork] = {}
        self.room: dict[BatchKey, int] = {}
        self.plans: list[Any] = []

    def submit(self, given: Mapping[str, Any]) -> None:
        self.submitted += 1
        other = dict(given)
        side, legs, seconds = other.pop("side"), other.pop("legs"), other.pop("deadline")
        rows = [
            RowWork(
                id=RowId(f"{self.name}{self.submitted}", image),
                legs=tuple(
                    Leg(BatchKey(f"expert {number}", (side,), ""), count, entries)
                    for number, (count, entries) in enumerate(legs)
                ),
                shape=Shape(side, side),
                settings=(side, tuple(legs)),
                arrival=self.now,
                deadline=None if seconds is None else self.now + seconds,
                caller=self.name + other.pop("caller", ""),
                **other,
            )
            for image in range(other.pop("n"))
        ]
        self.here |= {row.id: row for row in rows}
        self.scheduler.submit(rows)

    def cancel(self, number: int) -> None:
        ids = list(dict.fromkeys(row.request_id for row in self.here))
        if ids:
            gone = [row for row in self.here if row.request_id == ids[number % len(ids)]]
            self.scheduler.cancel([*gone, RowId("never was", 0)])
            self._forget(gone)

    def tick(self, outcome: str = "well") -> None:
        if self.asks:
            self._ask()
        plan = self.scheduler.plan(self.now)
        assert (plan.key is None) == (not self.here)  # work-conserving
        if plan.key is None:
            return
        self.aboard |= {id: self.here[id] for id in plan.running}
        self._check(plan)
        if self.asks:
            again = self.scheduler.plan(self.now)
            assert (again.key, set(again.running)) == (plan.key, set(plan.running))
        legs = [self._leg(id) for id in plan.running]
        shape = self.here[plan.running[0]].shape
        encode = len(plan.joining) * self.costs.encode(shape)
        seconds = encode + self.costs.step(shape).seconds(sum(leg.entries for leg in legs))
        assert self.scheduler.predict_tick(plan) == pytest.approx(seconds)
        failed = frozenset(plan.running[:1] if outcome == "failed" else ())
        short = len(legs) if outcome == "memory" else 0
        self.scheduler.update(
            TickResult(
                plan=plan,
                failed=failed,
                seconds=seconds,
                encode_seconds=encode,
                out_of_memory=short,
            )
        )
        self.room[plan.key] = max(1, short // 2) if short else self.cap
        self.now += seconds
        self.ticks += 1
        self.made.update(plan.running)
        self._forget([*plan.finishing, *failed])
        for id in plan.changing:
            self.aboard.pop(id, None)
        requests = [(id.request_id[len(self.name) :], id.image) for id in plan.running]
        self.plans.append((plan.key, requests, plan.steps))

    def run(self, events: Iterable[tuple[str, Any]]) -> None:
        """All that is given, and then to the end."""
        for what, value in events:
            if what == "submit":
                self.submit(value)
            elif what == "tick":
                self.tick(value)
            elif what == "cancel":
                self.cancel(value)
            elif what == "policy":
                self.scheduler.set_policy(value)
            else:
                self.now += value
        for _ in range(sum(row.evaluations - self.made[id] for id, row in self.here.items())):
            self.tick()
        assert not self.here
        snapshot = self.scheduler.snapshot()
        assert (snapshot.running, snapshot.waiting, snapshot.backlog_seconds) == (0, 0, 0.0)

    def _ask(self) -> None:
        predicted = self.scheduler.predict(self.now)
        assert predicted.keys() == {row.request_id for row in self.here}
        assert all(0 < seconds < math.inf for seconds in predicted.values())
        snapshot = self.scheduler.snapshot()
        assert (0 < snapshot.backlog_seconds < math.inf) == bool(self.here)
        assert snapshot.running == len(self.aboard)
        assert snapshot.waiting == len(self.here) - len(self.aboard)

    def _check(self, plan: Plan) -> None:
        """A forward of one group that isn't too large, of rows that go on where they were."""
        rows, legs = len(plan.running), [self._leg(id) for id in plan.running]
        assert len(set(plan.running)) == rows <= self.cap
        assert {leg.key for leg in legs} == {plan.key}
        if self.continuous and plan.key is not None:
            assert rows <= self.room.get(plan.key, self.cap)
        slots = Counter(self._leg(id).key for id in self.aboard)
        assert max(slots.values()) <= 2 * self.cap
        if self.to_knee and rows > 1:
            probes = self.ticks % PROBE == PROBE // 2
            full = KNEE[self.here[plan.running[0]].shape.width]
            assert sum(leg.entries for leg in legs) <= (2 * max(full, 2) if probes else full)
        taken = sum(row.slot_memory for row in self.aboard.values())
        assert taken + max(row.decode_memory for row in self.aboard.values()) <= MEMORY
        for id, step in zip(plan.running, plan.steps, strict=True):
            counts = [leg.evaluations for leg in self.here[id].legs]
            assert step == self.made[id]
            assert (id in plan.joining) == (step == 0)
            assert (id in plan.finishing) == (step + 1 == sum(counts))
            assert (id in plan.changing) == (len(counts) == 2 and step + 1 == counts[0])

    def _leg(self, id: RowId) -> Leg:
        legs = self.here[id].legs
        return legs[0] if self.made[id] < legs[0].evaluations else legs[-1]

    def _forget(self, rows: Iterable[RowId]) -> None:
        for id in rows:
            self.here.pop(id, None)
            self.aboard.pop(id, None)


@settings(deadline=None)
@given(events=EVENTS, options=OPTIONS)
def test_whatever_happens_names_and_questions_change_nothing(events: Any, options: Any) -> None:
    asked, silent = World("a", asks=True, **options), World("row ", asks=False, **options)
    asked.run(events)
    silent.run(events)
    assert asked.plans == silent.plans


# ---------------------------------------------------------------------- predictions


@settings(deadline=None)
@given(
    batching=st.sampled_from(sorted(MODES)),
    policy=st.sampled_from(POLICY_NAMES),
    cap=st.sampled_from([None, 1, 3]),
    side=st.sampled_from([8, 16]),
    entries=st.integers(1, 2),
    evaluations=st.integers(1, 12),
)
def test_who_is_alone_is_predicted_what_is_left_at_every_tick(
    batching: str, policy: str, cap: int | None, side: int, entries: int, evaluations: int
) -> None:
    row = a_row(side=side, entries=entries, evaluations=evaluations)
    costs = Costs(TABLE)
    scheduler = Scheduler(batching=batching, policy=policy, max_batch_size=cap, costs=Costs(TABLE))
    scheduler.submit([row])
    now, end = 0.0, row.alone(costs)
    while (plan := scheduler.plan(now)).key is not None:
        encode = len(plan.joining) * costs.encode(row.shape)
        seconds = encode + costs.step(row.shape).seconds(entries)
        if not encode:
            assert now + scheduler.predict(now)["a"] == pytest.approx(end)
            assert now + scheduler.backlog() == pytest.approx(end)
        scheduler.update(TickResult(plan=plan, seconds=seconds, encode_seconds=encode))
        now += seconds


# ---------------------------------------------------------------------- nobody starves


@pytest.mark.parametrize("policy", POLICY_NAMES)
@pytest.mark.parametrize("side", [8, 16])
@pytest.mark.parametrize("priority", [-10, 0])
def test_a_large_row_is_not_passed_over_for_ever_by_those_for_which_there_is_memory(
    policy: str, side: int, priority: int
) -> None:
    """Small ones overlap, so that there is never room for the large one unless it is kept."""
    scheduler = Scheduler(policy=policy, costs=Costs(TABLE))
    scheduler.limit_memory(100)
    large = a_row("large", side=side, evaluations=3, slot_memory=90, priority=priority, arrival=0.1)
    others = [a_row("x", evaluations=3, slot_memory=30), a_row("y", evaluations=5, slot_memory=30)]
    assert is_served(scheduler, large, others)


def is_served(scheduler: Scheduler, row: RowWork, others: list[RowWork]) -> bool:
    """Whether a row is done within its bound, if each of the others comes again when it is done."""
    costs, now = Costs(TABLE), 0.1
    scheduler.submit([*others, row])
    again = {other.id: other for other in others}
    # The guard comes by in so many ticks; those aboard take five evaluations, each a round of it.
    bound = PATIENCE * row.alone(costs) + GUARD * (row.evaluations + 1 + 5 * len(others))
    while now < bound:
        plan = scheduler.plan(now)
        if row.id in plan.finishing:
            return True
        side = Shape(128, 128) if plan.key and plan.key.latent_shape[-1] == 16 else Shape(64, 64)
        seconds = costs.step(side).seconds(len(plan.running))
        now += seconds
        scheduler.update(TickResult(plan=plan, seconds=seconds))
        for id in plan.finishing:
            old = again.pop(id)
            new = a_row(
                f"{id.request_id}'", evaluations=5, arrival=now, slot_memory=old.slot_memory
            )
            again[new.id] = new
            scheduler.submit([new])
    return False
