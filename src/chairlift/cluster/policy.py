"""The autoscaling policy as Ray Serve calls it: what its controller knows, and what is decided."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from chairlift.cluster.autoscaling import AutoscalingOptions, Memory, Observation, decide

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

BACKLOG = "backlog_seconds"


class BacklogPolicy:
    """Replicas enough for the predicted seconds of work. Made once, in Serve's controller.

    Args:
        **options: Of :class:`~chairlift.cluster.autoscaling.AutoscalingOptions`.
    """

    def __init__(self, **options: Any) -> None:
        self._options = msgspec.convert(options, AutoscalingOptions)
        self._memory = Memory()

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        target, self._memory = decide(self._options, self._memory, observe(context))
        return target, {}


def observe(context: AutoscalingContext) -> Observation:
    """What the controller sees now. The backlog of a replica that has said nothing yet is 0."""
    told = (context.raw_metrics or {}).get(BACKLOG, {})
    latest = [points[-1].value for points in told.values() if points]
    return Observation(
        now=context.current_time or 0.0,
        target=context.target_num_replicas,
        backlog_seconds=sum(latest),
        waiting=math.ceil(context.total_queued_requests),
    )
