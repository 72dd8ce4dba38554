"""The engine that the server's tests have too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chairlift.engine.worker_config import WorkerConfig
from tests.running import EngineThread


@pytest.fixture(scope="package")
def engine() -> Iterator[EngineThread]:
    with EngineThread(WorkerConfig(model="fake", max_batch_size=16)) as engine:
        yield engine
