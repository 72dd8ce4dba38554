"""What routers see, and that they choose as the real ones do."""

from __future__ import annotations

import random

import pytest

from chairlift.scheduling.costs import Costs, Shape
from chairlift.scheduling.routing import Place, Traits, choose_place
from chairlift.simulate.board import FIRST_SIZE, Board
from chairlift.simulate.contestant import create_scheduler
from chairlift.simulate.names import ROUTER_NAMES
from chairlift.simulate.replica import Entry, Replica
from chairlift.simulate.router import create_router, least_backlog
from chairlift.simulate.truth import Truth
from tests.simulate.builders import TABLE, a_job

COSTS = Costs(TABLE)
SIDES = (64, 128)


def a_replica(number: int) -> Replica:
    return Replica(number, create_scheduler("fcfs", COSTS), Truth(COSTS))


def submit(board: Board, replica: Replica, number: int, side: int, steps: int) -> None:
    job = a_job(0.0, side=side, steps=steps)
    replica.submit(Entry(number, job, job.shape), 0.0)
    board.submitted(replica, job.shape)


@pytest.mark.parametrize("seed", range(20))
def test_the_least_backlog_is_what_the_real_router_finds_among_all_places(seed: int) -> None:
    draw = random.Random(seed)
    board, replicas = Board(), [a_replica(number) for number in range(12)]
    for replica in replicas:
        board.add(replica)
    for number in range(30):
        submit(board, draw.choice(replicas[1:]), number, draw.choice(SIDES), draw.randint(18, 22))
    for gone in draw.sample(replicas, 4):
        board.remove(gone)
    backlogs = board.backlogs(0.0)
    for side in SIDES:
        shape = Shape(side, side)
        places = [
            Place(
                float(backlogs[seat]),
                frozenset(Shape(one, one) for one in SIDES if board.having(Shape(one, one))[seat]),
            )
            for seat in board.seats
        ]
        expected = board.seats[choose_place(places, Traits(shape, frozenset(), ""))]
        assert least_backlog(board, shape, 0.0) == expected


@pytest.mark.parametrize("name", ROUTER_NAMES)
def test_no_router_chooses_a_seat_that_is_empty(name: str) -> None:
    board, router = Board(), create_router(name, 1)
    replicas = [a_replica(number) for number in range(4)]
    for replica in replicas:
        board.add(replica)
    for number in range(40):
        submit(board, replicas[3], number, 64, 5)
    for replica in replicas[:3]:
        board.remove(replica)
    assert [router(board, Shape(64, 64), 0.0) for _ in range(5)] == [3] * 5


def test_a_board_grows_and_its_seats_are_used_again() -> None:
    board = Board()
    replicas = [a_replica(number) for number in range(FIRST_SIZE + 2)]
    for replica in replicas:
        board.add(replica)
    submit(board, replicas[-1], 0, 64, 5)
    assert board.backlogs(0.0)[FIRST_SIZE + 1] > 0
    board.remove(replicas[3])
    newcomer = a_replica(1000)
    board.add(newcomer)
    assert (board[3], len(board)) == (newcomer, FIRST_SIZE + 2)
    assert board.requests[3] == 0


def test_a_backlog_runs_down_with_the_clock() -> None:
    board, replica = Board(), a_replica(0)
    board.add(replica)
    submit(board, replica, 0, 64, 10)
    total = 0.5 + 10 + 1.0
    assert board.backlogs(0.0)[0] == pytest.approx(total)
    assert board.backlogs(4.0)[0] == pytest.approx(total - 4)
    assert board.backlogs(50.0)[0] == 0.0
