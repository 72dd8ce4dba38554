"""What steps cost, as it is measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from chairlift.cli.profile import describe, profile
from chairlift.errors import ConfigurationError, StepFailed
from chairlift.models.adapter import ForwardBatch
from chairlift.models.fake import FakeModel
from chairlift.profiler import Profiler, ShapeCosts


class SmallDevice(FakeModel):
    """Has memory for so many entries of a forward."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def predict(self, batch: ForwardBatch) -> Tensor:
        if len(batch.latents) > self._most:
            raise torch.OutOfMemoryError("too large")
        return super().predict(batch)


def test_forwards_that_are_too_large_are_not_measured_in_halves() -> None:
    lines: list[str] = []
    profiler = Profiler(SmallDevice(most=4), repeats=1, report=lines.append)
    assert profiler.measure(64, 64, [1, 2, 4, 8]).step_seconds.keys() == {1, 2}
    assert lines[-1] == "no memory for 4 rows of 64x64"


@pytest.mark.parametrize(
    ("option", "path", "message"),
    [
        ("output", "missing/cost.json", "missing/cost.json can't be written: there is no folder"),
        ("plot", "missing/cost.png", "missing/cost.png can't be written: there is no folder"),
        ("output", ".", "can't be written: it is a folder"),
    ],
)
def test_a_file_that_can_not_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, option: str, path: str, message: str
) -> None:
    files = {"output": tmp_path / "cost.json", "plot": None} | {option: tmp_path / path}
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        profile(model="no such model", **files)
    assert not (tmp_path / "cost.json").exists()


def test_a_size_that_is_given_twice_is_measured_once(tmp_path: Path) -> None:
    output = tmp_path / "cost.json"
    profile(model="fake", output=output, size=["64x64", "64x64"], rows="1", repeats=1)
    assert len(json.loads(output.read_text())["shapes"]) == 1


def test_a_plot_of_a_format_that_there_is_not_is_refused(tmp_path: Path) -> None:
    files = {"output": tmp_path / "cost.json", "plot": tmp_path / "cost.foo"}
    with pytest.raises(ConfigurationError, match=r"cost.foo can't be written: .*foo"):
        profile(model="fake", rows="1", repeats=1, **files)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        ({1: 0.2, 2: 0.2, 4: 0.4}, "64x64: the knee is 2 rows"),
        (
            {1: 0.2, 2: 0.2},
            "64x64: the knee is 2 rows, the most that was measured; it may be higher",
        ),
        ({1: 0.2, 2: 0.4}, "64x64: the knee is 1 row"),
    ],
)
def test_the_knee_is_said_in_rows(seconds: dict[int, float], words: str) -> None:
    assert describe(ShapeCosts(width=64, height=64, frames=1, step_seconds=seconds)) == words


def test_where_not_even_one_row_fits_nothing_is_measured() -> None:
    with pytest.raises(StepFailed, match="there is no memory for a denoising step"):
        Profiler(SmallDevice(most=1), repeats=1).measure(64, 64, [1])


@pytest.mark.parametrize(
    ("seconds", "knee"),
    [
        ({1: 0.167, 2: 0.183, 3: 0.186, 4: 0.240, 8: 0.425, 16: 0.832}, 8),
        ({1: 0.243, 2: 0.474, 3: 0.711}, 1),
        ({1: 1.0, 2: 1.0, 4: 1.0}, 4),
        ({1: 1.0}, 1),
    ],
)
def test_the_knee_is_the_last_count_that_made_a_row_cheaper(
    seconds: dict[int, float], knee: int
) -> None:
    assert ShapeCosts(width=512, height=512, frames=1, step_seconds=seconds).knee == knee
