"""A load balancer in front of replicas of a peer that is one process: each request goes to the next
replica in turn, since connections that are kept alive would be spread unevenly.

    python -m benchmarks.peers.servers.balancer MODULE …

with the arguments of the peer, of which each replica gets its own port.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web

from benchmarks.peers.api import HEALTH, PATH
from benchmarks.peers.process import free_ports
from benchmarks.peers.settings import Place, Settings, parse_arguments
from chairlift.bench.client import KEEP_ALIVE_SECONDS


class Balancer:
    """The HTTP API of one peer.

    Args:
        replicas: Their processes.
        urls: Of the replicas.
    """

    def __init__(self, replicas: Sequence[subprocess.Popen[bytes]], urls: Sequence[str]) -> None:
        self._replicas, self._urls = replicas, urls
        self._turns = cycle(urls)

    def application(self) -> web.Application:
        application = web.Application()
        application.cleanup_ctx.append(self._connect)
        application.router.add_post(PATH, self._create)
        application.router.add_get(HEALTH, self._health)
        return application

    async def _connect(self, application: web.Application) -> AsyncIterator[None]:
        connector = TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS)
        timeout = ClientTimeout(total=None)
        async with ClientSession(connector=connector, timeout=timeout) as self._session:
            yield

    async def _create(self, request: web.Request) -> web.Response:
        body, headers = await request.read(), {"Content-Type": request.content_type}
        url = next(self._turns) + PATH
        async with self._session.post(url, data=body, headers=headers) as answer:
            return web.Response(
                body=await answer.read(), status=answer.status, content_type=answer.content_type
            )

    async def _health(self, request: web.Request) -> web.Response:
        """Whether all replicas answer. Ends everything if one has ended."""
        if any(replica.poll() is not None for replica in self._replicas):
            raise web.GracefulExit
        for url in self._urls:
            try:
                async with self._session.get(url + HEALTH) as answer:
                    answer.raise_for_status()
            except ClientError as error:
                raise web.HTTPServiceUnavailable(text=f"{url}: {error}") from error
        return web.Response(text="ok")


@contextmanager
def replicas_of(
    module: str, places: Sequence[Place], settings: Settings
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A process at each place."""
    alone = replace(settings, processes=1).arguments()
    commands = [[sys.executable, "-m", module, *place.arguments(), *alone] for place in places]
    replicas = [subprocess.Popen(command) for command in commands]
    try:
        yield replicas
    finally:
        for replica in replicas:
            replica.terminate()
        for replica in replicas:
            replica.wait()


def main() -> None:
    module, *arguments = sys.argv[1:]
    place, settings = parse_arguments(arguments)
    places = [replace(place, port=port) for port in free_ports(settings.processes)]
    with replicas_of(module, places, settings) as replicas:
        balancer = Balancer(replicas, [f"http://127.0.0.1:{one.port}" for one in places])
        web.run_app(
            balancer.application(),
            host="127.0.0.1",
            port=place.port,
            print=None,
            access_log=None,
        )


if __name__ == "__main__":
    main()
