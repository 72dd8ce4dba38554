"""One cluster for all tests of a file that need a real one, and a single server beside it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from chairlift.engine.worker_config import WorkerConfig
from chairlift.server.access import Access
from tests.cluster.running import KEY, Cluster, running_cluster
from tests.running import EngineThread


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def single() -> Iterator[httpx.Client]:
    """The single server beside it, which takes less time for the same pictures."""
    with (
        EngineThread(WorkerConfig(model="fake")) as engine,
        engine.serve(access=Access(keys=(KEY,))) as http,
    ):
        http.headers["Authorization"] = f"Bearer {KEY}"
        yield http
