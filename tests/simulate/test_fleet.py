"""Replicas that come and go: nothing is lost, and delays and bounds are kept."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chairlift.cluster.autoscaling import AutoscalingOptions
from chairlift.errors import ConfigurationError
from chairlift.scheduling.costs import Costs
from chairlift.simulate.arrivals import create_source
from chairlift.simulate.contestant import create_scheduler
from chairlift.simulate.names import ROUTER_NAMES
from chairlift.simulate.replica import Schedules
from chairlift.simulate.router import create_router
from chairlift.simulate.scenario import Scenario, read_scenario
from chairlift.simulate.simulation import Simulation, simulate_fleet
from chairlift.simulate.workload import MIXES, Job, capacity
from tests.simulate.builders import QWEN, TABLE, a_job

SCALING = AutoscalingOptions(
    min_replicas=1, max_replicas=4, target_seconds=10, scale_out_delay_s=5, scale_in_delay_s=60
)


def run(
    jobs: list[Job], scenario: Scenario, router: str = "least-backlog", table: Any = TABLE
) -> Simulation:
    costs = Costs(table)
    create = partial(create_scheduler, "balanced", costs)
    return simulate_fleet(jobs, scenario, create, create_router(router, 1), costs, seed=1)


def qwen_jobs(count: int, replicas: int, load: float, arrivals: str = "poisson") -> list[Job]:
    rate = load * replicas * capacity(Costs(QWEN), MIXES["qwen"])
    source = create_source(arrivals, MIXES["qwen"], rate, count, 1)
    return [source.pop() for _ in range(count)]


# ---------------------------------------------------------------------- stretches


class TickByTick:
    """A scheduler that is asked at every tick."""

    def __init__(self, scheduler: Schedules) -> None:
        self.submit, self.backlog = scheduler.submit, scheduler.backlog
        self.plan, self.update = scheduler.plan, scheduler.update


jobs_of_a_moment = st.lists(
    st.builds(
        a_job,
        # Several may come at an instant, but at none at which a tick ends.
        st.integers(0, 60).map(lambda moment: moment * math.pi / 6),
        side=st.sampled_from([512, 1024]),
        steps=st.integers(1, 30),
        n=st.integers(1, 3),
        priority=st.integers(-1, 1),
        caller=st.sampled_from(["a", "b"]),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(
    jobs=jobs_of_a_moment,
    policy=st.sampled_from(["balanced", "off", "dynamic", "srpt", "fair"]),
    failure_hours=st.sampled_from([None, 0.005]),
)
def test_stretches_change_nothing(
    jobs: list[Job], policy: str, failure_hours: float | None
) -> None:
    jobs.sort(key=lambda job: job.arrival_s)
    scenario = Scenario(start_up_s=1, failure_hours=failure_hours)
    costs, router = Costs(QWEN), create_router("round-robin")
    [whole, ticked] = (
        simulate_fleet(jobs, scenario, create, router, costs)
        for create in (
            lambda: create_scheduler(policy, costs),
            lambda: TickByTick(create_scheduler(policy, costs)),
        )
    )
    for one, other in zip(ticked.outcomes, whole.outcomes, strict=True):
        assert one.job == other.job
        assert (other.start_s, other.finish_s) == pytest.approx((one.start_s, one.finish_s))
    assert whole.replayed == ticked.replayed
    for ours, theirs in zip(whole.statistics, ticked.statistics, strict=True):
        assert ours.ticks == theirs.ticks
        assert ours.busy_s == pytest.approx(theirs.busy_s)


# ---------------------------------------------------------------------- failures and removals


@pytest.mark.parametrize("router", ROUTER_NAMES)
@pytest.mark.parametrize("trouble", ["failure_hours", "removal_hours"])
def test_nothing_is_lost_when_replicas_go(trouble: str, router: str) -> None:
    jobs = qwen_jobs(150, 3, 0.9)
    scenario = Scenario(replicas=3, start_up_s=20, notice_s=5, **{trouble: 0.03})
    simulation = run(jobs, scenario, router, QWEN)
    assert [outcome.job for outcome in simulation.outcomes] == jobs
    assert (simulation.lost, simulation.refused) == (0, 0)
    assert simulation.replayed > 10
    assert simulation.starts >= simulation.failures + simulation.removals - 1 > 5
    for outcome in simulation.outcomes:
        assert outcome.latency_s >= outcome.alone_s * (1 - 1e-9)
    assert run(jobs, scenario, router, QWEN) == simulation


def test_who_was_aboard_begins_again_elsewhere() -> None:
    """One replica dies at a moment that the seed says; another is ready a minute later."""
    scenario = Scenario(replicas=1, start_up_s=60, failure_hours=0.01)
    simulation = run([a_job(0.0, steps=30)], scenario)
    [outcome] = simulation.outcomes
    assert simulation.failures == simulation.replayed > 0
    assert outcome.start_s >= 60
    assert outcome.finish_s == pytest.approx(outcome.start_s + outcome.alone_s)


def test_a_notice_long_enough_plays_nothing_again() -> None:
    jobs = qwen_jobs(200, 3, 0.5)
    scenario = Scenario(replicas=3, start_up_s=20, notice_s=600, removal_hours=0.1)
    simulation = run(jobs, scenario, table=QWEN)
    assert simulation.removals > 5
    assert simulation.replayed == 0


# ---------------------------------------------------------------------- autoscaling


def scaling(start_up_s: float = 30.0, **other: Any) -> Scenario:
    values = {"autoscaling": SCALING, "replicas": 1, "evaluation_s": 5.0}
    return Scenario(start_up_s=start_up_s, **(values | other))


@pytest.mark.parametrize("target_requests", [None, 2.0])
def test_a_burst_brings_replicas_and_a_pause_takes_them_away(target_requests: float | None) -> None:
    jobs = [a_job(float(number), steps=20) for number in range(60)] + [a_job(1000.0)]
    simulation = run(jobs, scaling(target_requests=target_requests))
    counts = [sample.replicas for sample in simulation.samples]
    assert (counts[0], max(counts), counts[-1]) == (1, 4, 1)
    assert simulation.lost == 0
    assert len({outcome.replica for outcome in simulation.outcomes}) >= 4
    present = [statistics.present_s for statistics in simulation.statistics]
    assert len(present) == 1 + simulation.starts
    assert 1000 < sum(present) < 2500  # Four all the time would be 4000.


def test_a_new_replica_takes_requests_only_after_its_start_up() -> None:
    jobs = [a_job(float(number), steps=20) for number in range(60)]
    samples = run(jobs, scaling(start_up_s=40.0)).samples
    wanted = next(sample.now for sample in samples if sample.target > 1)
    there = next(sample.now for sample in samples if sample.replicas > 1)
    # The target of a sample is from one decision before it.
    assert there == wanted - 5.0 + 40.0


def test_from_zero_the_first_request_waits_for_its_replica() -> None:
    options = AutoscalingOptions(min_replicas=0, max_replicas=2, scale_in_delay_s=50)
    scenario = scaling(autoscaling=options, replicas=0)
    first, later = run([a_job(100.0), a_job(500.0)], scenario).outcomes
    # The autoscaler looks at everything from the first arrival on, every 5 s.
    assert first.start_s == pytest.approx(130.0)
    assert later.start_s == pytest.approx(530.0)


def test_who_waits_longer_than_the_bound_is_refused_and_the_others_are_served() -> None:
    options = AutoscalingOptions(min_replicas=0, max_replicas=1, max_wait_s=20)
    scenario = scaling(autoscaling=options, replicas=0)
    simulation = run([a_job(100.0), a_job(115.0)], scenario)
    assert (simulation.refused, simulation.lost) == (1, 0)
    assert [outcome.job.arrival_s for outcome in simulation.outcomes] == [115.0]


def test_an_accepted_job_is_never_refused() -> None:
    options = AutoscalingOptions(min_replicas=0, max_replicas=1, max_wait_s=35)
    scenario = scaling(autoscaling=options, replicas=0, failure_hours=0.01)
    simulation = run([a_job(0.0, steps=40)], scenario)
    assert simulation.failures > 0
    assert (len(simulation.outcomes), simulation.refused, simulation.lost) == (1, 0, 0)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(0, 300), min_size=1, max_size=25),
    st.integers(0, 2),
    st.sampled_from([None, 0.02]),
    st.sampled_from([None, 0.02]),
)
def test_every_job_is_served_or_refused_whatever_happens(
    arrivals: list[float], least: int, failure: float | None, removal: float | None
) -> None:
    options = AutoscalingOptions(
        min_replicas=least, max_replicas=3, scale_in_delay_s=20, max_wait_s=25
    )
    scenario = scaling(
        start_up_s=20.0,
        autoscaling=options,
        replicas=least,
        failure_hours=failure,
        removal_hours=removal,
        notice_s=5.0,
    )
    simulation = run([a_job(arrival) for arrival in sorted(arrivals)], scenario)
    assert simulation.lost == 0
    assert len(simulation.outcomes) + simulation.refused == len(arrivals)
    assert all(sample.replicas <= 3 for sample in simulation.samples)


# ---------------------------------------------------------------------- files


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_a_scenario_is_read_from_a_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "scenario",
        {"autoscaling": {"min_replicas": 2, "max_replicas": 9}, "failure_hours": 24, "notice_s": 9},
    )
    assert read_scenario(path) == Scenario(
        replicas=2,
        autoscaling=AutoscalingOptions(min_replicas=2, max_replicas=9),
        failure_hours=24,
        notice_s=9,
    )
    assert (read_scenario(path).most, Scenario(replicas=3).most) == (9, 3)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], r"\[\] is not a JSON object"),
        ({"replica": 1}, "there is no field 'replica'; the fields are"),
        ({"replicas": 1.5}, "replicas is 1.5; it must be a whole number"),
        ({"replicas": 0}, "replicas is 0; it must be 1 or more"),
        ({"replicas": None}, "replicas is None; it must be a whole number"),
        ({"replicas": True}, "replicas is True; it must be a whole number"),
        ({"start_up_s": "1"}, "start_up_s is '1'; it must be a number"),
        ({"start_up_s": -1}, "start_up_s is -1; it must be 0 or more"),
        ({"failure_hours": 0}, "failure_hours is 0; it must be above 0"),
        ({"evaluation_s": 0}, "evaluation_s is 0; it must be above 0"),
        ({"target_requests": 2}, "target_requests is for autoscaling, which is not given"),
        ({"autoscaling": 2}, "autoscaling is 2; it must be a JSON object"),
        ({"autoscaling": {"max_replicas": 0}}, "max_replicas is 0; it must be 1 or more"),
        ({"autoscaling": {"most": 0}}, "there is no field 'most'; the fields are"),
    ],
)
def test_a_wrong_scenario_is_refused(tmp_path: Path, value: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_scenario(write(tmp_path / "scenario", value))
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_scenario(tmp_path / "missing")
