"""What the routes share."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from chairlift.engine.client import EngineClient
from chairlift.server.jobs.manager import JobManager
from chairlift.server.metrics import Metrics


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerState:
    """One server."""

    client: EngineClient
    jobs: JobManager
    metrics: Metrics
    max_queue: int
    """The most rows that are accepted and not done."""


def state_of(request: Request) -> ServerState:
    """The state of the server that this request came to."""
    state = request.app.state.server
    assert isinstance(state, ServerState)
    return state
