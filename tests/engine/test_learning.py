"""What the scheduler learns of the model while it serves."""

from __future__ import annotations

import time

import pytest
from torch import Tensor

from chairlift.engine.loop import Loop
from chairlift.engine.messages import Busy, Finished, FromEngine, Submit
from chairlift.engine.runner import Runner
from chairlift.models.fake import FakeModel
from chairlift.scheduling.costs import Costs, Shape
from chairlift.scheduling.scheduler import Scheduler
from tests.builders import a_request

DECODE_SECONDS = 0.02


class SlowDecoder(FakeModel):
    """Takes its time for each row."""

    def decode(self, latents: Tensor) -> Tensor:
        time.sleep(DECODE_SECONDS * len(latents))
        return super().decode(latents)


@pytest.mark.parametrize(("guidance_scale", "entries"), [(3.0, 2), (1.0, 1)])
def test_a_row_takes_as_many_entries_as_its_guidance_needs(
    guidance_scale: float, entries: int
) -> None:
    runner = Runner(FakeModel())
    [leg] = runner.legs(a_request(guidance_scale=guidance_scale))
    assert (leg.evaluations, leg.entries) == (10, entries)


def test_what_encoding_steps_and_decoding_take_is_learned_from_what_ran() -> None:
    scheduler, finished = Scheduler(), list[FromEngine]()

    def receive(message: FromEngine) -> None:
        if isinstance(message, Finished):
            finished.append(message)

    loop = Loop(SlowDecoder(), scheduler, receive)
    for number in range(4):
        loop.send(Submit(request=a_request(str(number), steps=5)))
    while len(finished) < 4:
        loop.turn()
    costs, shape = scheduler.costs, Shape(64, 64)
    assert costs.encode(shape) > 0
    assert costs.decode(shape) >= DECODE_SECONDS
    assert 8 in costs.step(shape).points  # Four rows with guidance.


def test_forwards_of_mixed_guidance_are_learned_by_their_entries() -> None:
    scheduler = Scheduler()
    loop = Loop(FakeModel(), scheduler, lambda message: None)
    for number, guidance_scale in enumerate([3.0, 1.0, 1.0]):
        request = a_request(str(number), steps=20, guidance_scale=guidance_scale)
        loop.send(Submit(request=request))
    for _ in range(10):
        loop.turn()
    assert 4 in scheduler.costs.step(Shape(64, 64)).points


def test_what_is_predicted_to_take_long_is_announced() -> None:
    shape = {
        "width": 64,
        "height": 64,
        "step_seconds": {"1": 20.0, "2": 30.0},
        "encode_seconds": {"1": 5.0},
        "decode_seconds": {"1": 7.0},
    }
    said = list[FromEngine]()
    loop = Loop(FakeModel(), Scheduler(costs=Costs({"shapes": [shape]})), said.append)
    loop.send(Submit(request=a_request(steps=1)))  # with guidance
    while not any(isinstance(message, Finished) for message in said):
        loop.turn()
    assert [message.seconds for message in said if isinstance(message, Busy)] == [35.0, 7.0]
