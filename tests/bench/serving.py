"""An images API in this process, whose answers a test decides."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from chairlift.server.serve import bind

TIMINGS = {"queue_s": 0.25, "encode_s": 0.5, "denoise_s": 1.0, "decode_s": 0.25, "total_s": 2.0}


class ImagesServer:
    """Answers every request with a picture, unless a test says otherwise.

    Args:
        answer: Gets each body, may wait, and makes the answer.
    """

    def __init__(
        self, answer: Callable[[dict[str, Any]], Awaitable[Response]] | None = None
    ) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.in_flight = self.most_in_flight = 0
        self.url = ""
        self._answer = answer or picture

    async def _generate(self, request: Request) -> Response:
        self.bodies.append(await request.json())
        self.headers.append(dict(request.headers))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._answer(self.bodies[-1])
        finally:
            self.in_flight -= 1

    @contextmanager
    def running(self) -> Iterator[ImagesServer]:
        app = Starlette(routes=[Route("/v1/images/generations", self._generate, methods=["POST"])])
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        with bind("127.0.0.1", 0) as listening:
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            serving = threading.Thread(
                target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True
            )
            serving.start()
            try:
                yield self
            finally:
                server.should_exit = True
                serving.join()


async def picture(body: dict[str, Any]) -> Response:
    """What a server of another make answers: no timings."""
    data = [{"b64_json": base64.b64encode(b"a picture").decode()}] * body.get("n", 1)
    return JSONResponse({"created": 1, "data": data})


async def picture_with_timings(body: dict[str, Any]) -> Response:
    """What Chairlift answers."""
    return JSONResponse({"created": 1, "data": [{"b64_json": ""}], "timings": TIMINGS})


def error(status: int, code: str | None, message: str) -> Response:
    """OpenAI's error object."""
    return JSONResponse({"error": {"message": message, "code": code}}, status_code=status)
