"""What operators and their tools ask: models, health, metrics, and who is on the lift."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

import chairlift
from chairlift.card import ModelCard
from chairlift.errors import (
    InvalidRequest,
    StorageFailed,
    TooManyStreams,
    Unavailable,
    UnknownModel,
    UnknownRequest,
    Unsupported,
)
from chairlift.request import IMAGE_FORMATS, VIDEO_FORMATS
from chairlift.scheduling.names import POLICY_NAMES
from chairlift.server.access import owner
from chairlift.server.admission import check_model
from chairlift.server.events import EventStream, Outbox
from chairlift.server.openapi import errors, events_of, reference
from chairlift.server.schema import LiftReport
from chairlift.server.state import ServerState, state_of
from chairlift.validation import MAX_IMAGES

logger = logging.getLogger(__name__)

router = APIRouter(tags=["operations"])

_BESIDE_CARD = {
    "type": "object",
    "required": ["object", "created", "owned_by", "parameters", "limits", "output_formats"],
    "properties": {
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"const": "chairlift"},
        "parameters": {"type": "integer"},
        "limits": {
            "type": "object",
            "required": ["max_images", "max_megapixel_steps"],
            "properties": {
                "max_images": {"type": "integer"},
                "max_megapixel_steps": {"type": "number"},
            },
        },
        "output_formats": {"type": "array", "items": {"type": "string"}},
    },
}
_MODEL = {"allOf": [reference(ModelCard), _BESIDE_CARD]}
_MODELS = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": _MODEL}},
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
    return {"object": "list", "data": [_describe_model(state_of(request))]}


@router.get(
    "/v1/models/{model_id:path}",
    response_model=None,
    responses={
        200: {"content": {"application/json": {"schema": _MODEL}}},
        **errors(UnknownModel, Unavailable),
    },
)
async def get_model(model_id: str, request: Request) -> dict[str, Any]:
    """The same of the served model alone."""
    state = state_of(request)
    check_model(model_id, state.client.card)
    return _describe_model(state)


def _describe_model(state: ServerState) -> dict[str, Any]:
    card, limits = state.client.card, state.limits
    model = {"object": "model", "created": 0, "owned_by": "chairlift"}
    entry: dict[str, Any] = model | {"parameters": card.parameters} | msgspec.to_builtins(card)
    entry["limits"] |= {
        "max_images": min(MAX_IMAGES, limits.max_rows),
        "max_megapixel_steps": limits.max_megapixel_steps,
    }
    entry["output_formats"] = VIDEO_FORMATS if card.is_video else IMAGE_FORMATS
    return entry


class PolicyBody(BaseModel):
    """In which order requests are served."""

    model_config = ConfigDict(extra="forbid", strict=True)

    policy: str = Field(json_schema_extra={"enum": list(POLICY_NAMES)})


@router.get("/v1/policy")
async def get_policy(request: Request) -> PolicyBody:
    """The policy in force."""
    return PolicyBody(policy=state_of(request).client.policy)


@router.put("/v1/policy", responses=errors(InvalidRequest, Unsupported))
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
        if state.job_manager is not None:
            state.metrics.observe_jobs(await state.job_manager.statistics())
    except StorageFailed as error:
        logger.warning("%s; their metrics are old", error.message)
    text = generate_latest(state.metrics.registry)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get(
    "/v1/lift",
    response_class=Response,
    responses={200: {"content": events_of({"message": LiftReport})}, **errors(TooManyStreams)},
)
async def watch_lift(request: Request) -> Response:
    """Server-sent events: every tick with the rows that ride in it, a few ticks an event, and which
    of the requests are the reader's own. The stream ends with the server.
    """
    state, outbox = state_of(request), Outbox()
    with ExitStack() as ending:
        ending.enter_context(state.streams.place())
        ending.callback(state.lift.join(outbox, owner.get()))
        return EventStream(aiter(outbox), ending.pop_all().close)


class Cancellation(BaseModel):
    """A request that was ended."""

    id: str
    cancelled: Literal[True] = True


@router.post("/v1/requests/{request_id}/cancel", responses=errors(UnknownRequest))
async def cancel_request(request_id: str, request: Request) -> Cancellation:
    """End a request of one's own; its rows are off the lift by the next tick."""
    client, who = state_of(request).client, owner.get()
    ride = client.rides.get(request_id)
    is_foreign = ride is not None and who not in ("", ride.request.owner)
    if is_foreign or not client.cancel(request_id):
        raise UnknownRequest(f"there is no request {request_id[:80]!r} that isn't finished")
    return Cancellation(id=request_id)
