"""The front end's side of the engine: starts the worker process, talks to it, replaces it.

It lives on the event loop and imports no torch. Every request is kept until it ends; if the worker
dies, a new one is started and gets all of them again. A request starts from its seed, so the
caller sees a delay and the same picture.
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
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import zmq
import zmq.asyncio

from chairlift.card import ModelCard
from chairlift.engine.messages import (
    Activity,
    Cancel,
    Failed,
    Finished,
    FromEngine,
    Loading,
    Ready,
    SetPolicy,
    StartFailed,
    Submit,
    ToEngine,
    decode_from_engine,
    encode,
)
from chairlift.engine.worker_config import CANT_START, WorkerConfig
from chairlift.errors import REQUEST_ERRORS, ConfigurationError, EngineCrash, Unavailable
from chairlift.request import GenerationRequest

logger = logging.getLogger(__name__)

MAX_CRASHES = 3
"""A request that was aboard when the worker died this often is given up."""
FIRST_BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 30.0
STOP_SECONDS = 5.0
"""How long a worker may take to end when it is told to."""

IDLE = Activity(ticks=[], running=0, waiting=0, backlog_seconds=0.0)


@dataclass(slots=True)
class _Pending:
    """A request that has not ended."""

    request: GenerationRequest
    answer: asyncio.Future[Finished]
    crashes: int = 0


class EngineClient:
    """One worker process and the requests that it owes.

    Args:
        config: For the worker.
        on_loading: Told what the worker is loading.
    """

    def __init__(
        self,
        config: WorkerConfig,
        on_loading: Callable[[Loading], None] = lambda message: None,
    ) -> None:
        self._config = config
        self._on_loading = on_loading
        self._pending: dict[str, _Pending] = {}
        self._listeners: set[Callable[[Activity], None]] = set()
        self._ready: asyncio.Future[Ready] | None = None
        self._supervision: asyncio.Task[None] | None = None
        self._socket: zmq.asyncio.Socket | None = None
        self._folder: Path | None = None
        self.activity = IDLE
        """The last report."""
        self.on_restart: Callable[[], None] = lambda: None
        """Called when a worker has died and is going to be replaced."""
        self.is_ready = False
        """Whether a worker takes requests now."""
        self.worker_pid: int | None = None
        """The process id of the worker, while there is one."""
        self.is_closed = False
        """Whether :meth:`close` was called; requests are not taken any more."""

    async def start(self) -> Ready:
        """Start the worker and wait until it is ready.

        Raises:
            ConfigurationError: It can't start; the message says why.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="chairlift-"))  # mode 0700
        self._ready = asyncio.get_running_loop().create_future()
        self._supervision = asyncio.create_task(self._supervise(self._ready))
        try:
            return await asyncio.shield(self._ready)
        except BaseException:
            await self.close()
            raise

    async def drain(self, seconds: float) -> None:
        """Wait until every accepted request has ended, at most this long."""
        answers = [pending.answer for pending in self._pending.values()]
        if answers:
            await asyncio.wait(answers, timeout=seconds)

    async def close(self) -> None:
        """End the worker; what isn't finished fails with Unavailable."""
        self.is_closed = True
        if self._supervision is not None:
            self._supervision.cancel()
            await asyncio.wait({self._supervision})
        for pending in list(self._pending.values()):
            if not pending.answer.done():
                pending.answer.set_exception(Unavailable("the server is shutting down"))
        self._report(IDLE)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def card(self) -> ModelCard:
        """What the model can do; after :meth:`start`."""
        if self._ready is None or not self._ready.done():
            raise Unavailable("the model is being loaded")
        return self._ready.result().card

    @property
    def pending_rows(self) -> int:
        """Rows that were accepted and have not ended."""
        return sum(pending.request.n for pending in self._pending.values())

    def submit(self, request: GenerationRequest) -> asyncio.Future[Finished]:
        """Hand a request to the engine: it counts as pending from here on, until the future is
        done. Cancelling the future cancels the request.

        Raises:
            Unavailable: The client is closed. Every other error comes from the future.
        """
        if self.is_closed:
            raise Unavailable("the server is shutting down")
        answer: asyncio.Future[Finished] = asyncio.get_running_loop().create_future()
        self._pending[request.id] = _Pending(request, answer)
        answer.add_done_callback(lambda done: self._forget(request.id, done))
        self._post(Submit(request=request))
        return answer

    def set_policy(self, name: str) -> None:
        """Serve in the order of this policy from the next tick on, also in workers to come."""
        self._config = msgspec.structs.replace(self._config, policy=name)
        self._post(SetPolicy(name=name))

    @property
    def policy(self) -> str:
        """In which order requests are served."""
        return self._config.policy

    def _forget(self, request_id: str, answer: asyncio.Future[Finished]) -> None:
        del self._pending[request_id]
        if answer.cancelled():
            self._post(Cancel(request_id=request_id))

    def listen(self, listener: Callable[[Activity], None]) -> Callable[[], None]:
        """Call ``listener`` with every report from now on; returns what ends that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    # ------------------------------------------------------------------ supervision

    async def _supervise(self, ready: asyncio.Future[Ready]) -> None:
        """Run worker after worker until cancelled; but if not even the first becomes ready, say
        why and give up.
        """
        backoff = FIRST_BACKOFF_SECONDS
        for incarnation in itertools.count():
            try:
                was_ready, reason = await self._run_worker(incarnation, ready)
            except (OSError, zmq.ZMQError) as error:
                was_ready, reason = False, f"the engine process can't be started: {error}"
            if not ready.done():
                ready.set_exception(ConfigurationError(reason))
                return
            self.on_restart()
            backoff = FIRST_BACKOFF_SECONDS if was_ready else min(2 * backoff, MAX_BACKOFF_SECONDS)
            logger.error("%s; a new one starts in %.1f s", reason, backoff)
            self._count_crash()
            self._report(IDLE)
            await asyncio.sleep(backoff)

    async def _run_worker(self, incarnation: int, ready: asyncio.Future[Ready]) -> tuple[bool, str]:
        """Run one worker until it ends: whether it was ever ready, and why it ended."""
        async with self._worker(incarnation) as (process, socket):
            listening = asyncio.create_task(self._listen(socket, ready))
            exited = asyncio.create_task(process.wait())
            try:
                await asyncio.wait({listening, exited}, return_when=asyncio.FIRST_COMPLETED)
                if process.returncode == CANT_START:  # its last words may be on their way
                    await asyncio.wait({listening}, timeout=STOP_SECONDS)
            finally:
                was_ready, self.is_ready, self._socket = self.is_ready, False, None
                listening.cancel()
                exited.cancel()
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
            config = msgspec.structs.replace(self._config, endpoint=endpoint)
            process.stdin.write(msgspec.json.encode(config) + b"\n")
            try:
                yield process, socket
            finally:
                await _end(process)
                self.worker_pid = None

    async def _listen(self, socket: zmq.asyncio.Socket, ready: asyncio.Future[Ready]) -> str:
        """Handle the worker's messages; returns only when it says why it can't start."""
        while True:
            frame = await socket.recv()
            message = decode_from_engine(frame)
            match message:
                case Loading():
                    self._on_loading(message)
                case Ready():
                    if not ready.done():
                        ready.set_result(message)
                    self._resume(socket)
                case StartFailed(reason=reason):
                    return reason
                case _:
                    self._handle(message)

    def _resume(self, socket: zmq.asyncio.Socket) -> None:
        """Give a new worker all that the last one owed."""
        self._socket, self.is_ready = socket, True
        for pending in self._pending.values():
            self._post(Submit(request=pending.request))

    def _handle(self, message: FromEngine) -> None:
        match message:
            case Finished(request_id=request_id):
                pending = self._pending.get(request_id)
                if pending is not None and not pending.answer.done():
                    pending.answer.set_result(message)
            case Failed(request_id=request_id, code=code, message=text, param=param):
                pending = self._pending.get(request_id)
                if pending is not None and not pending.answer.done():
                    pending.answer.set_exception(REQUEST_ERRORS[code](text, param=param))
            case Activity():
                self._report(message)

    def _report(self, activity: Activity) -> None:
        self.activity = activity
        for listener in list(self._listeners):
            listener(activity)

    def _count_crash(self) -> None:
        for pending in self._pending.values():
            pending.crashes += 1
            if pending.crashes >= MAX_CRASHES and not pending.answer.done():
                pending.answer.set_exception(
                    EngineCrash(f"the engine died {pending.crashes} times with this request aboard")
                )

    def _post(self, message: ToEngine) -> None:
        """Send, if there is a worker; if not, the next one gets every pending request."""
        if self._socket is not None:
            self._socket.send(encode(message))


async def _end(process: asyncio.subprocess.Process) -> None:
    """Tell the worker to end, wait a little, and then insist."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
