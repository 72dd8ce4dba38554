"""A real server in this process: a client with its worker process, and HTTP in front of it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Self, TypeVar

import httpx
import uvicorn

from chairlift.engine.client import HANG_SECONDS, EngineClient
from chairlift.engine.messages import Activity
from chairlift.engine.worker_config import WorkerConfig
from chairlift.server.access import Access
from chairlift.server.app import create_app
from chairlift.server.connections import HttpConfig
from chairlift.server.jobs.data_dir import DataDir
from chairlift.server.jobs.manager import JobManager, Retention
from chairlift.server.jobs.store import JobStore
from chairlift.server.limits import Limits
from chairlift.server.serve import bind

T = TypeVar("T")

PATIENCE_SECONDS = 120
GENERATIONS = "/v1/images/generations"

LONG: dict[str, Any] = {
    "prompt": "a long ride",
    "n": 10,
    "size": "512x512",
    "num_inference_steps": 200,
    "sampler": "heun",
    "seed": 1,
}
"""A body that keeps the fake model busy for many seconds."""


class EngineThread:
    """An event loop on a thread of its own, and on it a client whose worker is started."""

    def __init__(
        self, config: WorkerConfig, hang_seconds: float = HANG_SECONDS, workers: int | None = 1
    ) -> None:
        self.client = EngineClient(config, hang_seconds=hang_seconds, workers=workers)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="front end", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait_for(self.client.start())
        return self

    def __exit__(self, *exception: object) -> None:
        self.wait_for(self.client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        return self.start(work).result(PATIENCE_SECONDS)

    @contextmanager
    def jobs(
        self, folder: Path | None = None, retention: Retention | None = None
    ) -> Iterator[JobManager]:
        """The jobs of the engine, in a folder that goes with them if none is given."""
        with TemporaryDirectory() as temporary, DataDir.open(folder or Path(temporary)) as data_dir:
            store = self.wait_for(JobStore.open(data_dir))
            strict = self.client.config.strict
            jobs = JobManager(self.client, store, retention or Retention(), strict)
            self.wait_for(jobs.start())
            try:
                yield jobs
            finally:
                self.wait_for(jobs.close())

    @contextmanager
    def serve(
        self,
        *,
        max_queue: int = 64,
        limits: Limits | None = None,
        api_key: str | None = None,
        access: Access | None = None,
        compat: Literal["a1111"] | None = None,
        folder: Path | None = None,
        retention: Retention | None = None,
    ) -> Iterator[httpx.Client]:
        """Serve the engine on a free port; what is yielded talks to it. ``api_key`` is short for
        the ``access`` with one key, ``max_queue`` for the ``limits`` with that.
        """
        with self.jobs(folder, retention) as jobs, bind("127.0.0.1", 0) as listening:
            access = access or Access(keys=() if api_key is None else (api_key,))
            limits = limits or Limits(max_queue=max_queue)
            app = create_app(self.client, jobs, limits=limits, access=access, compat=compat)
            server = uvicorn.Server(HttpConfig(app, limits))
            port = listening.getsockname()[1]
            serving = self.start(server.serve(sockets=[listening]))
            try:
                with httpx.Client(
                    base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS
                ) as http:
                    yield http
            finally:
                server.should_exit = True
                serving.result(PATIENCE_SECONDS)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def generate(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    """The answer to a small request."""
    answer = http.post(GENERATIONS, json={"prompt": "a boat"} | fields)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def metric(http: httpx.Client, sample: str) -> float:
    """The value of a sample, such as ``chairlift_requests_total{outcome="failed"}``."""
    lines = http.get("/metrics").text.splitlines()
    [value] = [line.rpartition(" ")[2] for line in lines if line.rpartition(" ")[0] == sample]
    return float(value)


@contextmanager
def long_request(http: httpx.Client, client: EngineClient) -> Iterator[None]:
    """A caller whose :data:`LONG` request rides, and who goes away in the end."""
    aboard = threading.Event()

    def listener(activity: Activity) -> None:
        # A report may still tell of somebody who has left.
        aboard_now = {rider.row for tick in activity.ticks for rider in tick.riders}
        if sum(row.request_id in client.rides for row in aboard_now) == LONG["n"]:
            aboard.set()

    stop = client.listen(listener)
    with connect(http) as caller:
        send_post(caller, GENERATIONS, LONG)
        assert aboard.wait(PATIENCE_SECONDS)
        stop()
        yield
    wait_until(lambda: client.pending_rows == 0)


def send_post(connection: socket.socket, path: str, body: dict[str, Any]) -> None:
    """A request whose answer nobody may ever read."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)


def connect(http: httpx.Client) -> socket.socket:
    """A bare connection to the server that ``http`` talks to."""
    return socket.create_connection(
        (http.base_url.host, http.base_url.port or 80), timeout=PATIENCE_SECONDS
    )
