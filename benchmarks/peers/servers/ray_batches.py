"""The stock pipeline in a Ray Serve deployment, with ``@serve.batch``.

Annotations are not postponed here: Ray makes routes of them anew.
"""

import asyncio
import logging
import os
import signal
from typing import Any

import ray
from fastapi import FastAPI, HTTPException
from ray import serve
from ray.serve.schema import ApplicationStatus

from benchmarks.peers.api import HEALTH, PATH, Body, answer
from benchmarks.peers.settings import Place, Settings, parse_arguments
from benchmarks.peers.stock import draw, load_pipeline

MAX_ONGOING = 10_000
"""Requests that a replica may hold: with Ray's default of 5 no batch would be larger."""
OBJECT_STORE_BYTES = 200 * 2**20
APPLICATION = "pictures"

app = FastAPI()


@serve.deployment(max_ongoing_requests=MAX_ONGOING)
@serve.ingress(app)
class Pictures:
    """One replica.

    Args:
        place: Where the model is.
        settings: With the batch's size and timeout.
    """

    def __init__(self, place: Place, settings: Settings) -> None:
        self._pipeline = load_pipeline(place.folder, settings)
        self.generate.set_max_batch_size(settings.max_batch_size)
        self.generate.set_batch_wait_timeout_s(settings.batch_timeout)

    @serve.batch  # type: ignore[untyped-decorator]
    async def generate(self, bodies: list[Body]) -> list[dict[str, Any]]:
        # On a thread, so that the next batch fills meanwhile.
        return await asyncio.to_thread(self._generate, bodies)

    def _generate(self, bodies: list[Body]) -> list[dict[str, Any]]:
        return [answer(picture) for picture in draw(self._pipeline, bodies)]

    @app.post(PATH)
    async def create(self, body: Body) -> dict[str, Any]:
        made: dict[str, Any] = await self.generate(body)
        return made

    @app.get(HEALTH)
    async def health(self) -> str:
        """Once all replicas are ready: a router would ask the first one alone before."""
        status = await asyncio.to_thread(serve.status)
        if status.applications[APPLICATION].status != ApplicationStatus.RUNNING:
            raise HTTPException(503)
        return "ok"


def main() -> None:
    place, settings = parse_arguments()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    ray.init(
        "local",
        num_cpus=max(settings.processes, os.cpu_count() or 1),  # A replica takes one.
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.WARNING,
        _temp_dir=place.temporary,
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": place.port})
        replicas = Pictures.options(num_replicas=settings.processes)  # type: ignore[attr-defined]
        serve.run(replicas.bind(place, settings), name=APPLICATION, route_prefix="/")
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
        serve.shutdown()
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
