"""The HTTP application."""

from __future__ import annotations

from fastapi import FastAPI

import chairlift
from chairlift.engine.client import EngineClient
from chairlift.server import images, operations, refusals
from chairlift.server.access import KeyCheck
from chairlift.server.metrics import Metrics
from chairlift.server.state import ServerState


def create_app(client: EngineClient, *, max_queue: int, api_key: str | None = None) -> FastAPI:
    """The application around a client whose worker is started.

    Args:
        client: The engine.
        max_queue: The most rows that are accepted and not done.
        api_key: What callers must send as a bearer token; None lets everybody in.
    """
    app = FastAPI(title="Chairlift", version=chairlift.__version__, redirect_slashes=False)
    app.state.server = ServerState(client=client, metrics=Metrics(client), max_queue=max_queue)
    app.include_router(images.router)
    app.include_router(operations.router)
    refusals.install(app)
    app.add_middleware(refusals.BodyLimit)
    if api_key is not None:
        app.add_middleware(KeyCheck, key=api_key)
    return app
