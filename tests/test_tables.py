"""Cost tables on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chairlift.scheduling.costs import Shape
from chairlift.tables import load_costs

TABLE = {"model": "fake", "shapes": [{"width": 64, "height": 64, "step_seconds": {"1": 0.5}}]}


def test_a_table_of_another_model_is_taken_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(TABLE))
    load_costs(str(path), model="fake")
    assert caplog.messages == []
    costs = load_costs(str(path), model="other")
    assert costs.step(Shape(64, 64)).seconds(1) == 0.5
    assert caplog.messages == [f"the cost table {path} is of 'fake', not of 'other'"]
