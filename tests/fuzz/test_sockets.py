"""Bytes that aren't messages, on both ends of the socket between front end and engine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil
import pytest
import zmq
from hypothesis import given
from hypothesis.strategies import binary, one_of

from chairlift.engine.courier import MAX_MESSAGE_BYTES
from chairlift.engine.messages import (
    Finished,
    FromEngine,
    Ready,
    Submit,
    decode_from_engine,
    decode_to_engine,
    encode,
)
from chairlift.engine.worker_config import WorkerConfig
from tests.builders import a_request
from tests.fuzz.frames import FRAMES
from tests.fuzz.mutations import mutated, tried
from tests.running import PATIENCE_SECONDS, EngineThread, wait_until


class FrontEnd:
    """A front end that says what it likes to a worker of its own."""

    def __init__(self, peer: zmq.Socket[bytes], worker: subprocess.Popen[bytes], log: Path) -> None:
        self._worker = worker
        self._peer = peer
        self._log = log

    def send(self, frame: bytes) -> None:
        self._peer.send(frame)

    def hear(self, kind: type[FromEngine]) -> FromEngine:
        """The next message of a kind."""
        while self._peer.poll(1000 * PATIENCE_SECONDS):
            message = decode_from_engine(self._peer.recv())
            if isinstance(message, kind):
                return message
        raise AssertionError(f"no {kind.__name__} came")

    def check_that_it_serves(self) -> None:
        """A request is answered."""
        self.send(encode(Submit(request=a_request("still there?", steps=1))))
        self.hear(Finished)

    @property
    def resident_bytes(self) -> int:
        size: int = psutil.Process(self._worker.pid).memory_info().rss
        return size

    @property
    def said(self) -> str:
        """What the worker has logged."""
        return self._log.read_text()


@contextmanager
def front_end(folder: Path) -> Iterator[FrontEnd]:
    endpoint = f"ipc://{folder}/worker"
    config = msgspec.json.encode(WorkerConfig(model="fake", endpoint=endpoint)).decode()
    command = [sys.executable, "-m", "chairlift.engine.worker", config]
    log = folder / "stderr"
    with log.open("w") as said, zmq.Context() as context, context.socket(zmq.PAIR) as peer:
        peer.setsockopt(zmq.LINGER, 0)
        peer.bind(endpoint)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=said) as worker:
            assert worker.stdin is not None
            end = FrontEnd(peer, worker, log)
            end.hear(Ready)
            yield end
            assert worker.poll() is None
            worker.stdin.close()


def is_message(frame: bytes) -> bool:
    """Whether the worker would obey."""
    try:
        decode_to_engine(frame)
    except msgspec.MsgspecError:
        return False
    return True


GARBAGE = one_of(binary(max_size=100), mutated(FRAMES)).filter(lambda frame: not is_message(frame))


def test_a_worker_drops_what_is_no_message_and_serves_on(tmp_path: Path) -> None:
    with front_end(tmp_path) as end:
        end.check_that_it_serves()
        before, sent = end.resident_bytes, 0

        @tried(200)
        @given(frame=GARBAGE)
        def throw(frame: bytes) -> None:
            nonlocal sent
            end.send(frame)
            sent += 1

        throw()
        for size in [2**20] * 200 + [MAX_MESSAGE_BYTES + 1, 64 * 2**20]:
            end.send(b"\xc1" * size)  # So much in all would be noticed.
            sent += 1
        end.check_that_it_serves()
        assert end.resident_bytes - before < 100 * 2**20
        # Lines are written by a thread of their own.
        wait_until(lambda: end.said.count("was dropped") == sent)
        assert end.said.count("was dropped: it is too large") == 2
        assert "Traceback" not in end.said


def test_no_stranger_finds_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with EngineThread(WorkerConfig(model="fake")):
        names = [connection.laddr for connection in psutil.Process().net_connections("unix")]
        bound = [Path(name) for name in names if name.startswith(str(tmp_path))]
        assert bound
        assert not any(path.exists() for path in bound)
