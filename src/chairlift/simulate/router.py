"""Routers: which replica a job goes to. The choice itself is made by the functions of
:mod:`chairlift.scheduling.routing`, as in a real front end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random

import numpy as np

from chairlift.errors import ConfigurationError
from chairlift.scheduling.costs import Shape
from chairlift.scheduling.routing import (
    Place,
    RoundRobin,
    Traits,
    choose_fewest,
    choose_place,
    two_choices,
)
from chairlift.simulate.board import Board
from chairlift.simulate.names import ROUTER_NAMES

Router = Callable[[Board, Shape, float], int]
"""The replicas that take requests, a job's shape and the time to a seat; one must be taken."""


def create_router(name: str, seed: int = 0) -> Router:
    """A router by its name.

    Raises:
        ConfigurationError: There is no such router.
    """
    match name:
        case "round-robin":
            return _round_robin()
        case "least-requests":
            return lambda board, shape, now: choose_fewest(board.requests.tolist())
        case "two-choices":
            return _two_choices(Random(seed))
        case "least-backlog":
            return least_backlog
    raise ConfigurationError(f"router is {name!r}; it must be one of {', '.join(ROUTER_NAMES)}")


def _round_robin() -> Router:
    turn = RoundRobin()
    return lambda board, shape, now: board.seats[turn(len(board))]


def _two_choices(random: Random) -> Router:
    """The one of two that has fewer requests, which is what Ray Serve does."""

    def choose(board: Board, shape: Shape, now: float) -> int:
        seats = [board.seats[place] for place in two_choices(len(board), random)]
        return seats[choose_fewest([int(board.requests[seat]) for seat in seats])]

    return choose


def least_backlog(board: Board, shape: Shape, now: float) -> int:
    """The least predicted backlog, and among nearly equal ones where jobs of this shape are.

    Only shapes differ here, so :func:`choose_place` would find among all places either the least
    of all or the least that has the shape; it is shown these two.
    """
    backlogs = board.backlogs(now)
    having = board.having(shape)
    seats = sorted({int(backlogs.argmin()), int(np.where(having, backlogs, np.inf).argmin())})
    seats = [seat for seat in seats if backlogs[seat] < np.inf]
    places = [
        Place(float(backlogs[seat]), frozenset([shape]) if having[seat] else frozenset())
        for seat in seats
    ]
    return seats[choose_place(places, _traits(shape))]


@cache
def _traits(shape: Shape) -> Traits:
    return Traits(shape, frozenset(), "")
