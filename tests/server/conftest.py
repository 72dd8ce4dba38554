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
    with EngineThread(WorkerConfig(model="fake")) as engine:
        yield engine


@pytest.fixture(scope="session")
def client(engine: EngineThread) -> EngineClient:
    return engine.client


@pytest.fixture(scope="session")
def http(engine: EngineThread) -> Iterator[httpx.Client]:
    with engine.serve() as http:
        yield http
