"""Step-level batching as peers do it."""

from __future__ import annotations

import pytest

from chairlift.scheduling.costs import Costs
from chairlift.scheduling.plan import TickResult
from chairlift.simulate.contestant import create_scheduler
from chairlift.simulate.peers import PeerScheduler
from chairlift.simulate.replica import create_rows
from chairlift.simulate.router import create_router
from chairlift.simulate.simulation import simulate
from tests.simulate.builders import TABLE, a_job


def test_peers_block_everybody_behind_a_head_of_another_shape() -> None:
    jobs = [
        a_job(0.0, steps=10),
        a_job(0.1, steps=1, side=128),
        a_job(0.2, steps=1),
    ]
    costs, router = Costs(TABLE), create_router("round-robin")
    peers, ours = (
        simulate(jobs, [create_scheduler(name, costs)], router, costs).outcomes
        for name in ("peers", "fcfs")
    )
    first, odd, last = peers
    assert odd.start_s == first.finish_s
    assert last.start_s == odd.finish_s
    assert ours[2].start_s < ours[0].finish_s


def test_peers_join_a_running_batch_as_far_as_there_is_room() -> None:
    scheduler = PeerScheduler(max_batch_size=2)
    for number, steps in enumerate([3, 1, 1]):
        scheduler.submit(create_rows(a_job(0.0, steps=steps), str(number)))
    running = []
    while (plan := scheduler.plan(0.0)).key is not None:
        running.append([row.request_id for row in plan.running])
        scheduler.update(TickResult(plan=plan))
    assert running == [["0", "1"], ["0", "2"], ["0"]]
    assert scheduler.backlog() == 0


def test_the_backlog_of_peers_is_what_is_left() -> None:
    scheduler = PeerScheduler(costs=Costs(TABLE))
    scheduler.submit(create_rows(a_job(0.0, steps=3), "a"))
    assert scheduler.backlog() == pytest.approx(3 + 1)
    scheduler.update(TickResult(plan=scheduler.plan(0.0)))
    assert scheduler.backlog() == pytest.approx(2 + 1)
