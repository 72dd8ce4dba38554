"""The supervisor: keeps one worker process running, and carries messages to and from it.

It knows what a worker is, and nothing of requests. A worker that dies, or that is silent for too
long although it loads or has work, is ended and replaced; between two attempts it waits, longer and
longer while none becomes ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import zmq
import zmq.asyncio

from chairlift.engine.messages import (
    Alive,
    Busy,
    FromEngine,
    Loading,
    Ready,
    StartFailed,
    decode_from_engine,
)
from chairlift.engine.worker_config import CANT_START, WorkerConfig
from chairlift.errors import ConfigurationError

logger = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 30.0
START_ATTEMPTS = 4
"""How many workers may die one after the other before the first has become ready."""
SOCKET = "worker"
STOP_SECONDS = 5.0
"""How long a worker may take to end when it is told to."""
BUSY_PATIENCE = 10.0
"""How many times as long as predicted a worker may be busy before its silence counts. Of a size
that was never run, predictions may be wrong by as much."""
WATCH_SECONDS = 0.25
"""Between two looks whether the worker is silent."""
MIN_LOADING_SILENCE_SECONDS = 60.0
"""A worker that loads may be silent for so long at least, however short the bound for one that
works is: a large library holds the interpreter while it is opened."""


class Owner(Protocol):
    """Whose worker it is."""

    @property
    def config(self) -> WorkerConfig:
        """What the next worker is started with."""

    @property
    def has_work(self) -> bool:
        """Whether the worker owes anything, so that it must not be silent."""

    def loading(self, message: Loading) -> None:
        """Be told what the worker is loading."""

    def up(self) -> None:
        """Be told that a worker takes messages from here on."""

    def receive(self, message: FromEngine) -> None:
        """Get a message of a worker that is up."""

    def down(self) -> None:
        """Be told that a worker has ended, and is going to be replaced."""


@dataclass(frozen=True, slots=True)
class _Worker:
    """A process and a socket of its own, so that no message of the last one can be read."""

    process: asyncio.subprocess.Process
    socket: zmq.asyncio.Socket
    folder: Path
    """Where the socket's file is; gone as soon as the worker is connected."""


@dataclass(frozen=True, slots=True)
class _End:
    """How a worker has ended."""

    reason: str
    was_ready: bool = False
    has_said_why: bool = False
    """Whether the worker itself says that it can't start; the next one will say the same."""


class Supervisor:
    """One worker process after the other.

    Args:
        owner: Is told what happens, on the event loop.
        hang_seconds: A worker that loads or has work, and says nothing for so long, is ended. One
            that is busy may be silent for longer.
    """

    def __init__(self, owner: Owner, hang_seconds: float) -> None:
        self._owner = owner
        self._hang_seconds = hang_seconds
        self._task: asyncio.Task[None] | None = None
        self._socket: zmq.asyncio.Socket | None = None
        self._heard = 0.0
        self._busy_until = 0.0
        """Until then the worker may be silent, since it has said so."""
        self.worker_pid: int | None = None
        """The process id of the worker, while there is one that isn't being ended."""
        self.failure: str | None = None
        """Why the last worker could not become ready; None if it could."""

    @property
    def is_ready(self) -> bool:
        """Whether a worker takes messages now."""
        return self._socket is not None

    @property
    def silent_seconds(self) -> float:
        """For how long a worker that loads or has work has said nothing."""
        if self.worker_pid is None or (self.is_ready and not self._owner.has_work):
            return 0.0
        return max(0.0, time.monotonic() - max(self._heard, self._busy_until))

    async def start(self) -> Ready:
        """Start the worker and wait until it is ready.

        Raises:
            ConfigurationError: It can't start; the message says why.
        """
        ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        # Who gives up waiting doesn't want to know any more.
        ready.add_done_callback(lambda done: done.exception())
        # What is logged there is no request's, whoever has brought it about.
        self._task = asyncio.create_task(self._supervise(ready), context=Context())
        return await asyncio.shield(ready)

    async def close(self) -> None:
        """End the worker, and start no other."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def send(self, frame: bytes) -> None:
        """Send an encoded message, if there is a worker."""
        if self._socket is not None:
            self._socket.send(frame)

    def expect(self) -> None:
        """The worker has something to do from here on; until now it might be silent."""
        self._heard = time.monotonic()

    @property
    def _name(self) -> str:
        return f"engine process {self._owner.config.number}"

    async def _supervise(self, ready: asyncio.Future[Ready]) -> None:
        """Run worker after worker until cancelled; but if the first can't start, or some die before
        any is ready, say why and give up.
        """
        backoff = FIRST_BACKOFF_SECONDS
        for attempt in itertools.count(1):
            try:
                end = await self._run(ready)
            except (OSError, zmq.ZMQError) as error:
                reason = f"{self._name} can't be started: {error}"
                end = _End(reason, has_said_why=True)
            if not ready.done() and (end.has_said_why or attempt == START_ATTEMPTS):
                ready.set_exception(ConfigurationError(end.reason))
                return
            self.failure = None if end.was_ready else end.reason
            backoff = FIRST_BACKOFF_SECONDS if end.was_ready else backoff
            logger.error("%s; a new one starts in %.1f s", end.reason, backoff)
            self._owner.down()
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, MAX_BACKOFF_SECONDS)

    async def _run(self, ready: asyncio.Future[Ready]) -> _End:
        """Run one worker until it ends."""
        was_ready = False
        async with self._worker() as worker:
            process = worker.process
            listening = asyncio.create_task(self._listen(worker, ready))
            hanging = asyncio.create_task(self._watch())
            exited = asyncio.create_task(process.wait())
            tasks: set[asyncio.Task[Any]] = {listening, hanging, exited}
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if process.returncode == CANT_START:  # its last words may be on their way
                    await asyncio.wait({listening}, timeout=STOP_SECONDS)
                if hanging.done():
                    process.kill()
            finally:
                was_ready, self._socket = self.is_ready, None
                for task in tasks:
                    task.cancel()
        if hanging.done() and not hanging.cancelled():
            return _End(hanging.result(), was_ready)
        if not listening.done() or listening.cancelled():
            return _End(f"{self._name} ended with status {process.returncode}", was_ready)
        if error := listening.exception():
            return _End(f"{self._name} can't be understood: {error!r}", was_ready)
        return _End(listening.result(), was_ready, has_said_why=True)

    @contextlib.asynccontextmanager
    async def _worker(self) -> AsyncIterator[_Worker]:
        folder = Path(tempfile.mkdtemp(prefix="chairlift-"))  # mode 0700
        try:
            with zmq.asyncio.Context.instance().socket(zmq.PAIR) as socket:
                socket.setsockopt(zmq.LINGER, 0)
                endpoint = f"ipc://{folder / SOCKET}"
                socket.bind(endpoint)
                config = msgspec.structs.replace(self._owner.config, endpoint=endpoint)
                process = await self._spawn(config)
                try:
                    yield _Worker(process, socket, folder)
                finally:
                    self.worker_pid = None
                    await _finish(_end(process))
        finally:
            _remove(folder)

    async def _spawn(self, config: WorkerConfig) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "chairlift.engine.worker",
            msgspec.json.encode(config).decode(),
            stdin=asyncio.subprocess.PIPE,  # Its end is ours.
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        self.worker_pid, self._heard, self._busy_until = process.pid, time.monotonic(), 0.0
        return process

    async def _listen(self, worker: _Worker, ready: asyncio.Future[Ready]) -> str:
        """Handle the worker's messages; returns only when it says why it can't start."""
        while True:
            message = decode_from_engine(await worker.socket.recv())
            self._heard = time.monotonic()
            match message:
                case Alive():
                    _remove(worker.folder)
                case Busy(seconds=seconds):
                    self._busy_until = self._heard + BUSY_PATIENCE * seconds
                case Loading():
                    self._owner.loading(message)
                case Ready():
                    if not ready.done():
                        ready.set_result(message)
                    self._socket, self.failure = worker.socket, None
                    self._owner.up()
                case StartFailed(reason=reason):
                    return reason
                case _:
                    self._owner.receive(message)

    async def _watch(self) -> str:
        """Returns only when the worker hangs."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if self.is_ready and self.silent_seconds >= self._hang_seconds:
                return f"{self._name} has work and has said nothing for {self._hang_seconds:g} s"
            bound = max(self._hang_seconds, MIN_LOADING_SILENCE_SECONDS)
            if not self.is_ready and self.silent_seconds >= bound:
                return f"{self._name} loads and has said nothing for {bound:g} s"


def _remove(folder: Path) -> None:
    """A socket's folder, if it is still there."""
    with contextlib.suppress(OSError):
        (folder / SOCKET).unlink(missing_ok=True)
        folder.rmdir()


async def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Wait until it is done, also if this is cancelled meanwhile."""
    task, cancelled = asyncio.create_task(work), None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Tell the worker to end, wait a little, and then insist."""
    if process.returncode is not None:
        return
    assert process.stdin is not None
    process.stdin.close()
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGCONT)  # One that is stopped doesn't see it.
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
