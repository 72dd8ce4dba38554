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
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import msgspec
import zmq
import zmq.asyncio

from chairlift.card import ModelCard
from chairlift.engine.messages import (
    Accepted,
    Activity,
    Cancel,
    Failed,
    Finished,
    FromEngine,
    Loading,
    Preview,
    Ready,
    SetPolicy,
    StartFailed,
    Submit,
    ToEngine,
    decode_from_engine,
    encode,
)
from chairlift.engine.ride import Listener, Ride
from chairlift.engine.worker_config import CANT_START, WorkerConfig
from chairlift.errors import (
    REQUEST_ERRORS,
    ConfigurationError,
    EngineCrash,
    RequestCancelled,
    Unavailable,
)
from chairlift.request import GenerationRequest

logger = logging.getLogger(__name__)

MAX_CRASHES = 3
"""A request that was aboard when the worker died this often is given up."""
FIRST_BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 30.0
STOP_SECONDS = 5.0
"""How long a worker may take to end when it is told to."""

IDLE = Activity(ticks=[], running=0, waiting=0, backlog_seconds=0.0)


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
        self._rides: dict[str, Ride] = {}
        self._listeners: set[Callable[[Activity], None]] = set()
        self._ready: asyncio.Future[Ready] | None = None
        self._supervision: asyncio.Task[None] | None = None
        self._socket: zmq.asyncio.Socket | None = None
        self._folder: Path | None = None
        self.activity = IDLE
        """The last report."""
        self.on_restart: Callable[[], None] = lambda: None
        """Called when a worker has died and is going to be replaced."""
        self.on_end: list[Callable[[Ride], None]] = []
        """Called with every ride that has ended, whose answer is done; in the context in which it
        was submitted."""
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
        answers = [ride.answer for ride in self._rides.values()]
        if answers:
            await asyncio.wait(answers, timeout=seconds)

    async def close(self) -> None:
        """End the worker; what isn't finished fails with Unavailable."""
        self.is_closed = True
        if self._supervision is not None:
            self._supervision.cancel()
            await asyncio.wait({self._supervision})
        for ride in list(self._rides.values()):
            if not ride.answer.done():
                ride.answer.set_exception(Unavailable("the server is shutting down"))
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
        return sum(ride.request.n for ride in self._rides.values())

    @property
    def rides(self) -> Mapping[str, Ride]:
        """Requests that were accepted and have not ended, in the order in which they came."""
        return MappingProxyType(self._rides)

    def submit(self, request: GenerationRequest, listener: Listener | None = None) -> Ride:
        """Hand a request to the engine: it rides from here on, until its answer is done.

        Args:
            request: Its id is like no other's.
            listener: Told what comes before the answer.

        Raises:
            Unavailable: The client is closed. Every other error comes from the answer.
        """
        if self.is_closed:
            raise Unavailable("the server is shutting down")
        loop = asyncio.get_running_loop()
        ride = Ride(request, loop.create_future(), loop.time())
        if listener is not None:
            ride.listeners.add(listener)
        self._rides[request.id] = ride
        ride.answer.add_done_callback(partial(self._forget, request_id=request.id))
        self._post(Submit(request=request))
        return ride

    def cancel(self, request_id: str) -> bool:
        """End a request, which fails with RequestCancelled; whether it was here."""
        ride = self._rides.get(request_id)
        if ride is None or ride.answer.done():
            return False
        ride.answer.set_exception(RequestCancelled("the request was cancelled"))
        return True

    def set_policy(self, name: str) -> None:
        """Serve in the order of this policy from the next tick on, also in workers to come."""
        self._config = msgspec.structs.replace(self._config, policy=name)
        self._post(SetPolicy(name=name))

    @property
    def policy(self) -> str:
        """In which order requests are served."""
        return self._config.policy

    def _forget(self, answer: asyncio.Future[Finished], request_id: str) -> None:
        ride = self._rides.pop(request_id)
        if answer.cancelled() or isinstance(answer.exception(), RequestCancelled | Unavailable):
            self._post(Cancel(request_id=request_id))
        for listener in self.on_end:
            listener(ride)

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
        for ride in self._rides.values():
            ride.restart()
            self._post(Submit(request=ride.request))

    def _handle(self, message: FromEngine) -> None:
        match message:
            case Accepted(request_id=request_id) | Preview(row=(request_id, _)):
                if ride := self._rides.get(request_id):
                    ride.tell(message, asyncio.get_running_loop().time())
            case Finished(request_id=request_id):
                ride = self._rides.get(request_id)
                if ride is not None and not ride.answer.done():
                    ride.answer.set_result(message)
            case Failed(request_id=request_id, code=code, message=text, param=param):
                ride = self._rides.get(request_id)
                if ride is not None and not ride.answer.done():
                    ride.answer.set_exception(REQUEST_ERRORS[code](text, param=param))
            case Activity():
                self._report(message)

    def _report(self, activity: Activity) -> None:
        self.activity = activity
        now = asyncio.get_running_loop().time()
        for request_id, eta_s in activity.eta_s.items():
            if ride := self._rides.get(request_id):
                ride.due = now + eta_s
        for tick in activity.ticks:
            for rider in tick.riders:
                if ride := self._rides.get(rider.row.request_id):
                    ride.advance(rider)
            for request_id in {rider.row.request_id for rider in tick.riders}:
                if ride := self._rides.get(request_id):
                    ride.count_tick(len(tick.riders))
        for listener in list(self._listeners):
            listener(activity)

    def _count_crash(self) -> None:
        for ride in self._rides.values():
            ride.crashes += 1
            if ride.crashes >= MAX_CRASHES and not ride.answer.done():
                ride.answer.set_exception(
                    EngineCrash(f"the engine died {ride.crashes} times with this request aboard")
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
