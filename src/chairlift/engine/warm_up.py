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


def warm_up(adapter: Adapter, costs: Costs, small: bool = True) -> None:
    """Take two steps of a row, and tell ``costs`` of the second. A model that can't take them is
    left to its requests, which say more of it.

    Args:
        adapter: The model.
        costs: Are refined.
        small: Whether the row may be smaller than the model's own size, for which alone a denoiser
            may be compiled.
    """
    request = _request(adapter, SIDE if small else None)
    runner, id = Runner(adapter), RowId(request.id, 0)
    key = runner.legs(request)[0].key
    for joining in ((id,), ()):
        result = runner.run(Plan(key=key, joining=joining, running=(id,)), {request.id: request})
        result.wait()
        for error in result.failed.values():
            logger.warning("the first step failed: %s", error.message)
            return
    costs.step(Shape.of(request)).observe(result.entries, result.seconds - result.encode_seconds)


def _request(adapter: Adapter, side: int | None) -> GenerationRequest:
    """One of the model's own size, or of about ``side`` pixels and few frames if that is less."""
    defaults, limits = adapter.card.defaults, adapter.card.limits
    width, height, frames = defaults.width, defaults.height, defaults.frames
    if side is not None:
        most = math.ceil(side / limits.size_multiple) * limits.size_multiple
        width, height = min(width, most), min(height, most)
        frames = min(frames, 1 + limits.frame_multiple)
    return create_request(
        adapter.card,
        id="first",
        prompt="a chairlift",
        width=width,
        height=height,
        frames=frames,
        seed=0,
    )
