"""How many replicas there should be, on a virtual clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chairlift.cluster.autoscaling import AutoscalingOptions, Memory, Observation, decide
from chairlift.errors import ConfigurationError

INTERVAL = 1.0
"""Seconds between two decisions."""
Load = Callable[[float, int], tuple[float, int]]
"""The time and the target to the backlog in seconds, and who waits."""


def some_options(**other: Any) -> AutoscalingOptions:
    values = {"min_replicas": 1, "max_replicas": 8, "target_seconds": 10.0}
    delays = {"scale_out_delay_s": 5.0, "scale_in_delay_s": 60.0}
    return AutoscalingOptions(**(values | delays | other))


def targets(
    options: AutoscalingOptions, load: Load, seconds: int, target: int = 1
) -> list[tuple[float, int]]:
    """The time and the target of every change."""
    memory, changes = Memory(), [(0.0, target)]
    for number in range(round(seconds / INTERVAL)):
        now = number * INTERVAL
        backlog, waiting = load(now, target)
        seen = Observation(now=now, target=target, backlog_seconds=backlog, waiting=waiting)
        wanted, memory = decide(options, memory, seen)
        if wanted != target:
            changes.append((now, wanted))
        target = wanted
    return changes


options = st.builds(
    lambda least, more, target, out, back: AutoscalingOptions(
        min_replicas=least,
        max_replicas=max(1, least + more),
        target_seconds=target,
        scale_out_delay_s=out,
        scale_in_delay_s=back,
    ),
    st.integers(0, 5),
    st.integers(0, 20),
    st.floats(0.5, 50),
    st.integers(0, 10).map(float),
    st.integers(0, 30).map(float),
)
backlogs = st.lists(st.floats(0, 500), min_size=1, max_size=120)


def replay(backlogs: list[float]) -> Load:
    return lambda now, target: (backlogs[int(now)], 0)


@given(options, backlogs, st.integers(0, 40))
def test_the_target_never_leaves_its_bounds(
    options: AutoscalingOptions, backlogs: list[float], start: int
) -> None:
    changes = targets(options, replay(backlogs), len(backlogs), start)
    for _, target in changes[1:]:
        assert options.min_replicas <= target <= options.max_replicas


@given(options, backlogs)
def test_a_change_was_wanted_without_a_break_for_the_whole_delay(
    options: AutoscalingOptions, backlogs: list[float]
) -> None:
    target = options.min_replicas
    for now, changed in targets(options, replay(backlogs), len(backlogs), target)[1:]:
        more = changed > target
        delay = options.scale_out_delay_s if more else options.scale_in_delay_s
        assert now >= delay
        for backlog in backlogs[int(now - delay) : int(now) + 1]:
            wanted = math.ceil(backlog / options.target_seconds)
            assert (wanted > target) if more else (wanted <= changed or changed == 0)
        target = changed


@given(options, backlogs)
def test_two_changes_are_never_closer_than_the_delay_of_the_second(
    options: AutoscalingOptions, backlogs: list[float]
) -> None:
    changes = targets(options, replay(backlogs), len(backlogs), options.min_replicas)
    # The first entry is where it began, which was no change.
    for (before, old), (after, new) in pairwise(changes[1:]):
        delay = options.scale_out_delay_s if new > old else options.scale_in_delay_s
        assert after - before >= delay


@given(options, st.floats(0, 500), st.integers(0, 25))
def test_under_a_constant_load_it_reaches_what_is_wanted_and_stays(
    options: AutoscalingOptions, backlog: float, start: int
) -> None:
    wanted = math.ceil(backlog / options.target_seconds)
    expected = min(max(wanted, options.min_replicas), options.max_replicas)
    changes = targets(options, lambda now, target: (backlog, 0), 50, start)
    assert changes[-1][1] == expected
    assert len(changes) <= 3  # Into the bounds at once, and then in one go.


def test_more_replicas_are_what_is_wanted_once_the_delay_is_over() -> None:
    assert targets(some_options(), lambda now, target: (10 * (2 + now), 0), 6) == [
        (0, 1),
        (5, 7),
    ]


def test_a_spike_shorter_than_the_delay_changes_nothing() -> None:
    assert len(targets(some_options(), lambda now, target: (80.0 if now % 5 else 0.0, 0), 60)) == 1


def test_fewer_replicas_are_the_most_that_was_wanted_during_the_delay() -> None:
    load: Load = lambda now, target: (40.0 if now == 30 else 5.0, 0)  # noqa: E731
    assert targets(some_options(), load, 150, target=6) == [(0, 6), (60, 4), (121, 1)]


def test_the_last_replica_goes_only_where_none_is_allowed_to_be_there() -> None:
    idle: Load = lambda now, target: (0.0, 0)  # noqa: E731
    assert targets(some_options(), idle, 100) == [(0, 1)]
    assert targets(some_options(min_replicas=0), idle, 100) == [(0, 1), (60, 0)]


def test_the_first_request_starts_a_replica_without_a_delay_and_keeps_it() -> None:
    load: Load = lambda now, target: (0.0, int(10 <= now < 80))  # noqa: E731
    changes = targets(some_options(min_replicas=0), load, 200, target=0)
    assert changes == [(0, 0), (10, 1), (140, 0)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_replicas": -1}, "min_replicas is -1; it must be 0 or more"),
        ({"max_replicas": 0, "min_replicas": 0}, "max_replicas is 0; it must be 1 or more"),
        ({"max_replicas": 2, "min_replicas": 3}, "max_replicas is 2; it must be 3 or more"),
        ({"target_seconds": 0}, "target_seconds is 0; it must be above 0"),
        ({"target_seconds": math.nan}, "target_seconds is nan; it must be above 0"),
        ({"scale_out_delay_s": -1}, "scale_out_delay_s is -1; it must be 0 or more"),
        ({"scale_in_delay_s": math.inf}, "scale_in_delay_s is inf; it must be 0 or more"),
        ({"max_wait_s": -0.5}, r"max_wait_s is -0.5; it must be 0 or more"),
    ],
)
def test_a_wrong_value_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        some_options(**values)
