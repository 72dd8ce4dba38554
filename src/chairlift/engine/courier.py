"""The courier: a thread of the worker that moves messages between its socket and everybody else.

It runs before anything heavy is imported, so that a worker that loads can be told from one that is
stopped; and so it knows no torch.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable

import msgspec
import zmq

from chairlift.engine.messages import Alive, FromEngine, ToEngine, decode_to_engine, encode

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 4 * 2**20
"""A longer message to the engine is dropped; the longest real one holds two prompts."""
ALIVE_SECONDS = 1.0
"""The longest that the front end hears nothing while the model is loaded."""
LINGER_SECONDS = 1.0
"""How long the last words may take."""


class Courier:
    """Until :meth:`deliver_to` is called it says from time to time that the process runs; from
    then on only what others say is heard.

    Args:
        endpoint: ZeroMQ address of the front end's socket.
    """

    def __init__(self, endpoint: str) -> None:
        # From here on it belongs to the thread.
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PAIR)
        self._socket.setsockopt(zmq.LINGER, round(1000 * LINGER_SECONDS))
        self._socket.connect(endpoint)
        self._outbox: deque[bytes] = deque()
        self._wake_read, self._wake_write = os.pipe()
        self._deliver: Callable[[ToEngine], None] | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._carry, name="courier", daemon=True)
        self._thread.start()

    def send(self, message: FromEngine) -> None:
        """Post a message; from any thread, without waiting."""
        self._outbox.append(encode(message))
        self._wake()

    def deliver_to(self, deliver: Callable[[ToEngine], None]) -> None:
        """Call ``deliver``, on the courier's thread, with every message that comes."""
        self._deliver = deliver
        self._wake()

    def close(self) -> None:
        """Say what was posted, and end."""
        self._closing = True
        self._wake()
        self._thread.join()
        self._socket.close()
        zmq.Context.instance().term()

    def _wake(self) -> None:
        os.write(self._wake_write, b"\0")

    def _carry(self) -> None:
        self._socket.send(encode(Alive()))
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake_read, zmq.POLLIN)
        while not self._closing:
            ready = dict(poller.poll(None if self._deliver else round(1000 * ALIVE_SECONDS)))
            if not ready:
                self._socket.send(encode(Alive()))
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
            while self._outbox:
                self._socket.send(self._outbox.popleft(), copy=False)
            if self._socket in ready:
                self._receive()

    def _receive(self) -> None:
        frame = self._socket.recv()
        # Not by MAXMSGSIZE: ZeroMQ would break the connection, and never connect again.
        if len(frame) > MAX_MESSAGE_BYTES:
            logger.error("a message of %d bytes was dropped: it is too large", len(frame))
            return
        try:
            message = decode_to_engine(frame)
        except msgspec.MsgspecError as error:
            logger.error("a message of %d bytes was dropped: %s", len(frame), error)
            return
        if self._deliver is None:
            logger.error("a message was dropped: the engine isn't ready")
            return
        self._deliver(message)
