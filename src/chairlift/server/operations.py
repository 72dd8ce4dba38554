"""What operators and their tools ask: models, health, metrics, and who is on the lift."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from itertools import islice
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

import chairlift
from chairlift.card import ModelCard
from chairlift.engine.client import EngineClient
from chairlift.engine.messages import Activity
from chairlift.errors import InvalidRequest, StorageFailed, Unavailable, UnknownRequest
from chairlift.request import IMAGE_FORMATS, VIDEO_FORMATS
from chairlift.scheduling.names import POLICY_NAMES
from chairlift.server.events import Outbox, event_stream, format_event
from chairlift.server.openapi import errors, events_of, reference
from chairlift.server.schema import LiftReport, Queued
from chairlift.server.state import state_of
from chairlift.validation import MAX_IMAGES

logger = logging.getLogger(__name__)

SHOWN_IN_QUEUE = 50
"""The most waiting requests that the lift names."""

router = APIRouter(tags=["operations"])

_MODEL = {
    "type": "object",
    "required": ["object", "created", "owned_by", "parameters", "limits", "output_formats"],
    "properties": {
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"const": "chairlift"},
        "parameters": {"type": "integer"},
        "limits": {
            "type": "object",
            "required": ["max_images"],
            "properties": {"max_images": {"type": "integer"}},
        },
        "output_formats": {"type": "array", "items": {"type": "string"}},
    },
}
"""What an entry of the list has beside the card."""
_MODELS = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {
        "object": {"const": "list"},
        "data": {"type": "array", "items": {"allOf": [reference(ModelCard), _MODEL]}},
    },
}


@router.get(
    "/v1/models",
    response_model=None,
    responses={
        200: {"content": {"application/json": {"schema": _MODELS}}},
        **errors(Unavailable),
    },
)
async def list_models(request: Request) -> dict[str, Any]:
    """The served model, with its defaults, limits and samplers."""
    card = state_of(request).client.card
    model = {"object": "model", "created": 0, "owned_by": "chairlift"}
    entry = model | {"parameters": card.parameters} | msgspec.to_builtins(card)
    entry["limits"] |= {"max_images": MAX_IMAGES}
    entry["output_formats"] = VIDEO_FORMATS if card.is_video else IMAGE_FORMATS
    return {"object": "list", "data": [entry]}


class PolicyBody(BaseModel):
    """In which order requests are served."""

    model_config = ConfigDict(extra="forbid", strict=True)

    policy: str = Field(json_schema_extra={"enum": list(POLICY_NAMES)})


@router.get("/v1/policy")
async def get_policy(request: Request) -> PolicyBody:
    """The policy in force."""
    return PolicyBody(policy=state_of(request).client.policy)


@router.put("/v1/policy", responses=errors(InvalidRequest))
async def set_policy(body: PolicyBody, request: Request) -> PolicyBody:
    """Serve in another order from the next tick on."""
    if body.policy not in POLICY_NAMES:
        raise InvalidRequest(
            f"policy is {body.policy!r}; it must be one of {', '.join(POLICY_NAMES)}",
            param="policy",
        )
    state_of(request).client.set_policy(body.policy)
    return body


class Health(BaseModel):
    """The server is alive."""

    status: Literal["ok"] = "ok"


@router.get("/health", responses=errors(Unavailable))
async def health(request: Request) -> Health:
    """Whether the server is alive, and its engine can be started."""
    if state_of(request).client.failure is not None:
        raise Unavailable("the engine can't be started again; the server's log says why")
    return Health()


class Readiness(BaseModel):
    """The engine takes work."""

    status: Literal["ready"] = "ready"


@router.get("/ready", responses=errors(Unavailable))
async def ready(request: Request) -> Readiness:
    """Whether the engine takes work now."""
    client = state_of(request).client
    if not client.takes_requests:
        raise Unavailable("the server is shutting down")
    if not client.is_ready:
        raise Unavailable("the engine is starting", retry_after=1)
    return Readiness()


class Version(BaseModel):
    """Which Chairlift this is."""

    version: str


@router.get("/version")
async def version() -> Version:
    """The version of Chairlift."""
    return Version(version=chairlift.__version__)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    state = state_of(request)
    try:
        state.metrics.observe_jobs(await state.jobs.statistics())
    except StorageFailed as error:
        logger.warning("%s; their metrics are old", error.message)
    text = generate_latest(state.metrics.registry)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get(
    "/v1/lift",
    response_class=Response,
    responses={200: {"content": events_of({"message": LiftReport})}},
)
async def watch_lift(request: Request) -> Response:
    """Server-sent events: every tick with the rows that ride in it, a few ticks an event. The
    stream ends with the server.
    """
    client, outbox = state_of(request).client, Outbox()

    def listener(activity: Activity) -> None:
        outbox.put(format_event(_look(client, activity)), missable=True)
        if client.is_closed:
            outbox.close()

    async def events() -> AsyncIterator[bytes]:
        stop = client.listen(listener)
        listener(msgspec.structs.replace(client.activity, ticks=[]))
        try:
            async for event in outbox:
                yield event
        finally:
            stop()

    return event_stream(events())


def _look(client: EngineClient, activity: Activity) -> LiftReport:
    """What a report says, and who waits."""
    now = asyncio.get_running_loop().time()
    waiting = (ride for ride in client.rides.values() if not ride.boarded.is_set())
    queue = [
        Queued(
            id=ride.request.id,
            images=ride.request.n,
            width=ride.request.width,
            height=ride.request.height,
            eta_s=ride.eta_s(now),
        )
        for ride in islice(waiting, SHOWN_IN_QUEUE)
    ]
    return LiftReport(
        ticks=activity.ticks,
        running=activity.running,
        waiting=activity.waiting,
        backlog_seconds=activity.backlog_seconds,
        queue=queue,
    )


class Cancellation(BaseModel):
    """A request that was ended."""

    id: str
    cancelled: Literal[True] = True


@router.post("/v1/requests/{request_id}/cancel", responses=errors(UnknownRequest))
async def cancel_request(request_id: str, request: Request) -> Cancellation:
    """End a request, whoever waits for it; its rows are off the lift by the next tick."""
    if not state_of(request).client.cancel(request_id):
        raise UnknownRequest(f"there is no request {request_id[:80]!r} that isn't finished")
    return Cancellation(id=request_id)
