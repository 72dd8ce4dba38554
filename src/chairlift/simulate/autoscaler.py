"""The autoscaler of a simulated fleet. As a cluster does, it asks
:mod:`chairlift.cluster.autoscaling`.
"""

from __future__ import annotations

import math

from chairlift.cluster.autoscaling import AutoscalingOptions, Memory, Observation, decide, hold


class Autoscaler:
    """Remembers from one decision to the next.

    Args:
        options: Bounds, delays, and the target in seconds.
        target_requests: Where it looks at requests and not at seconds, as Ray Serve does by
            itself: so many for each replica.
    """

    def __init__(self, options: AutoscalingOptions, target_requests: float | None = None) -> None:
        self._options = options
        self._target_requests = target_requests
        self._memory = Memory()

    def __call__(self, observation: Observation, requests: int) -> int:
        """How many replicas there should be; ``requests`` are all that are accepted."""
        if self._target_requests is None:
            target, self._memory = decide(self._options, self._memory, observation)
        else:
            wanted = math.ceil(requests / self._target_requests)
            target, self._memory = hold(self._options, self._memory, observation, wanted)
        return target
