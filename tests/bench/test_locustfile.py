"""What the Locust file asks for is what the API takes. Locust itself isn't needed."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from chairlift.models.registry import load_model
from chairlift.server.schema import ImageGenerationBody

FILE = Path(__file__).parents[2] / "examples" / "locustfile.py"


@pytest.fixture
def locustfile(monkeypatch: pytest.MonkeyPatch) -> Any:
    locust = types.ModuleType("locust")
    stand_ins: dict[str, Any] = {
        "HttpUser": object,
        "between": lambda low, high: None,
        "task": lambda weight: lambda method: method,
    }
    vars(locust).update(stand_ins)
    monkeypatch.setitem(sys.modules, "locust", locust)
    spec = importlib.util.spec_from_file_location("locustfile", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_habit_is_a_request_that_the_bundled_model_takes(locustfile: Any) -> None:
    card = load_model(None).card
    for habit in (locustfile.draft, locustfile.usual, locustfile.careful, locustfile.pair):
        for _ in range(20):
            body = {"prompt": locustfile.prompt()} | habit()
            ImageGenerationBody(**body).to_request(card, id="a")
