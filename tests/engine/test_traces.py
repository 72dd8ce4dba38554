"""Neighbours don't matter: rows that join, leave, fail and are cancelled at random beside others
give the pictures that they give alone.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from chairlift.engine import loop as engine_loop
from chairlift.engine.files import encode_file
from chairlift.engine.loop import Loop
from chairlift.engine.messages import Activity, Cancel, FromEngine, Submit
from chairlift.models.adapter import Adapter
from chairlift.models.fake import FakeModel
from chairlift.models.registry import load_model
from chairlift.request import GenerationRequest, Prompt
from chairlift.scheduling.scheduler import Scheduler
from chairlift.validation import create_request
from tests.company import Outcome, compare_with_alone, create_loop, random_requests, run_company

GUIDANCE_SCALES = [0.0, 1.0, 3.0, 7.5]


@pytest.mark.parametrize("batching", ["continuous", "dynamic", "off"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_traces_of_the_fake_model(seed: int, batching: str, record_property: Any) -> None:
    rng = random.Random(seed)
    adapter = FakeModel()
    sizes = [(64, 64), (64, 64), (32, 64), (8, 8)]
    requests = random_requests(adapter, rng, 200, sizes, guidance_scale=GUIDANCE_SCALES)
    outcome = run_company(adapter, requests, rng, batching)
    assert outcome.failed
    count, identical = compare_with_alone(adapter, requests, outcome)
    assert count > 200
    record_property("pictures", count)
    record_property("identical", identical)


@pytest.mark.parametrize("seed", [1, 2])
def test_random_traces_of_the_bundled_model(seed: int, record_property: Any) -> None:
    rng = random.Random(seed)
    adapter = load_model(device="cpu")
    sizes = [(128, 128), (128, 128), (128, 96), (16, 16)]
    requests = random_requests(adapter, rng, 60, sizes, guidance_scale=GUIDANCE_SCALES)
    outcome = run_company(adapter, requests, rng)
    count, identical = compare_with_alone(adapter, requests, outcome)
    record_property("pictures", count)
    record_property("identical", identical)


LEAK = "/home/operator/secret at 0x7f3a5c"
"""What no caller may be told."""


class Saboteur(FakeModel):
    """Fails on the rows of one prompt, wherever it is told to."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        [self.mark] = super().encode([Prompt("bad")])

    def schedule(self, request: GenerationRequest) -> Any:
        if self.where == "schedule" and request.prompt == "bad":
            raise ValueError(LEAK)
        return super().schedule(request)

    def encode(self, prompts: Any) -> Any:
        if self.where == "encode" and Prompt("bad") in prompts:
            raise RuntimeError(LEAK)
        return super().encode(prompts)

    def predict(self, batch: Any) -> Any:
        bad = (batch.conditioning["words"] == self.mark.tensors["words"]).all(dim=1)
        if bool(bad.any()):
            match self.where:
                case "step":
                    raise RuntimeError(LEAK)
                case "memory of the host":
                    torch.empty(2**60, dtype=torch.uint8)  # There is no such machine.
                case "memory of the device":
                    raise torch.OutOfMemoryError(LEAK)
        prediction = super().predict(batch)
        if made := {"nan": torch.nan, "infinite": torch.inf, "decode": 1e9}.get(self.where):
            prediction[bad[batch.guided :]] = made
        return prediction

    def decode(self, latents: Any) -> Any:
        if self.where == "decode" and bool((latents.abs() > 1e6).any()):
            raise RuntimeError(LEAK)
        return super().decode(latents)


def encode_no_bad_file(pixels: Any, request: GenerationRequest, *more: Any) -> bytes:
    """As an image library that fails on the files of one prompt."""
    if request.prompt == "bad":
        raise OSError(LEAK)
    return encode_file(pixels, request, *more)


@pytest.mark.parametrize(
    ("where", "code"),
    [
        ("schedule", "schedule_failed"),
        ("encode", "encode_failed"),
        ("step", "step_failed"),
        ("memory of the host", "step_failed"),
        ("memory of the device", "step_failed"),
        ("nan", "numerical_error"),
        ("infinite", "numerical_error"),
        ("decode", "decode_failed"),
        ("file", "decode_failed"),
    ],
)
def test_one_row_fails_alone_and_nobody_is_told_what_was_said_inside(
    where: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = Saboteur(where)
    requests = [
        create_request(
            adapter.card,
            id=str(number),
            prompt="bad" if number % 5 == 2 else "good",
            # Schedules are kept, and so the bad ones must differ from the good ones.
            steps=9 if number % 5 == 2 else 10,
            seed=number,
        )
        for number in range(20)
    ]
    with monkeypatch.context() as patch:
        if where == "file":
            patch.setattr(engine_loop, "encode_file", encode_no_bad_file)
        outcome = run_together(adapter, requests)
    bad = {request.id for request in requests if request.prompt == "bad"}
    assert outcome.failed == dict.fromkeys(bad, code)
    assert outcome.finished.keys() == {request.id for request in requests} - bad
    assert not any(LEAK in message or "secret" in message for message in outcome.messages)
    count, identical = compare_with_alone(FakeModel(), requests, outcome)
    assert count == identical == 16


def run_together(adapter: Adapter, requests: list[GenerationRequest]) -> Outcome:
    loop, outcome = create_loop(adapter, "continuous", max_batch_size=8)
    for request in requests:
        loop.send(Submit(request=request))
    while len(outcome.ended) < len(requests):
        loop.turn()
    return outcome


class Glutton(FakeModel):
    """Has memory for three rows."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[int] = []

    def predict(self, batch: Any) -> Any:
        rows = len(batch.latents) - batch.guided
        if rows > 3:
            self.refused.append(rows)
            raise torch.OutOfMemoryError("no memory")
        return super().predict(batch)


def test_a_batch_that_is_too_large_for_the_memory_is_split_and_not_tried_again() -> None:
    adapter = Glutton()
    requests = [
        create_request(adapter.card, id=str(number), prompt="a", seed=number, steps=20)
        for number in range(8)
    ]
    outcome = run_together(adapter, requests)
    assert not outcome.failed
    assert adapter.refused == [8, 4, 4]  # and then 2 rows a tick
    count, identical = compare_with_alone(FakeModel(), requests, outcome)
    assert count == identical == 8


def test_a_row_for_which_there_is_no_memory_fails_alone() -> None:
    adapter = FakeModel()

    def predict(batch: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    adapter.predict = predict  # type: ignore[method-assign]
    outcome = run_together(adapter, [create_request(adapter.card, id="a", prompt="a")])
    assert outcome.failed == {"a": "step_failed"}


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
    loop = Loop(adapter, scheduler, sink)
    loop.send(Submit(request=create_request(adapter.card, id="a", prompt="a", steps=200)))
    while not reports:
        loop.turn()
    assert reports[-1].running == 1
    loop.send(Cancel(request_id="a"))
    loop.turn()  # Reads the message at its end.
    loop.send(Cancel(request_id="nobody"))
    loop.turn()
    assert (reports[-1].running, reports[-1].waiting, reports[-1].backlog_seconds) == (0, 0, 0.0)


def test_slots_grow_with_the_rows_and_change_nothing() -> None:
    adapter = FakeModel()
    requests = [
        create_request(adapter.card, id=str(number), prompt="a boat", seed=number, steps=20)
        for number in range(40)
    ]
    loop, outcome = create_loop(adapter, "continuous", max_batch_size=20)
    for request in requests:  # Two more at every turn.
        loop.send(Submit(request=request))
        if int(request.id) % 2:
            loop.turn()
    while len(outcome.ended) < len(requests):
        loop.turn()
    count, identical = compare_with_alone(adapter, requests, outcome)
    assert count == identical == 40
