"""The HTTP application."""

from __future__ import annotations

import hmac

from fastapi import Depends, FastAPI, Request
from starlette.exceptions import HTTPException

import chairlift
from chairlift.engine.client import EngineClient
from chairlift.server import images, operations, refusals
from chairlift.server.metrics import Metrics
from chairlift.server.state import ServerState, state_of

OPEN_PATHS = ("/health",)
"""What needs no key."""


def create_app(client: EngineClient, *, max_queue: int, api_key: str | None = None) -> FastAPI:
    """The application around a client whose worker is started.

    Args:
        client: The engine.
        max_queue: The most rows that are accepted and not done.
        api_key: What callers must send as a bearer token; None lets everybody in.
    """
    app = FastAPI(
        title="Chairlift",
        version=chairlift.__version__,
        dependencies=[Depends(check_key)],
        redirect_slashes=False,
    )
    app.state.server = ServerState(
        client=client, metrics=Metrics(client), max_queue=max_queue, api_key=api_key
    )
    app.include_router(images.router)
    app.include_router(operations.router)
    refusals.install(app)
    app.add_middleware(refusals.BodyLimit)
    return app


async def check_key(request: Request) -> None:
    """Let the request in if it needs no key or has the right one."""
    expected = state_of(request).api_key
    if expected is None or request.url.path in OPEN_PATHS:
        return
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    matches = hmac.compare_digest(given.encode(), expected.encode())
    if scheme.lower() != "bearer" or not matches:
        raise HTTPException(
            401, "send the API key as a bearer token", headers={"WWW-Authenticate": "Bearer"}
        )
