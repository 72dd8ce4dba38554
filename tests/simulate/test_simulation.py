"""The virtual clock: what must hold for every scheduler, and small cases worked out by hand."""

from __future__ import annotations

import random
from collections.abc import Iterable
from copy import deepcopy

import pytest

from chairlift.errors import ConfigurationError
from chairlift.request import RowId
from chairlift.scheduling.costs import Costs
from chairlift.scheduling.names import POLICY_NAMES
from chairlift.scheduling.plan import Plan, TickResult
from chairlift.scheduling.scheduler import Scheduler
from chairlift.scheduling.work import RowWork
from chairlift.simulate.arrivals import ClosedLoop, create_source
from chairlift.simulate.contestant import create_scheduler
from chairlift.simulate.names import CONTESTANT_NAMES, ROUTER_NAMES
from chairlift.simulate.replica import Outcome, Schedules, create_rows
from chairlift.simulate.router import create_router
from chairlift.simulate.simulation import Simulation, simulate
from chairlift.simulate.workload import MIXES, Job, capacity
from tests.simulate.builders import QWEN, TABLE, a_job

CONTINUOUS = (*POLICY_NAMES, "peers")


def run(
    jobs: Iterable[Job], name: str = "balanced", replicas: int = 1, router: str = "round-robin"
) -> Simulation:
    costs = Costs(TABLE)
    schedulers = [create_scheduler(name, costs) for _ in range(replicas)]
    return simulate(jobs, schedulers, create_router(router, 1), costs)


def some_jobs(count: int = 80, load: float = 1.0, seed: int = 1) -> list[Job]:
    """Of the mix ``qwen``, some of several rows."""
    mix = MIXES["qwen"]
    source = create_source("poisson", mix, load * capacity(Costs(QWEN), mix), count, seed)
    jobs = [source.pop() for _ in range(count)]
    return [
        Job(arrival_s=job.arrival_s, width=job.width, height=job.height, steps=job.steps, n=n)
        for job, n in zip(jobs, random.Random(seed).choices([1, 1, 1, 3], k=count), strict=True)
    ]


def simulate_qwen(jobs: Iterable[Job], name: str, replicas: int, router: str) -> Simulation:
    costs = Costs(QWEN)
    schedulers = [create_scheduler(name, costs) for _ in range(replicas)]
    return simulate(jobs, schedulers, create_router(router, 1), costs)


@pytest.mark.parametrize("name", CONTESTANT_NAMES)
@pytest.mark.parametrize(("replicas", "router"), [(1, "round-robin"), (3, "least-backlog")])
def test_every_job_finishes_once_and_the_same_way_each_time(
    name: str, replicas: int, router: str
) -> None:
    jobs = some_jobs()
    simulation = simulate_qwen(jobs, name, replicas, router)
    assert [outcome.job for outcome in simulation.outcomes] == jobs
    for outcome in simulation.outcomes:
        assert outcome.job.arrival_s <= outcome.start_s < outcome.finish_s
        assert outcome.latency_s >= outcome.alone_s * (1 - 1e-9)
    evaluations = sum(
        rows * count for one in simulation.statistics for rows, count in one.ticks.items()
    )
    assert evaluations == sum(job.n * job.steps for job in jobs)
    assert simulate_qwen(jobs, name, replicas, router) == simulation


class Watched:
    """A scheduler that sees whether the machine is idle while somebody waits."""

    def __init__(self, scheduler: Schedules) -> None:
        self._scheduler = scheduler
        self.rows: set[RowId] = set()
        self.ticks = 0

    def submit(self, rows: Iterable[RowWork]) -> None:
        rows = list(rows)
        self.rows |= {row.id for row in rows}
        self._scheduler.submit(rows)

    def plan(self, now: float) -> Plan:
        plan = self._scheduler.plan(now)
        assert (plan.key is None) == (not self.rows)
        assert self.rows.issuperset(plan.running)
        self.ticks += plan.key is not None
        return plan

    def update(self, result: TickResult) -> None:
        self.rows -= result.plan.finishing
        self._scheduler.update(result)

    def backlog(self) -> float:
        return self._scheduler.backlog()


@pytest.mark.parametrize("name", [*CONTINUOUS, "off"])
def test_a_replica_is_busy_whenever_somebody_waits(name: str) -> None:
    costs = Costs(QWEN)
    watched = Watched(create_scheduler(name, costs))
    simulation = simulate(some_jobs(load=0.6), [watched], create_router("round-robin"), costs)
    [statistics] = simulation.statistics
    assert watched.ticks == sum(statistics.ticks.values())
    # And the clock runs on from tick to tick: busy time is all between arrivals and finishes.
    busy, free_at = 0.0, 0.0
    for start, end in _busy_periods(simulation.outcomes):
        assert start >= free_at
        busy, free_at = busy + end - start, end
    assert statistics.busy_s == pytest.approx(busy)


def _busy_periods(outcomes: Iterable[Outcome]) -> list[tuple[float, float]]:
    """From when to when anybody was there."""
    periods: list[tuple[float, float]] = []
    for outcome in outcomes:
        if periods and outcome.job.arrival_s <= periods[-1][1]:
            start, end = periods[-1]
            periods[-1] = (start, max(end, outcome.finish_s))
        else:
            periods.append((outcome.job.arrival_s, outcome.finish_s))
    return periods


def test_off_is_a_queue_of_one_server() -> None:
    """Lindley 1952: each waits until whoever came before is done."""
    jobs = [
        a_job(0.0, steps=10),
        a_job(3.0, steps=4, side=128),
        a_job(3.5, steps=2),
        a_job(100.0, steps=5),
        a_job(100.0, steps=5),
    ]
    # Encode 0.5, decode 1; a step is 1 at 64 pixels and 3 at 128.
    services = [0.5 + 10 + 1, 0.5 + 4 * 3 + 1, 0.5 + 2 + 1, 0.5 + 5 + 1, 0.5 + 5 + 1]
    free_at, expected = 0.0, []
    for job, service in zip(jobs, services, strict=True):
        start = max(job.arrival_s, free_at)
        free_at = start + service
        expected.append((start, free_at, service))
    outcomes = run(jobs, "off").outcomes
    assert [(o.start_s, o.finish_s, o.alone_s) for o in outcomes] == [
        pytest.approx(one) for one in expected
    ]


def test_a_tick_encodes_those_who_join_and_its_finished_rows_are_decoded_after_it() -> None:
    # A step of one row is 1 s, of two 1.2 s.
    simulation = run([a_job(0.0, steps=3), a_job(0.7, steps=2)])
    [first, second] = simulation.outcomes
    # [0, 1.5] one row; [1.5, 3.2] both; [3.2, 4.4] both, and both end; two decodes.
    assert (first.start_s, second.start_s) == (0.0, pytest.approx(1.5))
    assert [first.finish_s, second.finish_s] == [pytest.approx(6.4), pytest.approx(6.4)]
    [statistics] = simulation.statistics
    assert statistics.ticks == {1: 1, 2: 2}
    assert statistics.busy_s == pytest.approx(6.4)


def test_dynamic_wakes_up_when_the_delay_has_passed() -> None:
    [first, second] = run([a_job(1.0, steps=2), a_job(1.04, steps=2)], "dynamic").outcomes
    assert (first.start_s, second.start_s) == (pytest.approx(1.05), pytest.approx(1.05))


def test_everybody_of_one_instant_is_in_the_first_tick() -> None:
    simulation = run([a_job(5.0, steps=1) for _ in range(3)])
    assert simulation.statistics[0].ticks == {3: 1}


def test_a_job_of_several_rows_is_done_when_the_last_of_them_is() -> None:
    [outcome] = run([a_job(0.0, steps=2, n=2)]).outcomes
    assert outcome.finish_s == outcome.alone_s == pytest.approx(2 * 0.5 + 2 * 1.2 + 2 * 1.0)


# ---------------------------------------------------------------------- sources and routers


def test_a_closed_loop_has_no_more_in_flight_than_clients() -> None:
    source = ClosedLoop(MIXES["A"], requests=60, clients=5, think_s=2.0, seed=3)
    costs, router = Costs(QWEN), create_router("round-robin")
    simulation = simulate(source, [create_scheduler("balanced", costs)], router, costs)
    assert len(simulation.outcomes) == 60
    events = [(o.job.arrival_s, 1) for o in simulation.outcomes]
    events += [(o.finish_s, -1) for o in simulation.outcomes]
    in_flight = most = 0
    for _, change in sorted(events):
        in_flight += change
        most = max(most, in_flight)
    assert most == 5


@pytest.mark.parametrize("router", ROUTER_NAMES)
def test_routers_spread_equal_jobs(router: str) -> None:
    jobs = [a_job(0.0, steps=4) for _ in range(9)]
    replicas = [o.replica for o in run(jobs, replicas=3, router=router).outcomes]
    if router == "two-choices":
        assert set(replicas) == {0, 1, 2}
    else:
        assert sorted(replicas) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_the_least_backlog_is_not_the_fewest_requests() -> None:
    jobs = [
        *(a_job(0.0, steps=steps) for steps in (100, 100)),
        *(a_job(number / 10, steps=1) for number in range(1, 4)),
    ]
    outcomes = run(jobs, replicas=2, router="least-backlog").outcomes
    assert {o.replica for o in outcomes[:2]} == {0, 1}
    long = [a_job(0.0, steps=100), a_job(0.1, steps=1), a_job(0.2, steps=1)]
    outcomes = run(long, replicas=2, router="least-backlog").outcomes
    assert outcomes[1].replica == outcomes[2].replica != outcomes[0].replica


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="policy is 'x'; it must be one of balanced"):
        create_scheduler("x", Costs(TABLE))
    with pytest.raises(ConfigurationError, match="router is 'x'; it must be one of round-robin"):
        create_router("x")


# ---------------------------------------------------------------------- ids mean nothing


@pytest.mark.parametrize("name", CONTESTANT_NAMES)
def test_a_plan_does_not_depend_on_what_requests_are_called(name: str) -> None:
    costs = Costs(QWEN)
    jobs = some_jobs(30, load=2.0)
    names = [f"{value:x}" for value in random.Random(7).sample(range(10**9), len(jobs))]
    ours, theirs = create_scheduler(name, costs), create_scheduler(name, costs)
    translation = {str(number): other for number, other in enumerate(names)}
    now, waiting = 0.0, list(enumerate(jobs))
    while True:
        while waiting and waiting[0][1].arrival_s <= now:
            number, job = waiting.pop(0)
            ours.submit(create_rows(job, str(number)))
            theirs.submit(create_rows(job, names[number]))
        plan, other = ours.plan(now), theirs.plan(now)
        renamed = [RowId(translation[row.request_id], row.image) for row in plan.running]
        assert (plan.key, plan.steps, renamed) == (other.key, other.steps, list(other.running))
        if plan.key is None and not waiting:
            return
        ours.update(TickResult(plan=plan, seconds=0.3))
        theirs.update(TickResult(plan=other, seconds=0.3))
        now += 0.3


def test_the_truth_does_not_change() -> None:
    costs = Costs(QWEN)
    before = {shape: dict(costs.step(shape).points) for shape in costs.shapes}
    simulate(some_jobs(20), [Scheduler(costs=deepcopy(costs))], create_router("round-robin"), costs)
    assert {shape: dict(costs.step(shape).points) for shape in costs.shapes} == before
