"""The first step, before anybody waits for it.

Kernels are loaded and memory is set up in it, and of what it took the costs of all other sizes are
guessed, so that the first predictions aren't made of nothing.
"""

from __future__ import annotations

import logging
import math

from chairlift.engine.runner import Runner
from chairlift.models.adapter import Adapter
from chairlift.request import GenerationRequest, RowId
from chairlift.scheduling.costs import Costs, Shape
from chairlift.scheduling.plan import Plan
from chairlift.validation import create_request

logger = logging.getLogger(__name__)

SIDE = 256
"""Pixels, where the model's own size is larger: on a CPU a large step takes minutes."""


def warm_up(adapter: Adapter, costs: Costs) -> None:
    """Take two steps of a small row, and tell ``costs`` of the second. A model that can't take them
    is left to its requests, which say more of it.
    """
    request = _small_request(adapter)
    runner, id = Runner(adapter), RowId(request.id, 0)
    key = runner.legs(request)[0].key
    for joining in ((id,), ()):
        result = runner.run(Plan(key=key, joining=joining, running=(id,)), {request.id: request})
        result.wait()
        for error in result.failed.values():
            logger.warning("the first step failed: %s", error.message)
            return
    shape = Shape(request.width, request.height, request.frames)
    costs.step(shape).observe(result.entries, result.seconds - result.encode_seconds)


def _small_request(adapter: Adapter) -> GenerationRequest:
    defaults, limits = adapter.card.defaults, adapter.card.limits
    small = math.ceil(SIDE / limits.size_multiple) * limits.size_multiple
    return create_request(
        adapter.card,
        id="first",
        prompt="a chairlift",
        width=min(defaults.width, small),
        height=min(defaults.height, small),
        frames=min(defaults.frames, 1 + limits.frame_multiple),
        seed=0,
    )
