"""The front end's side of the engine: what happens when the worker dies, can't start, or ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path

import pytest

from chairlift.engine import supervisor
from chairlift.engine.client import EngineClient
from chairlift.engine.messages import Activity, Finished
from chairlift.engine.worker_config import WorkerConfig
from chairlift.errors import ConfigurationError, EngineCrash, Unavailable
from chairlift.request import GenerationRequest
from tests.builders import a_request
from tests.running import PATIENCE_SECONDS, EngineThread, wait_until

FAKE = WorkerConfig(model="fake")

caller: ContextVar[str | None] = ContextVar("caller", default=None)


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineThread]:
    with EngineThread(FAKE) as engine:
        yield engine


@pytest.fixture
def client(engine: EngineThread) -> EngineClient:
    """Whatever the last test has done to its worker, there is one again."""
    wait_until(lambda: engine.client.is_ready)
    return engine.client


def some_requests(prefix: str) -> list[GenerationRequest]:
    """Two groups; the first is some seconds' work."""
    return [
        a_request(f"{prefix}0", seed=0, n=2, steps=200, sampler="heun", width=512, height=512),
        a_request(f"{prefix}1", seed=1, n=2, steps=100, width=256, height=128),
    ]


def a_long_request(id: str) -> GenerationRequest:
    """Many seconds' work."""
    return a_request(id, n=10, steps=200, sampler="heun", width=512, height=512)


def submit(engine: EngineThread, request: GenerationRequest) -> Future[Finished]:
    async def generate() -> Finished:
        return await engine.client.submit(request).answer

    return engine.start(generate())


def images(futures: list[Future[Finished]]) -> list[list[bytes]]:
    return [future.result(PATIENCE_SECONDS).images for future in futures]


def worker_pid(client: EngineClient) -> int | None:
    """That of the only worker, while there is one."""
    return next(iter(client.worker_pids), None)


def kill_worker(client: EngineClient) -> None:
    [pid] = client.worker_pids
    os.kill(pid, signal.SIGKILL)


@contextmanager
def killed_when_riding(client: EngineClient, request_id: str) -> Iterator[None]:
    """The worker dies as soon as this request, which is submitted in here, has made a step."""
    killed = threading.Event()

    def listener(activity: Activity) -> None:
        riders = {rider.row.request_id for tick in activity.ticks for rider in tick.riders}
        if request_id in riders and not killed.is_set():
            kill_worker(client)
            killed.set()

    stop = client.listen(listener)
    yield
    assert killed.wait(PATIENCE_SECONDS)
    stop()


@contextmanager
def killed_whenever_riding(client: EngineClient, request_id: str) -> Iterator[None]:
    """Every worker dies as soon as this request has made a step in it."""
    killed: set[int | None] = set()

    def listener(activity: Activity) -> None:
        riders = {rider.row.request_id for tick in activity.ticks for rider in tick.riders}
        if request_id in riders and worker_pid(client) not in killed:
            killed.add(worker_pid(client))
            kill_worker(client)

    stop = client.listen(listener)
    yield
    stop()


def process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# ---------------------------------------------------------------------- a worker that dies


def test_requests_aboard_a_killed_worker_get_the_same_pictures(
    engine: EngineThread, client: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    restarts: list[None] = []
    monkeypatch.setattr(client, "on_restart", lambda: restarts.append(None))
    expected = images([submit(engine, request) for request in some_requests("calm")])
    killed_pid = worker_pid(client)

    with killed_when_riding(client, "rough0"):
        futures = [submit(engine, request) for request in some_requests("rough")]
    assert not futures[0].done()

    assert images(futures) == expected
    assert client.pending_rows == 0
    assert worker_pid(client) != killed_pid
    assert len(restarts) == 1


def test_what_ends_a_whole_service_does_not_end_a_worker(
    engine: EngineThread, client: EngineClient
) -> None:
    """Its requests are still to be finished; the front end says when it is enough."""
    before = worker_pid(client)
    assert before is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(before, number)
    assert images([submit(engine, request) for request in some_requests("service")])
    assert worker_pid(client) == before


def test_a_request_that_kills_again_and_again_is_given_up_alone(
    engine: EngineThread, client: EngineClient, caplog: pytest.LogCaptureFixture
) -> None:
    def name_caller(record: logging.LogRecord) -> bool:
        record.caller = caller.get()
        return True

    async def generate(request: GenerationRequest) -> Finished:
        caller.set(request.id)
        return await client.submit(request).answer

    caplog.handler.addFilter(name_caller)
    expected = images([submit(engine, a_request("calm", n=2))])
    with killed_whenever_riding(client, "blamed"):
        requests = [a_long_request("blamed"), a_long_request("other"), a_request("last", n=2)]
        blamed, *others = [engine.start(generate(request)) for request in requests]
        with pytest.raises(EngineCrash, match="died 3 times with this request, the last time with"):
            blamed.result(PATIENCE_SECONDS)
    assert images(others)[1:] == expected
    alone = [record for record in caplog.records if "is run alone" in record.message]
    assert ("blamed",) in [record.args for record in alone]
    assert {vars(record)["caller"] for record in alone} == {None}  # It is nobody's line.


def test_a_worker_that_hangs_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    with EngineThread(FAKE, hang_seconds=1.0) as engine:
        expected = images([submit(engine, request) for request in some_requests("calm")])
        client = engine.client
        [pid] = client.worker_pids
        os.kill(pid, signal.SIGSTOP)
        assert images([submit(engine, request) for request in some_requests("stopped")]) == expected
        assert client.silent_seconds == 0
    assert "has work and has said nothing for 1 s" in caplog.text


def test_a_worker_without_work_may_be_silent() -> None:
    with EngineThread(FAKE, hang_seconds=0.5) as engine:
        pid = worker_pid(engine.client)
        time.sleep(1.5)
        assert images([submit(engine, a_request("late"))])
        assert worker_pid(engine.client) == pid


def test_a_request_whose_caller_gives_up_is_forgotten(
    engine: EngineThread, client: EngineClient
) -> None:
    waiting = submit(engine, a_long_request("a"))
    wait_until(lambda: client.pending_rows == 10)
    waiting.cancel()
    wait_until(lambda: client.pending_rows == 0)
    assert submit(engine, a_request("b")).result(PATIENCE_SECONDS).images


def test_a_request_that_can_not_be_sent_is_not_accepted(
    engine: EngineThread, client: EngineClient
) -> None:
    with pytest.raises(UnicodeEncodeError):
        submit(engine, replace(a_request("a"), caller="\ud800")).result(PATIENCE_SECONDS)
    assert not client.rides
    assert client.pending_rows == 0


# ---------------------------------------------------------------------- the end


def test_closing_ends_the_process_and_answers_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def live() -> None:
        client = EngineClient(FAKE)
        starting = asyncio.create_task(client.start())
        while not (folders := list(tmp_path.iterdir())):
            await asyncio.sleep(0)
        assert folders[0].stat().st_mode & 0o077 == 0  # for nobody else
        await starting
        assert not list(tmp_path.iterdir())  # Who is connected needs no file.
        pid = worker_pid(client)
        assert pid is not None

        waiting = client.submit(a_long_request("late")).answer
        await client.close()

        with pytest.raises(Unavailable, match="shutting down"):
            await waiting
        with pytest.raises(Unavailable, match="shutting down"):
            client.submit(a_request("later"))
        assert not process_exists(pid)
        assert not client.is_ready
        await client.close()  # again is nothing

    asyncio.run(live())


def test_closing_what_was_never_started_touches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "precious").write_text("mine")
    asyncio.run(EngineClient(FAKE).close())
    assert (tmp_path / "precious").read_text() == "mine"


# ---------------------------------------------------------------------- a worker that can't start


def test_a_worker_that_can_not_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    client = EngineClient(WorkerConfig(model="fake", device="abacus"))
    with pytest.raises(ConfigurationError, match="device is 'abacus'; it must be auto, cpu or"):
        asyncio.run(client.start())
    assert not list(tmp_path.iterdir())


def test_a_worker_that_dies_while_it_loads_is_tried_again_a_few_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_BACKOFF_SECONDS", 0.01)
    killed: set[int] = set()

    async def start(deaths: int) -> None:
        client = EngineClient(FAKE)
        starting = asyncio.create_task(client.start())
        while not starting.done():
            pid = worker_pid(client)
            if pid is not None and pid not in killed and len(killed) < deaths:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.01)
        await starting
        await client.close()

    asyncio.run(start(deaths=1))
    assert len(killed) == 1
    killed.clear()
    with pytest.raises(ConfigurationError, match="engine process 0 ended with status -9"):
        asyncio.run(start(deaths=100))
    assert len(killed) == supervisor.START_ATTEMPTS


def test_a_worker_that_is_stopped_while_it_loads_is_replaced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def start() -> None:
        client = EngineClient(FAKE, hang_seconds=0.1)
        starting = asyncio.create_task(client.start())
        while (stopped := worker_pid(client)) is None:
            await asyncio.sleep(0.01)
        os.kill(stopped, signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr(supervisor, "MIN_LOADING_SILENCE_SECONDS", 0.2)
            while worker_pid(client) == stopped:
                await asyncio.sleep(0.01)
        await starting
        assert worker_pid(client) != stopped
        await client.close()

    asyncio.run(start())
    assert "loads and has said nothing for 0.2 s" in caplog.text


def test_a_socket_folder_that_is_too_deep_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(ConfigurationError, match=r"can't be started: .*longer than"):
        asyncio.run(EngineClient(FAKE).start())
    assert not list(deep.iterdir())


def test_giving_up_while_it_loads_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def start_and_give_up() -> int:
        client = EngineClient(FAKE)
        starting = asyncio.create_task(client.start())
        while (pid := worker_pid(client)) is None:
            await asyncio.sleep(0.01)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        return pid

    assert not process_exists(asyncio.run(start_and_give_up()))
    assert not list(tmp_path.iterdir())


def test_a_worker_that_can_not_be_started_again_is_a_failure_until_one_can(
    engine: EngineThread, client: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "config", WorkerConfig(model="fake", device="abacus"))
    kill_worker(client)
    wait_until(lambda: client.failure is not None)
    assert "device is 'abacus'" in str(client.failure)
    assert not client.is_ready
    monkeypatch.undo()
    assert images([submit(engine, a_request("later"))])
    assert client.failure is None
