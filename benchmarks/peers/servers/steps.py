"""The step-level loop of 2023 behind FastAPI, on its event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from benchmarks.peers.api import HEALTH, PATH, Body
from benchmarks.peers.settings import parse_arguments
from benchmarks.peers.step_loop import StepLoop
from benchmarks.peers.stock import load_pipeline


def main() -> None:
    place, settings = parse_arguments()
    loop = StepLoop(load_pipeline(place.folder, settings), settings.max_batch_size)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        turning = asyncio.create_task(loop.run())
        yield
        turning.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.post(PATH)
    async def create(body: Body) -> dict[str, Any]:
        return await loop.generate(body)

    @app.get(HEALTH)
    async def health() -> str:
        return "ok"

    uvicorn.run(app, port=place.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
