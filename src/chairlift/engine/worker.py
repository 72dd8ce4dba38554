"""The engine as a process of its own: a loop, and a thread that moves messages.

Started by :class:`chairlift.engine.client.EngineClient` as ``python -m chairlift.engine.worker``;
its configuration comes as one line of JSON on standard input. When standard input ends, the front
end is gone, and so goes the worker.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections import deque
from pathlib import Path

import msgspec
import zmq

from chairlift.engine.loop import Loop
from chairlift.engine.memory import free_memory
from chairlift.engine.messages import (
    FromEngine,
    Loading,
    Ready,
    StartFailed,
    decode_to_engine,
    encode,
)
from chairlift.engine.worker_config import CANT_START, WorkerConfig
from chairlift.errors import ConfigurationError
from chairlift.logs import LineWriter
from chairlift.models.lora import LoraFile
from chairlift.models.registry import hide_progress_bars, load_model
from chairlift.scheduling.scheduler import Scheduler
from chairlift.tables import load_costs

logger = logging.getLogger("chairlift.engine.worker")  # not __name__, which is __main__

MAX_MESSAGE_BYTES = 4 * 2**20
"""A longer message to the engine is dropped; the longest real one holds two prompts."""


class Courier:
    """Moves messages between the socket, which belongs to one thread, and everybody else."""

    def __init__(self, endpoint: str) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PAIR)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._socket.connect(endpoint)
        self._outbox: deque[bytes] = deque()
        self._wake_read, self._wake_write = os.pipe()

    def send(self, message: FromEngine) -> None:
        """Post a message; from any thread, without waiting."""
        self._outbox.append(encode(message))
        os.write(self._wake_write, b"\0")

    def carry(self, loop: Loop) -> None:
        """Move messages until the process ends."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake_read, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
                self.flush()
            if self._socket in ready:
                self._receive(loop)

    def flush(self) -> None:
        """Hand all posted messages to the socket; only by the thread that carries."""
        while self._outbox:
            self._socket.send(self._outbox.popleft(), copy=False)

    def close(self) -> None:
        """Flush and close; only where no thread carries."""
        self.flush()
        self._socket.close()
        zmq.Context.instance().term()

    def _receive(self, loop: Loop) -> None:
        frame = self._socket.recv()
        try:
            loop.send(decode_to_engine(frame))
        except msgspec.MsgspecError as error:
            logger.error("a message of %d bytes was dropped: %s", len(frame), error)


def run(config: WorkerConfig) -> int:
    """Load the model, say so, and turn the loop until told to stop; the exit status."""
    courier = Courier(config.endpoint)

    def progress(part: str, done: int, total: int) -> None:
        courier.send(Loading(part=part, done=done, total=total))
        courier.flush()

    try:
        scheduler = Scheduler(
            batching=config.batching,
            policy=config.policy,
            costs=load_costs(config.costs),
            max_batch_size=config.max_batch_size,
            batch_delay=config.batch_delay,
        )
        adapter = load_model(
            config.model,
            device=config.device,
            dtype=config.dtype,
            load_format=config.load_format,
            loras=[LoraFile(name, Path(path)) for name, path in config.loras],
            offload_text_encoders=config.offload_text_encoders,
            preview_decoder=Path(config.preview_decoder) if config.preview_decoder else None,
            progress=progress,
        )
    except ConfigurationError as error:
        courier.send(StartFailed(reason=str(error)))
        courier.close()
        return CANT_START
    scheduler.limit_memory(free_memory(adapter.device))
    loop = Loop(adapter, scheduler, courier.send, strict=config.strict, metadata=config.metadata)
    threading.Thread(target=courier.carry, args=(loop,), name="courier", daemon=True).start()
    courier.send(Ready(card=adapter.card))
    loop.run()
    return 0


def _exit_with_parent(endpoint: str) -> None:
    # Not through sys.stdin, whose lock this thread would still hold while the interpreter ends.
    while os.read(0, 4096):
        pass
    # A front end that was killed has left its folder, with the sockets of all its workers.
    folder = Path(endpoint.removeprefix("ipc://")).parent
    with contextlib.suppress(OSError):
        for socket in folder.glob("worker-*"):
            socket.unlink(missing_ok=True)
        folder.rmdir()
    os._exit(0)


def main() -> None:
    # An interrupt on the terminal reaches every process; the front end decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    config = msgspec.json.decode(sys.stdin.buffer.readline(), type=WorkerConfig)
    logging.basicConfig(level=logging.INFO, handlers=[LineWriter(config.log_format)])
    hide_progress_bars()
    threading.Thread(
        target=_exit_with_parent, args=(config.endpoint,), name="parent", daemon=True
    ).start()
    sys.exit(run(config))


if __name__ == "__main__":
    main()
