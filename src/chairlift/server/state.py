"""What the routes share."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from chairlift.errors import Unsupported
from chairlift.server.engine import Engine
from chairlift.server.events import Streams
from chairlift.server.jobs.manager import JobManager
from chairlift.server.lift import Lift
from chairlift.server.limits import Limits
from chairlift.server.metrics import Metrics


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerState:
    """One server."""

    client: Engine
    job_manager: JobManager | None
    """None keeps no jobs."""
    lift: Lift
    metrics: Metrics
    limits: Limits
    streams: Streams

    @property
    def jobs(self) -> JobManager:
        """Those that are kept.

        Raises:
            Unsupported: None are.
        """
        if self.job_manager is None:
            raise Unsupported(
                "this server has no data folder: it keeps no jobs, and knows no Idempotency-Key"
            )
        return self.job_manager


def state_of(request: Request) -> ServerState:
    """The state of the server that this request came to."""
    state = request.app.state.server
    assert isinstance(state, ServerState)
    return state
