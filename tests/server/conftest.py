"""One engine for all tests of the server; every one of them is a real worker process away."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from chairlift.engine.client import EngineClient
from chairlift.engine.worker_config import WorkerConfig
from tests.running import EngineThread


@pytest.fixture(scope="session")
def engine() -> Iterator[EngineThread]:
    with EngineThread(WorkerConfig(model="fake", max_batch_size=16)) as engine:
        yield engine


@pytest.fixture(scope="session")
def client(engine: EngineThread) -> EngineClient:
    return engine.client


@pytest.fixture(scope="session")
def http(engine: EngineThread) -> Iterator[httpx.Client]:
    with engine.serve() as http:
        yield http


@pytest.fixture(scope="session")
def slow_engine() -> Iterator[EngineThread]:
    """A step takes 20 ms, so that there is time to do something meanwhile."""
    with EngineThread(WorkerConfig(model="fake:0.02", max_batch_size=16)) as engine:
        yield engine


@pytest.fixture(scope="session")
def slow_client(slow_engine: EngineThread) -> EngineClient:
    return slow_engine.client


@pytest.fixture(scope="session")
def slow_http(slow_engine: EngineThread) -> Iterator[httpx.Client]:
    with slow_engine.serve() as http:
        yield http
