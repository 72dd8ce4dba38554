"""Two workers behind one front end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from chairlift.engine.berth import Berth
from chairlift.engine.client import EngineClient
from chairlift.engine.messages import Activity, Finished
from chairlift.engine.worker_config import WorkerConfig
from chairlift.errors import ConfigurationError, EngineCrash, Unavailable
from chairlift.request import GenerationRequest
from tests.builders import a_request
from tests.running import PATIENCE_SECONDS, EngineThread, wait_until

SLOW = WorkerConfig(model="fake:0.02")


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineThread]:
    with EngineThread(SLOW, workers=2) as engine:
        yield engine


@pytest.fixture
def client(engine: EngineThread) -> EngineClient:
    """Whatever the last test has done to its workers, there are two again."""
    wait_until(lambda: len(engine.client.worker_pids) == 2)
    wait_until(lambda: all(berth.supervisor.is_ready for berth in berths(engine.client)))
    return engine.client


def berths(client: EngineClient) -> list[Berth]:
    return client._dispatcher.berths


class Witness:
    """By which workers each request was moved."""

    def __init__(self, client: EngineClient) -> None:
        self.seen: dict[str, list[int]] = {}
        client.listen(self._look)

    def _look(self, activity: Activity) -> None:
        for tick in activity.ticks:
            for rider in tick.riders:
                workers = self.seen.setdefault(rider.row.request_id, [])
                if tick.worker not in workers:
                    workers.append(tick.worker)


def some_requests(prefix: str, steps: int = 20) -> list[GenerationRequest]:
    return [a_request(f"{prefix} {seed}", seed=seed, steps=steps + seed) for seed in range(6)]


def submit(engine: EngineThread, request: GenerationRequest) -> Future[Finished]:
    async def generate() -> Finished:
        return await engine.client.submit(request).answer

    return engine.start(generate())


def images(futures: list[Future[Finished]]) -> list[list[bytes]]:
    return [future.result(PATIENCE_SECONDS).images for future in futures]


def test_both_get_work_and_make_the_same_pictures(
    engine: EngineThread, client: EngineClient
) -> None:
    witness = Witness(client)
    alone = [images([submit(engine, request)]) for request in some_requests("alone")]
    together = images([submit(engine, request) for request in some_requests("together")])
    assert together == [picture for pictures in alone for picture in pictures]
    assert {witness.seen[f"together {seed}"][0] for seed in range(6)} == {0, 1}
    assert all(len(workers) == 1 for workers in witness.seen.values())
    wait_until(lambda: client.activity.running == client.activity.waiting == 0)


def test_the_requests_of_a_killed_worker_go_on_at_the_other(
    engine: EngineThread, client: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    restarts: list[None] = []
    monkeypatch.setattr(client, "on_restart", lambda: restarts.append(None))
    expected = images([submit(engine, request) for request in some_requests("calm", 100)])
    killed, spared = client.worker_pids
    witness = Witness(client)
    is_ready: list[bool] = []

    def kill(activity: Activity) -> None:
        if len(witness.seen) == 6 and not is_ready:
            os.kill(killed, signal.SIGKILL)
            is_ready.append(client.is_ready)

    stop = client.listen(kill)
    futures = [submit(engine, request) for request in some_requests("rough", 100)]
    assert images(futures) == expected
    stop()
    assert is_ready == [True]
    assert [0, 1] in witness.seen.values()
    assert [1, 0] not in witness.seen.values()
    assert spared in client.worker_pids
    assert len(restarts) == 1
    assert client.pending_rows == 0


def test_who_kills_every_worker_is_given_up_and_nobody_else(
    engine: EngineThread, client: EngineClient
) -> None:
    expected = images([submit(engine, request) for request in some_requests("calm")])
    killed: set[int] = set()

    def kill(activity: Activity) -> None:
        for tick in activity.ticks:
            pid = berths(client)[tick.worker].supervisor.worker_pid
            if pid not in killed and any(rider.row.request_id == "bad" for rider in tick.riders):
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)

    stop = client.listen(kill)
    bad = submit(engine, a_request("bad", steps=200))
    others = [submit(engine, request) for request in some_requests("rough")]
    with pytest.raises(EngineCrash, match="died 3 times with this request"):
        bad.result(PATIENCE_SECONDS)
    assert images(others) == expected
    assert len(killed) == 3
    stop()


def test_one_that_hangs_is_replaced_while_the_other_serves() -> None:
    with EngineThread(SLOW, hang_seconds=2.0, workers=2) as engine:
        client = engine.client
        stopped, _ = client.worker_pids
        os.kill(stopped, signal.SIGSTOP)
        futures = [submit(engine, request) for request in some_requests("a")]
        assert images(futures)
        wait_until(lambda: stopped not in client.worker_pids)


def test_what_rides_at_either_arrives_before_the_end() -> None:
    async def live() -> None:
        client = EngineClient(SLOW, workers=2)
        await client.start()
        pids = client.worker_pids
        answers = [client.submit(request).answer for request in some_requests("a")]
        await client.drain(PATIENCE_SECONDS)
        assert all(answer.done() and answer.result().images for answer in answers)
        with pytest.raises(Unavailable, match="shutting down"):
            client.submit(a_request("late"))
        await client.close()
        assert len(pids) == 2
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)

    asyncio.run(live())


def test_there_are_as_many_as_devices() -> None:
    with EngineThread(WorkerConfig(model="fake"), workers=None) as engine:
        assert len(engine.client.worker_pids) == 1


def test_if_one_can_not_start_none_is_left() -> None:
    async def live() -> None:
        client = EngineClient(WorkerConfig(model="fake", device="abacus"), workers=2)
        with pytest.raises(ConfigurationError, match="device is 'abacus'"):
            await client.start()
        assert not client.worker_pids

    asyncio.run(live())
