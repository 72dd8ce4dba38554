"""What Serve's controller is told, and what it is given to see."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from chairlift.cluster.policy import BACKLOG, BacklogPolicy
from chairlift.errors import ConfigurationError


def context(
    backlogs: list[list[float]], *, target: int, now: float = 0.0, queued: float = 0.0
) -> Any:
    """As the controller makes it: of every replica what it has told, the latest last."""
    series = {
        f"replica {index}": [SimpleNamespace(value=value) for value in values]
        for index, values in enumerate(backlogs)
    }
    return SimpleNamespace(
        raw_metrics={BACKLOG: series} if series else {},
        target_num_replicas=target,
        total_queued_requests=queued,
        current_time=now,
    )


def create_policy(**options: Any) -> BacklogPolicy:
    wanted = {"min_replicas": 0, "max_replicas": 8, "target_seconds": 5.0}
    return BacklogPolicy(**wanted | {"scale_out_delay_s": 2.0, "scale_in_delay_s": 10.0} | options)


def test_replicas_are_wanted_for_the_latest_backlogs_after_the_delay() -> None:
    policy = create_policy()
    backlogs = [[99.0, 9.0], [1.0, 9.0]]
    assert policy(context(backlogs, target=2, now=0.0)) == (2, {})
    assert policy(context(backlogs, target=2, now=1.9)) == (2, {})
    assert policy(context(backlogs, target=2, now=2.0)) == (4, {})


def test_fewer_are_wanted_only_after_their_own_delay() -> None:
    policy = create_policy()
    idle = [[0.0], [1.0]]
    assert policy(context(idle, target=2, now=0.0)) == (2, {})
    assert policy(context(idle, target=2, now=10.0)) == (1, {})


def test_the_first_one_comes_at_once_for_who_waits() -> None:
    assert create_policy()(context([], target=0, queued=0.2)) == (1, {})


def test_replicas_that_have_told_nothing_yet_have_no_backlog() -> None:
    assert create_policy()(context([[], [3.0]], target=2)) == (2, {})


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="max_replicas is 1; it must be 2 or more"):
        create_policy(min_replicas=2, max_replicas=1)
