"""The first picture, before anybody waits for one.

Kernels are loaded and memory is set up for it, and of what it took the costs of all other sizes are
guessed, so that the first predictions aren't made of nothing.
"""

from __future__ import annotations

import logging
import math

import torch

from chairlift.engine.decoder import Decoder
from chairlift.engine.runner import Runner
from chairlift.errors import RequestError
from chairlift.models.adapter import Adapter
from chairlift.request import GenerationRequest, RowId
from chairlift.scheduling.costs import Costs, Shape
from chairlift.scheduling.plan import Plan
from chairlift.validation import create_request

logger = logging.getLogger(__name__)

SIDE = 256
"""Pixels, where the model's own size is larger: on a CPU a large step takes minutes."""


def warm_up(adapter: Adapter, costs: Costs, small: bool = True) -> None:
    """Take two steps of a row and decode it, and tell ``costs`` of the second step and of the rest.
    A model that can't is left to its requests, which say more of it.

    Args:
        adapter: The model.
        costs: Are refined.
        small: Whether the row may be smaller than the model's own size, for which alone a denoiser
            may be compiled.
    """
    request = _request(adapter, SIDE if small else None)
    try:
        _take_two_steps(adapter, costs, request)
    except (RequestError, torch.OutOfMemoryError) as error:
        logger.warning("the first picture could not be made: %s", error)


def _take_two_steps(adapter: Adapter, costs: Costs, request: GenerationRequest) -> None:
    runner, decoder = Runner(adapter), Decoder(adapter)
    requests, row, shape = {request.id: request}, RowId(request.id, 0), Shape.of(request)
    key = runner.legs(request)[0].key
    first = Plan(key=key, joining=(row,), running=(row,))
    second = Plan(key=key, running=(row,), finishing=frozenset({row}))
    costs.observe_encode(shape, runner.run_to_end(first, requests).encode_seconds)
    result = runner.run_to_end(second, requests)
    costs.step(shape).observe(result.entries, result.seconds - result.encode_seconds)
    decoder.submit(row, result.finished[row])
    [decoded] = decoder.run(wait=False) or decoder.run(wait=True)
    if isinstance(decoded.outcome, RequestError):
        raise decoded.outcome
    costs.observe_decode(shape, decoded.seconds)


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
