"""Runs the server: the port, the engine process, uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import uvicorn

from chairlift.engine.client import EngineClient
from chairlift.engine.messages import Loading, Ready
from chairlift.engine.worker_config import WorkerConfig
from chairlift.errors import ConfigurationError
from chairlift.server.app import create_app


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """What ``chairlift serve`` is told."""

    worker: WorkerConfig
    host: str = "127.0.0.1"
    port: int = 8000
    """0 takes a free one."""
    max_queue: int = 256
    """The most rows that are accepted and not done."""
    api_key: str | None = None
    shutdown_timeout: int = 30
    """Seconds that running requests have to finish after a SIGTERM."""


def serve(
    config: ServeConfig,
    on_loading: Callable[[Loading], None],
    on_ready: Callable[[Ready, str], None],
) -> None:
    """Serve until a signal comes.

    Args:
        config: All options.
        on_loading: Told what is being loaded.
        on_ready: Told the model and the address, once requests are taken.

    Raises:
        ConfigurationError: The port is in use, or the model can't be loaded.
    """
    listening = bind(config.host, config.port)
    try:
        asyncio.run(_serve(config, listening, on_loading, on_ready))
    finally:
        listening.close()


def bind(host: str, port: int) -> socket.socket:
    """A socket that is bound before anything is loaded, so that a port in use is told at once.

    Raises:
        ConfigurationError: The address can't be bound.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        raise ConfigurationError(f"can't listen on {host} port {port}: {error}") from None
    return bound


class _Server(uvicorn.Server):
    """uvicorn, but that a signal which has been heeded isn't raised again afterwards: the process
    has an engine to end, and ends with 0.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _serve(
    config: ServeConfig,
    listening: socket.socket,
    on_loading: Callable[[Loading], None],
    on_ready: Callable[[Ready, str], None],
) -> None:
    client = EngineClient(config.worker, on_loading)
    ready = await client.start()
    try:
        app = create_app(client, max_queue=config.max_queue, api_key=config.api_key)
        server = _Server(
            uvicorn.Config(
                app, log_level="warning", timeout_graceful_shutdown=config.shutdown_timeout
            )
        )
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        on_ready(ready, f"http://{shown}:{port}")
        await server.serve(sockets=[listening])
    finally:
        await client.close()
