"""The supervisor: keeps one worker process running, and carries messages to and from it.

It knows what a worker is, and nothing of requests. A worker that dies, or that is silent for too
long although it has work, is ended and replaced; between two attempts it waits, longer and longer
while none becomes ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import msgspec
import zmq
import zmq.asyncio

from chairlift.engine.messages import (
    FromEngine,
    Loading,
    Ready,
    StartFailed,
    ToEngine,
    decode_from_engine,
    encode,
)
from chairlift.engine.worker_config import CANT_START, WorkerConfig
from chairlift.errors import ConfigurationError

logger = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 30.0
STOP_SECONDS = 5.0
"""How long a worker may take to end when it is told to."""
WATCH_SECONDS = 0.25
"""Between two looks whether the worker is silent."""


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


class Supervisor:
    """One worker process after the other.

    Args:
        owner: Is told what happens, on the event loop.
        hang_seconds: A worker that has work and says nothing for so long is ended.
    """

    def __init__(self, owner: Owner, hang_seconds: float) -> None:
        self._owner = owner
        self._hang_seconds = hang_seconds
        self._ready: asyncio.Future[Ready] | None = None
        self._task: asyncio.Task[None] | None = None
        self._socket: zmq.asyncio.Socket | None = None
        self._folder: Path | None = None
        self._heard = 0.0
        self.worker_pid: int | None = None
        """The process id of the worker, while there is one."""
        self.failure: str | None = None
        """Why the last worker could not become ready; None if it could."""

    @property
    def is_ready(self) -> bool:
        """Whether a worker takes messages now."""
        return self._socket is not None

    @property
    def ready(self) -> Ready | None:
        """What the first worker has said of itself."""
        if self._ready is None or not self._ready.done() or self._ready.exception():
            return None
        return self._ready.result()

    @property
    def silent_seconds(self) -> float:
        """For how long a worker that has work has said nothing."""
        if self._socket is None or not self._owner.has_work:
            return 0.0
        return time.monotonic() - self._heard

    async def start(self) -> Ready:
        """Start the worker and wait until it is ready.

        Raises:
            ConfigurationError: It can't start; the message says why.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="chairlift-"))  # mode 0700
        self._ready = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._supervise(self._ready))
        return await asyncio.shield(self._ready)

    async def close(self) -> None:
        """End the worker, and start no other."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def send(self, message: ToEngine) -> None:
        """Send, if there is a worker."""
        if self._socket is not None:
            self._socket.send(encode(message))

    def expect(self) -> None:
        """The worker has something to do from here on; until now it might be silent."""
        self._heard = time.monotonic()

    async def _supervise(self, ready: asyncio.Future[Ready]) -> None:
        """Run worker after worker until cancelled; but if not even the first becomes ready, say
        why and give up.
        """
        backoff = FIRST_BACKOFF_SECONDS
        for incarnation in itertools.count():
            try:
                was_ready, reason = await self._run(incarnation, ready)
            except (OSError, zmq.ZMQError) as error:
                was_ready, reason = False, f"the engine process can't be started: {error}"
            if not ready.done():
                ready.set_exception(ConfigurationError(reason))
                return
            self.failure = None if was_ready else reason
            backoff = FIRST_BACKOFF_SECONDS if was_ready else min(2 * backoff, MAX_BACKOFF_SECONDS)
            logger.error("%s; a new one starts in %.1f s", reason, backoff)
            self._owner.down()
            await asyncio.sleep(backoff)

    async def _run(self, incarnation: int, ready: asyncio.Future[Ready]) -> tuple[bool, str]:
        """Run one worker until it ends: whether it was ever ready, and why it ended."""
        was_ready = False
        async with self._worker(incarnation) as (process, socket):
            listening = asyncio.create_task(self._listen(socket, ready))
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
            return was_ready, hanging.result()
        if not listening.done() or listening.cancelled():
            return was_ready, f"the engine process ended with status {process.returncode}"
        if error := listening.exception():
            return was_ready, f"the engine process can't be understood: {error!r}"
        return was_ready, listening.result()

    @contextlib.asynccontextmanager
    async def _worker(
        self, incarnation: int
    ) -> AsyncIterator[tuple[asyncio.subprocess.Process, zmq.asyncio.Socket]]:
        """A process and a socket of its own, so that no message of the last one can be read."""
        endpoint = f"ipc://{self._folder}/worker-{incarnation}"
        with zmq.asyncio.Context.instance().socket(zmq.PAIR) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.bind(endpoint)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "chairlift.engine.worker",
                stdin=asyncio.subprocess.PIPE,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
            assert process.stdin is not None
            self.worker_pid = process.pid
            config = msgspec.structs.replace(self._owner.config, endpoint=endpoint)
            process.stdin.write(msgspec.json.encode(config) + b"\n")
            try:
                yield process, socket
            finally:
                await _end(process)
                self.worker_pid = None

    async def _listen(self, socket: zmq.asyncio.Socket, ready: asyncio.Future[Ready]) -> str:
        """Handle the worker's messages; returns only when it says why it can't start."""
        while True:
            message = decode_from_engine(await socket.recv())
            self._heard = time.monotonic()
            match message:
                case Loading():
                    self._owner.loading(message)
                case Ready():
                    if not ready.done():
                        ready.set_result(message)
                    self._socket, self.failure = socket, None
                    self._owner.up()
                case StartFailed(reason=reason):
                    return reason
                case _:
                    self._owner.receive(message)

    async def _watch(self) -> str:
        """Returns only when the worker hangs."""
        while self.silent_seconds < self._hang_seconds:
            await asyncio.sleep(WATCH_SECONDS)
        return f"the engine process has work and has said nothing for {self._hang_seconds:g} s"


async def _end(process: asyncio.subprocess.Process) -> None:
    """Tell the worker to end, wait a little, and then insist."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
