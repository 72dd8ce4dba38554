"""A server that answers AUTOMATIC1111's clients."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.running import EngineThread


@pytest.fixture(scope="package")
def webui(engine: EngineThread) -> Iterator[httpx.Client]:
    with engine.serve(compat="a1111") as http:
        yield http
