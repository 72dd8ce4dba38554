"""What operators and their tools ask: models, health, metrics, and who is on the lift."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse, Response, StreamingResponse

import chairlift
from chairlift.engine.messages import Activity
from chairlift.errors import InvalidRequest, Unavailable
from chairlift.scheduling.names import POLICY_NAMES
from chairlift.server.state import state_of

UNREAD_REPORTS = 100
"""A listener that is further behind misses reports; nobody waits for it."""

router = APIRouter(tags=["operations"])


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """The served model, with its defaults, limits and samplers."""
    card = state_of(request).client.card
    model = {"object": "model", "created": 0, "owned_by": "chairlift"}
    size = {"parameters": card.parameters}
    return {"object": "list", "data": [model | size | msgspec.to_builtins(card)]}


class PolicyBody(BaseModel):
    """In which order requests are served."""

    model_config = ConfigDict(extra="forbid", strict=True)

    policy: str


@router.get("/v1/policy")
async def policy(request: Request) -> PolicyBody:
    """The policy in force."""
    return PolicyBody(policy=state_of(request).client.policy)


@router.put("/v1/policy")
async def set_policy(body: PolicyBody, request: Request) -> PolicyBody:
    """Serve in another order from the next tick on."""
    if body.policy not in POLICY_NAMES:
        raise InvalidRequest(
            f"policy is {body.policy!r}; it must be one of {', '.join(POLICY_NAMES)}",
            param="policy",
        )
    state_of(request).client.set_policy(body.policy)
    return body


@router.get("/health")
async def health() -> dict[str, str]:
    """Whether the server is alive."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(request: Request) -> Response:
    """Whether the engine takes work now."""
    if not state_of(request).client.is_ready:
        raise Unavailable("the engine is starting", retry_after=1)
    return JSONResponse({"status": "ready"})


@router.get("/version")
async def version() -> dict[str, str]:
    """The version of Chairlift."""
    return {"version": chairlift.__version__}


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    text = generate_latest(state_of(request).metrics.registry)
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get("/v1/lift")
async def lift(request: Request) -> Response:
    """Server-sent events: every tick with the rows that ride in it, a few ticks an event. The
    stream ends with the server.
    """
    reports: asyncio.Queue[Activity] = asyncio.Queue(UNREAD_REPORTS)

    def listener(activity: Activity) -> None:
        if not reports.full():
            reports.put_nowait(activity)

    async def events() -> AsyncIterator[bytes]:
        client = state_of(request).client
        stop = client.listen(listener)
        try:
            yield b": the lift\n\n"
            while not client.is_closed:
                yield b"data: " + msgspec.json.encode(await reports.get()) + b"\n\n"
        finally:
            stop()

    return StreamingResponse(events(), media_type="text/event-stream")
