"""The first picture, which nobody waits for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torch import Tensor

from chairlift.engine.warm_up import warm_up
from chairlift.models.adapter import ForwardBatch
from chairlift.models.fake import FakeModel
from chairlift.scheduling.costs import Costs, Shape
from tests.builders import create_video_card


class LargePictures(FakeModel):
    """Whose own size is more than a step before the first request may cost."""

    def __init__(self) -> None:
        super().__init__()
        defaults = replace(self.card.defaults, width=512, height=384)
        self.card = replace(self.card, defaults=defaults)


class WithoutSteps(FakeModel):
    def predict(self, batch: ForwardBatch) -> Tensor:
        raise RuntimeError("no step")


class WithoutPixels(FakeModel):
    def decode(self, latents: Tensor) -> Tensor:
        raise RuntimeError("no pixels")


def test_costs_are_known_before_the_first_request() -> None:
    costs = Costs()
    warm_up(FakeModel(step_seconds=0.01), costs)
    assert costs.shapes == [Shape(64, 64)]
    assert costs.step(Shape(64, 64)).points.keys() == {2}  # With guidance.
    assert costs.step(Shape(64, 64)).seconds(2) >= 0.01
    assert costs.encode(Shape(64, 64)) > 0
    assert costs.decode(Shape(64, 64)) > 0


def test_a_large_model_takes_its_first_step_with_a_small_picture() -> None:
    costs = Costs()
    warm_up(LargePictures(), costs)
    assert costs.shapes == [Shape(256, 256)]


def test_a_compiled_model_takes_its_first_step_with_what_it_is_compiled_for() -> None:
    costs = Costs()
    warm_up(LargePictures(), costs, small=False)
    assert costs.shapes == [Shape(512, 384)]


def test_a_video_is_short() -> None:
    costs, model = Costs(), FakeModel()
    model.card = create_video_card()
    warm_up(model, costs)
    assert costs.shapes == [Shape(64, 64, 5)]


def test_a_table_is_refined() -> None:
    shape = {"width": 64, "height": 64, "step_seconds": {"2": 5.0}}
    costs = Costs({"shapes": [shape]})
    warm_up(FakeModel(), costs)
    assert 4.0 < costs.step(Shape(64, 64)).seconds(2) < 5.0


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (WithoutSteps(), "a denoising step failed"),
        (WithoutPixels(), "the picture could not be decoded"),
    ],
    ids=["step", "decode"],
)
def test_a_model_that_makes_no_picture_starts_all_the_same(
    model: FakeModel, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    costs = Costs()
    warm_up(model, costs)
    assert costs.decode(Shape(64, 64)) == 0
    assert f"the first picture could not be made: {reason}" in caplog.text
