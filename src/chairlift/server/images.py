"""``POST /v1/images/generations``."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from chairlift.engine.messages import Finished
from chairlift.errors import QueueFull, RequestCancelled, RequestError, UnknownModel
from chairlift.request import GenerationRequest
from chairlift.server.schema import ImageData, ImageGenerationBody, ImagesAnswer
from chairlift.server.state import ServerState, state_of

MAX_RETRY_SECONDS = 120

router = APIRouter()


@router.post("/v1/images/generations", tags=["images"])
async def generate_images(body: ImageGenerationBody, request: Request) -> Response:
    """Generate pictures and wait for them."""
    state = state_of(request)
    generation = _admit(state, body)
    answer = state.client.submit(generation)
    try:
        finished = await _unless_disconnected(request, answer)
    except RequestError as error:
        state.metrics.observe_failed(error)
        raise
    state.metrics.observe_finished(finished.timings, generation.n)
    result = ImagesAnswer(
        created=int(time.time()),
        data=[
            ImageData(b64_json=image, seed=seed)
            for image, seed in zip(finished.images, generation.seeds, strict=True)
        ],
        size=f"{generation.width}x{generation.height}",
        output_format=generation.output_format,
        timings=finished.timings,
        warnings=[*body.warnings(), *generation.warnings],
    )
    eta = {"X-Chairlift-Eta": f"{finished.eta_s:.3f}"}
    return Response(msgspec.json.encode(result), media_type="application/json", headers=eta)


def _admit(state: ServerState, body: ImageGenerationBody) -> GenerationRequest:
    """The request, if it is valid and there is room for it."""
    card = state.client.card
    if body.model not in (None, card.id):
        raise UnknownModel(
            f"model is {body.model!r}; the model that is served is {card.id!r}", param="model"
        )
    generation = body.to_request(card, id=uuid.uuid4().hex)
    pending = state.client.pending_rows
    if pending + generation.n > state.max_queue:
        wait = math.ceil(state.client.activity.backlog_seconds)
        raise QueueFull(
            f"{pending} pictures are accepted and not done, of at most {state.max_queue}",
            retry_after=max(1, min(MAX_RETRY_SECONDS, wait)),
        )
    return generation


async def _unless_disconnected(request: Request, answer: asyncio.Future[Finished]) -> Finished:
    """Wait for the answer, but cancel it when the caller goes away.

    Raises:
        RequestCancelled: The caller has gone.
    """
    gone = asyncio.ensure_future(_disconnection(request))
    either: set[asyncio.Future[Any]] = {answer, gone}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise RequestCancelled("the caller has gone away")
        return answer.result()
    finally:
        answer.cancel()
        gone.cancel()


async def _disconnection(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
