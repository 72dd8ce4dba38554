"""A peer without a model, whose every answer is the id of its process."""

from __future__ import annotations

import os

from aiohttp import web

from benchmarks.peers.api import HEALTH, PATH
from benchmarks.peers.settings import parse_arguments


async def name(request: web.Request) -> web.Response:
    return web.Response(text=str(os.getpid()))


def main() -> None:
    place, _settings = parse_arguments()
    application = web.Application()
    application.router.add_post(PATH, name)
    application.router.add_get(HEALTH, name)
    web.run_app(application, host="127.0.0.1", port=place.port, print=None)


if __name__ == "__main__":
    main()
