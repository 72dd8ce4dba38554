"""The HTTP application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fastapi import FastAPI
from starlette.types import ASGIApp

import chairlift
from chairlift.server import images, openapi, operations, refusals
from chairlift.server.access import Access, KeyCheck
from chairlift.server.compat import a1111
from chairlift.server.engine import Engine
from chairlift.server.events import Streams
from chairlift.server.head_requests import HeadRequests
from chairlift.server.intake import Intake
from chairlift.server.jobs import routes as jobs_routes
from chairlift.server.jobs.manager import JobManager
from chairlift.server.lift import Lift
from chairlift.server.limits import Limits
from chairlift.server.metrics import Metrics
from chairlift.server.page import routes as page
from chairlift.server.request_id import RequestIds
from chairlift.server.security import BrowserGuard, with_headers
from chairlift.server.state import ServerState

if TYPE_CHECKING:
    from chairlift.server.tracing import Tracing


def create_app(
    client: Engine,
    jobs: JobManager | None,
    *,
    limits: Limits | None = None,
    access: Access | None = None,
    compat: Literal["a1111"] | None = None,
    tracing: Tracing | None = None,
) -> ASGIApp:
    """The application around a client whose worker is started.

    Args:
        client: The engine.
        jobs: Those of that engine; None keeps none.
        limits: What is taken in; None are the defaults.
        access: Who is let in; None lets everybody in.
        compat: Another program whose clients are answered too.
        tracing: Makes spans of HTTP requests.
    """
    access = access or Access()
    limits = limits or Limits()
    streams = Streams(limits.max_streams)
    app = FastAPI(
        title="Chairlift",
        version=chairlift.__version__,
        generate_unique_id_function=lambda route: route.name,
        redirect_slashes=False,
        # Their pages load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        telemetry=None if tracing is None else tracing.http,
    )
    app.state.server = ServerState(
        client=client,
        job_manager=jobs,
        lift=Lift(client),
        metrics=Metrics(client, streams),
        limits=limits,
        streams=streams,
    )
    app.include_router(page.router)
    app.include_router(images.router)
    app.include_router(jobs_routes.router)
    app.include_router(operations.router)
    if compat == "a1111":
        a1111.install(app)
    refusals.install(app)
    openapi.install(app, access)
    app.add_middleware(HeadRequests)
    app.add_middleware(BrowserGuard, access=access)
    app.add_middleware(Intake, limits=limits)
    if access.keys:
        basic = a1111.PATHS if compat == "a1111" else ()
        app.add_middleware(KeyCheck, access=access, basic=basic)
    # Around all of it, so that also what is answered after an exception has an id and the headers.
    return RequestIds(with_headers(app, access))
