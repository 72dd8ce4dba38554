"""The stock pipeline behind FastAPI with a lock: what most people write first."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from fastapi import FastAPI

from benchmarks.peers.api import HEALTH, PATH, Body, answer
from benchmarks.peers.settings import parse_arguments
from benchmarks.peers.stock import draw, load_pipeline


def main() -> None:
    place, settings = parse_arguments()
    pipeline = load_pipeline(place.folder, settings)
    lock = asyncio.Lock()
    app = FastAPI()

    def generate(body: Body) -> dict[str, Any]:
        [picture] = draw(pipeline, [body])
        return answer(picture)

    @app.post(PATH)
    async def create(body: Body) -> dict[str, Any]:
        async with lock:
            return await asyncio.to_thread(generate, body)

    @app.get(HEALTH)
    async def health() -> str:
        return "ok"

    uvicorn.run(app, port=place.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
