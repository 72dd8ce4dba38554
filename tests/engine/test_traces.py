"""Neighbours don't matter: rows that join, leave, fail and are cancelled at random beside others
give the pictures that they give alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from chairlift.engine.loop import Loop
from chairlift.engine.messages import Activity, Cancel, Failed, Finished, FromEngine, Submit
from chairlift.models.adapter import Adapter
from chairlift.models.fake import FakeModel
from chairlift.models.registry import load_model
from chairlift.request import GenerationRequest, create_request
from chairlift.scheduling.scheduler import Scheduler
from tests.builders import file_pixels, largest_difference

PROMPTS = ["a red boat", "", "two cabins", "🚠", "a tent at night, a moon"]


@dataclass
class Outcome:
    """What a loop has said."""

    finished: dict[str, list[bytes]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def receive(self, message: FromEngine) -> None:
        if isinstance(message, Finished):
            assert message.request_id not in self.finished, "answered twice"
            self.finished[message.request_id] = message.images
        if isinstance(message, Failed):
            assert message.request_id not in self.failed, "answered twice"
            self.failed[message.request_id] = message.code

    @property
    def ended(self) -> set[str]:
        return self.finished.keys() | self.failed.keys()


def create_loop(
    adapter: Adapter, batching: str, max_batch_size: int, delay: float = 0.0
) -> tuple[Loop, Outcome]:
    outcome = Outcome()
    scheduler = Scheduler(batching=batching, max_batch_size=max_batch_size, batch_delay=delay)
    return Loop(adapter, scheduler, max_batch_size, outcome.receive), outcome


def random_request(
    adapter: Adapter, rng: random.Random, id: str, sizes: list[tuple[int, int]]
) -> GenerationRequest:
    width, height = rng.choice(sizes)
    settings: dict[str, Any] = {
        "prompt": rng.choice(PROMPTS),
        "negative_prompt": rng.choice(["", "", "dull", "a boat"]),
        "steps": rng.choice([1, 2, 5, 9]),
        "guidance_scale": rng.choice([0.0, 1.0, 3.0, 7.5]),
        "sampler": rng.choice(adapter.card.samplers),
        "seed": rng.randrange(100),
        "n": rng.choice([1, 1, 1, 2, 3]),
        "width": width,
        "height": height,
    }
    return create_request(adapter.card, id=id, **settings)


def run_trace(
    adapter: Adapter, requests: list[GenerationRequest], rng: random.Random, batching: str
) -> Outcome:
    """Requests arrive at random turns; now and then one is cancelled."""
    loop, outcome = create_loop(adapter, batching, max_batch_size=7)
    waiting, sent = list(requests), set[str]()
    while waiting or sent - outcome.ended:
        arrivals = rng.choice([0, 0, 1, 3]) if sent - outcome.ended else 1
        for request in waiting[:arrivals]:
            loop.send(Submit(request=request))
            sent.add(request.id)
        waiting = waiting[arrivals:]
        if rng.random() < 0.05 and (aboard := sorted(sent - outcome.ended)):
            loop.send(Cancel(request_id=rng.choice(aboard)))
        loop.turn()
    return outcome


class Alone:
    """Pictures of single rows, each served by itself at batch size 1; remembered."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._pictures: dict[Any, bytes] = {}

    def picture(self, request: GenerationRequest, image: int) -> bytes:
        key = (
            request.prompt,
            request.negative_prompt,
            request.steps,
            request.guidance_scale,
            request.sampler,
            request.width,
            request.height,
            request.seed + image,
        )
        if key not in self._pictures:
            loop, outcome = create_loop(self._adapter, "off", max_batch_size=1)
            single = create_request(
                self._adapter.card,
                id="alone",
                prompt=request.prompt,
                negative_prompt=request.negative_prompt,
                steps=request.steps,
                guidance_scale=request.guidance_scale,
                sampler=request.sampler,
                width=request.width,
                height=request.height,
                seed=request.seed + image,
            )
            loop.send(Submit(request=single))
            while not outcome.ended:
                loop.turn()
            [self._pictures[key]] = outcome.finished["alone"]
        return self._pictures[key]


def compare_with_alone(
    adapter: Adapter, requests: list[GenerationRequest], outcome: Outcome
) -> tuple[int, int]:
    """How many pictures there are, and how many are identical to the byte."""
    alone = Alone(adapter)
    pictures = [
        (data, alone.picture(request, image))
        for request in requests
        for image, data in enumerate(outcome.finished.get(request.id, []))
    ]
    for together, by_itself in pictures:
        assert largest_difference(file_pixels(together), file_pixels(by_itself)) <= 1
    return len(pictures), sum(a == b for a, b in pictures)


@pytest.mark.parametrize("batching", ["continuous", "dynamic", "off"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_traces_of_the_fake_model(seed: int, batching: str, record_property: Any) -> None:
    rng = random.Random(seed)
    adapter = FakeModel()
    sizes = [(64, 64), (64, 64), (32, 64), (8, 8)]
    requests = [random_request(adapter, rng, str(number), sizes) for number in range(200)]
    outcome = run_trace(adapter, requests, rng, batching)
    assert outcome.ended == {request.id for request in requests}
    assert set(outcome.failed.values()) == {"cancelled"}
    count, identical = compare_with_alone(adapter, requests, outcome)
    assert count > 200
    record_property("pictures", count)
    record_property("identical", identical)


@pytest.mark.parametrize("seed", [1, 2])
def test_random_traces_of_the_bundled_model(seed: int, record_property: Any) -> None:
    rng = random.Random(seed)
    adapter = load_model(device="cpu")
    sizes = [(128, 128), (128, 128), (128, 96), (16, 16)]
    requests = [random_request(adapter, rng, str(number), sizes) for number in range(60)]
    outcome = run_trace(adapter, requests, rng, "continuous")
    assert outcome.ended == {request.id for request in requests}
    assert set(outcome.failed.values()) <= {"cancelled"}
    count, identical = compare_with_alone(adapter, requests, outcome)
    record_property("pictures", count)
    record_property("identical", identical)


class Saboteur(FakeModel):
    """Fails on the rows of one prompt: in the encoder or the denoiser, or by making NaN."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        [self.mark] = super().encode(["bad"])

    def encode(self, prompts: Any) -> Any:
        if self.where == "encode" and "bad" in prompts:
            raise RuntimeError("no words")
        return super().encode(prompts)

    def predict(self, batch: Any) -> Any:
        bad = (batch.conditioning["words"] == self.mark.tensors["words"]).all(dim=1)
        if self.where == "step" and bool(bad.any()):
            raise RuntimeError("out of memory")
        prediction = super().predict(batch)
        if self.where == "nan":
            prediction[bad[batch.guided :]] = torch.nan
        return prediction


@pytest.mark.parametrize(
    ("where", "code"),
    [("encode", "encode_failed"), ("step", "step_failed"), ("nan", "numerical_error")],
)
def test_one_row_fails_alone(where: str, code: str) -> None:
    adapter = Saboteur(where)
    requests = [
        create_request(
            adapter.card, id=str(number), prompt="bad" if number % 5 == 2 else "good", seed=number
        )
        for number in range(20)
    ]
    outcome = run_together(adapter, requests)
    bad = {request.id for request in requests if request.prompt == "bad"}
    assert outcome.failed == dict.fromkeys(bad, code)
    assert outcome.finished.keys() == {request.id for request in requests} - bad
    count, identical = compare_with_alone(FakeModel(), requests, outcome)
    assert count == identical == 16


def run_together(adapter: Adapter, requests: list[GenerationRequest]) -> Outcome:
    loop, outcome = create_loop(adapter, "continuous", max_batch_size=8)
    for request in requests:
        loop.send(Submit(request=request))
    while len(outcome.ended) < len(requests):
        loop.turn()
    return outcome


class Unschedulable(FakeModel):
    """Has no schedule for three steps."""

    def schedule(self, request: GenerationRequest) -> Any:
        if request.steps == 3:
            raise ValueError("three is a crowd")
        return super().schedule(request)


def test_a_request_without_a_schedule_fails_alone() -> None:
    adapter = Unschedulable()
    requests = [
        create_request(adapter.card, id=str(steps), prompt="a", steps=steps) for steps in (2, 3, 4)
    ]
    outcome = run_together(adapter, requests)
    assert outcome.failed == {"3": "schedule_failed"}
    assert outcome.finished.keys() == {"2", "4"}


def test_a_cancelled_row_is_out_of_the_next_report() -> None:
    adapter, reports = FakeModel(), list[Activity]()

    def sink(message: FromEngine) -> None:
        if isinstance(message, Activity):
            reports.append(message)

    scheduler = Scheduler(batching="continuous", max_batch_size=2)
    loop = Loop(adapter, scheduler, 2, sink)
    loop.send(Submit(request=create_request(adapter.card, id="a", prompt="a", steps=200)))
    while not reports:
        loop.turn()
    assert reports[-1].running == 1
    loop.send(Cancel(request_id="a"))
    loop.turn()  # Reads the message at its end.
    loop.send(Cancel(request_id="nobody"))
    loop.turn()
    assert (reports[-1].running, reports[-1].waiting, reports[-1].backlog_seconds) == (0, 0, 0.0)
