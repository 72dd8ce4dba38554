"""Runs the server: the port, the engine process, uvicorn."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import uvicorn

from chairlift.engine.client import EngineClient
from chairlift.engine.messages import Loading, Ready
from chairlift.engine.worker_config import WorkerConfig
from chairlift.errors import ConfigurationError
from chairlift.logs import log_lines
from chairlift.models.source import LoadFormat, find_local_model, is_fake, is_hub_id
from chairlift.scheduling.names import check_policy
from chairlift.server.access import Access, is_loopback
from chairlift.server.app import create_app
from chairlift.server.connections import HttpConfig
from chairlift.server.jobs.data_dir import DataDir, open_data_dir
from chairlift.server.jobs.manager import JobManager, Retention
from chairlift.server.jobs.store import JobStore
from chairlift.server.limits import Limits, fit_to_open_files
from chairlift.server.logs import RequestLog
from chairlift.server.request_id import name_request
from chairlift.tables import load_costs

if TYPE_CHECKING:
    from chairlift.server.tracing import Tracing

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
BACKLOG = 2048
"""Connections that may wait to be accepted."""
UNREAD_SECONDS = 60
"""Who reads nothing of what was sent for so long is disconnected."""
OTLP_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Environment variables that say where traces go to."""
SLOW_CALLER_SECONDS = 10
"""How long callers may take to read their answers when the server ends."""
HURRIED_CALLER_SECONDS = 1
"""The same after a second signal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """What ``chairlift serve`` is told."""

    worker: WorkerConfig
    workers: int | None = 1
    """How many engine processes there are; None is one for each CUDA device."""
    host: str = "127.0.0.1"
    port: int = 8000
    """0 takes a free one."""
    limits: Limits = field(default_factory=Limits)
    data_dir: Path | None = None
    """Where jobs and their pictures are kept; None is a folder of the port's."""
    retention: Retention = field(default_factory=Retention)
    access: Access = field(default_factory=Access)
    ssl_certfile: Path | None = None
    """PEM; with one, HTTPS is spoken instead of HTTP."""
    ssl_keyfile: Path | None = None
    """PEM; None is in the certificate's file."""
    compat: Literal["a1111"] | None = None
    """Another program whose clients are answered too."""
    hang_timeout: float = 120.0
    """Seconds after which an engine that has work and says nothing is replaced."""
    shutdown_timeout: int = 30
    """Seconds that running requests have to finish after a SIGTERM."""
    log_prompts: bool = False
    """Whether the lines of requests have their prompts."""


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
        ConfigurationError: The port is in use, or the certificate or the model can't be loaded.
    """
    _check_model(config.worker.model, LoadFormat(config.worker.load_format))
    load_costs(config.worker.costs)
    check_policy(config.worker.policy)
    check_certificate(config.ssl_certfile, config.ssl_keyfile)
    check_workers(config.workers, config.worker)
    if config.limits.max_queue_per_key is not None and not config.access.keys:
        raise ConfigurationError("--max-queue-per-key needs an API key")
    # It is cancelled by a signal that comes before requests are taken.
    with (
        log_lines(config.worker.log_format, name_request),
        bind(config.host, config.port) as listening,
        open_tracing() as tracing,
        suppress(asyncio.CancelledError),
    ):
        config = replace(
            config,
            access=restrict(config.access, config.host, listening),
            limits=fit_to_open_files(config.limits),
        )
        asyncio.run(_serve(config, listening, tracing, on_loading, on_ready))


def _check_model(model: str | None, load_format: LoadFormat) -> None:
    """Tell at once what is wrong with a folder; the rest is found while loading."""
    if not is_fake(model) and not (model and is_hub_id(model)):
        find_local_model(model, load_format)


def check_certificate(certificate: Path | None, key: Path | None) -> None:
    """Tell at once what is wrong with the TLS files, which uvicorn loads later.

    Raises:
        ConfigurationError: They can't be used.
    """
    if certificate is None:
        if key is not None:
            raise ConfigurationError("--ssl-keyfile needs --ssl-certfile")
        return
    for file in (certificate, key or certificate):
        try:
            file.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{file} can't be read: {error.strerror}") from None
    try:
        # With a password nobody is asked for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"{certificate} and {key or certificate} are no TLS certificate with its key, "
            f"in PEM and without a password: {error.reason or error}"
        ) from None


def check_workers(workers: int | None, config: WorkerConfig) -> None:
    """Each of several workers takes a CUDA device of its own, if any.

    Raises:
        ConfigurationError: All would be on the same.
    """
    if workers is not None and workers > 1 and config.device.startswith("cuda:"):
        raise ConfigurationError(
            f"--workers is {workers} and --device is {config.device}, which is one device; "
            "with several workers it must be auto, cpu or cuda"
        )


def restrict(access: Access, host: str, listening: socket.socket) -> Access:
    """Without keys, a server on loopback is for this machine alone, by its own name; anywhere else
    it is for everybody, which its operator should know.
    """
    address = listening.getsockname()[0]
    if access.keys:
        return access
    if is_loopback(address):
        return replace(access, only_host=host)
    logger.warning(
        "listening on %s without an API key: everybody who reaches it can use it; "
        "set one by --api-key, --api-key-file or CHAIRLIFT_API_KEY",
        address,
    )
    return access


@contextmanager
def open_tracing() -> Iterator[Tracing | None]:
    """Traces, where the environment says where they go to and chairlift[tracing] is there. Some
    clusters give every program that environment, so that the extra may well be missing.
    """
    if not any(os.environ.get(name) for name in OTLP_ENDPOINTS):
        yield None
        return
    try:
        from chairlift.server.tracing import exported_traces
    except ImportError as error:
        logger.warning("there are no traces without chairlift[tracing]: %s", error)
        yield None
        return
    with exported_traces() as tracing:
        yield tracing


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens before anything is loaded, so that a port in use is told at once;
    who connects meanwhile is answered when the model is loaded.

    Raises:
        ConfigurationError: The address can't be bound.
    """
    try:
        return _listen(host, port)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigurationError(f"can't listen on {host} port {port}: {error}") from None


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    # Only where the protocol is named does asyncio turn off Nagle's algorithm, without which every
    # answer on a kept connection waits 40 ms.
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; the connections inherit it.
            patience = 1000 * UNREAD_SECONDS
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


class _Server(uvicorn.Server):
    """uvicorn, but that the engine ends before the connections do, so that every caller is
    answered; and that a signal which has been heeded isn't raised again afterwards, so that the
    process ends with 0.
    """

    def __init__(
        self, config: uvicorn.Config, client: EngineClient, jobs: JobManager, timeout: float
    ) -> None:
        super().__init__(config)
        self._client = client
        self._jobs = jobs
        self._timeout = timeout
        self._hurried = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with _signals_call(lambda number: self.handle_exit(number, None)):
            yield

    def handle_exit(self, sig: int, frame: object) -> None:
        """The first signal ends it in peace, the second at once; jobs are kept by either."""
        if self.should_exit:
            self._hurried.set()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Give running requests some time, then end the engine: what isn't finished fails, and
        streams of events end. After that all connections can close.
        """
        ending = asyncio.create_task(self._end_engine())
        hurrying = asyncio.create_task(self._hurry(ending))
        await super().shutdown(sockets)
        await asyncio.wait({ending})
        hurrying.cancel()

    async def _end_engine(self) -> None:
        self._jobs.leave_waiting()
        draining = asyncio.ensure_future(self._client.drain(self._timeout))
        hurried = asyncio.ensure_future(self._hurried.wait())
        await asyncio.wait({draining, hurried}, return_when=asyncio.FIRST_COMPLETED)
        for waiting in (draining, hurried):
            waiting.cancel()
        await self._jobs.close()
        await self._client.close()

    async def _hurry(self, ending: asyncio.Task[None]) -> None:
        """After a second signal, don't wait for callers who hardly read what they are told."""
        await self._hurried.wait()
        await asyncio.wait({ending})
        await asyncio.sleep(HURRIED_CALLER_SECONDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()


@contextmanager
def _signals_call(handle: Callable[[signal.Signals], object]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, handle, number)
    try:
        yield
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)


async def _serve(
    config: ServeConfig,
    listening: socket.socket,
    tracing: Tracing | None,
    on_loading: Callable[[Loading], None],
    on_ready: Callable[[Ready, str], None],
) -> None:
    serving = asyncio.current_task()
    assert serving is not None
    client = EngineClient(config.worker, on_loading, config.hang_timeout, config.workers)
    client.on_end.append(RequestLog(config.log_prompts))
    if tracing is not None:
        client.on_end.append(tracing)
    with (
        _signals_call(lambda number: serving.cancel()),
        open_data_dir(config.data_dir, config.port) as data_dir,
    ):
        jobs = JobManager(
            client, await _open_store(data_dir), config.retention, config.worker.strict
        )
        try:
            ready = await client.start()
            await jobs.start()
            server = _create_server(config, client, jobs, tracing)
            # All of this stays: nobody need wait while it is looked through for garbage.
            gc.collect()
            gc.freeze()
            on_ready(ready, _url(listening, config.ssl_certfile is not None))
            await server.serve(sockets=[listening])
        finally:
            await jobs.close()
            await client.close()


async def _open_store(data_dir: DataDir) -> JobStore:
    """The store, opened to the end even if a signal comes meanwhile: the folder may go then."""
    opening = asyncio.create_task(JobStore.open(data_dir))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await (await opening).close()
        raise


def _create_server(
    config: ServeConfig, client: EngineClient, jobs: JobManager, tracing: Tracing | None
) -> _Server:
    app = create_app(
        client,
        jobs,
        limits=config.limits,
        access=config.access,
        compat=config.compat,
        tracing=tracing,
    )
    http_config = HttpConfig(
        app,
        config.limits,
        shutdown_seconds=config.shutdown_timeout + SLOW_CALLER_SECONDS,
        ssl_certfile=config.ssl_certfile,
        ssl_keyfile=config.ssl_keyfile,
    )
    return _Server(http_config, client, jobs, config.shutdown_timeout)


def _url(listening: socket.socket, is_secure: bool) -> str:
    scheme = "https" if is_secure else "http"
    host, port = listening.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
