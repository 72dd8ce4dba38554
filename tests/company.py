"""Rows in random company, and the same rows alone."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from chairlift.engine.loop import Loop
from chairlift.engine.messages import Cancel, Failed, Finished, FromEngine, Submit
from chairlift.models.adapter import Adapter
from chairlift.request import GenerationRequest
from chairlift.scheduling.scheduler import Scheduler
from chairlift.validation import create_request
from tests.builders import file_pixels, largest_difference

PROMPTS = ["a red boat", "", "two cabins", "🚠", "a tent at night, a moon", "a boat " * 30]

CHOICES: Mapping[str, Sequence[Any]] = {
    "prompt": PROMPTS,
    "negative_prompt": [None, "", "dull", "a boat, a tent, a very long description " * 5],
    "steps": [1, 2, 5, 9],
    "seed": range(100),
    "n": [1, 1, 1, 2, 3],
}
"""What random requests choose from, whatever the family."""


@dataclass
class Outcome:
    """What a loop has said."""

    finished: dict[str, list[bytes]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    """Why they have failed."""

    def receive(self, message: FromEngine) -> None:
        if isinstance(message, Finished):
            assert message.request_id not in self.finished, "answered twice"
            self.finished[message.request_id] = message.images
        if isinstance(message, Failed):
            assert message.request_id not in self.failed, "answered twice"
            self.failed[message.request_id] = message.code
            self.messages.append(message.message)

    @property
    def ended(self) -> set[str]:
        return self.finished.keys() | self.failed.keys()


def create_loop(
    adapter: Adapter, batching: str, max_batch_size: int, delay: float = 0.0
) -> tuple[Loop, Outcome]:
    outcome = Outcome()
    scheduler = Scheduler(batching=batching, max_batch_size=max_batch_size, batch_delay=delay)
    # Without the settings, files differ only where pictures do.
    return Loop(adapter, scheduler, outcome.receive, metadata=False), outcome


def random_requests(
    adapter: Adapter,
    rng: random.Random,
    count: int,
    sizes: Sequence[tuple[int, int]],
    **choices: Sequence[Any],
) -> list[GenerationRequest]:
    """Requests whose every setting is drawn from :data:`CHOICES`, the model's samplers and
    ``choices``.
    """
    requests = []
    for number in range(count):
        width, height = rng.choice(sizes)
        everything = {**CHOICES, "sampler": adapter.card.samplers, **choices}
        settings = {name: rng.choice(values) for name, values in everything.items()}
        requests.append(
            create_request(adapter.card, id=str(number), width=width, height=height, **settings)
        )
    return requests


def run_company(
    adapter: Adapter,
    requests: Sequence[GenerationRequest],
    rng: random.Random,
    batching: str = "continuous",
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
        if rng.random() < 0.02 and (aboard := sorted(sent - outcome.ended)):
            loop.send(Cancel(request_id=rng.choice(aboard)))
        loop.turn()
    assert outcome.ended == {request.id for request in requests}
    assert set(outcome.failed.values()) <= {"cancelled"}
    return outcome


def run_alone(adapter: Adapter, request: GenerationRequest, image: int = 0) -> bytes:
    """The file of one row, served by itself at batch size 1."""
    loop, outcome = create_loop(adapter, "off", max_batch_size=1)
    loop.send(Submit(request=replace(request, id="alone", n=1, seed=request.seed + image)))
    while not outcome.ended:
        loop.turn()
    [file] = outcome.finished["alone"]
    return file


def compare_with_alone(
    adapter: Adapter, requests: Sequence[GenerationRequest], outcome: Outcome
) -> tuple[int, int]:
    """Check that every picture equals the same one alone, to 1/255 in any pixel.

    Returns:
        How many pictures there are, and how many are identical to the byte.
    """
    pictures = [
        (data, run_alone(adapter, request, image))
        for request in requests
        for image, data in enumerate(outcome.finished.get(request.id, []))
    ]
    for together, by_itself in pictures:
        assert largest_difference(file_pixels(together), file_pixels(by_itself)) <= 1
    return len(pictures), sum(a == b for a, b in pictures)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of two pictures in decibels; infinite if they are equal."""
    error = (a.double() - b.double()).square().mean()
    return float(10 * torch.log10(255**2 / error))
