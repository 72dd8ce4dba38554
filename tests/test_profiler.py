"""What steps cost, as it is measured."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from chairlift.errors import StepFailed
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
    assert lines[-1] == "4 rows of 64x64 don't fit into memory"


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
