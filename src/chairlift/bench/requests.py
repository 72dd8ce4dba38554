"""What is sent, and when: requests with their arrivals, all known before the first is sent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from chairlift.bench.kinds import Kind
from chairlift.bench.prompts import Prompts
from chairlift.errors import ConfigurationError
from chairlift.simulate.arrivals import create_generators, gamma_times
from chairlift.simulate.workload import Job, draw_kinds, steps_at


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRequest:
    """One request."""

    number: int
    """From 0 on, in order of arrival."""
    arrival_s: float
    """When it is to be sent, from the start."""
    group: str
    """What it is reported under."""
    kind: Kind
    steps: int | None
    """Its own; None leaves it to the server."""
    prompt: str

    @property
    def body(self) -> dict[str, Any]:
        return self.kind.body(self.prompt, self.steps)


def draw_requests(
    kinds: Sequence[Kind],
    prompts: Prompts,
    *,
    count: int,
    rate: float,
    burstiness: float = 1.0,
    seed: int,
) -> list[PlannedRequest]:
    """Requests from a seed. With the simulator's mixes and a burstiness of 1, they are the jobs
    that ``chairlift simulate`` draws from the same seed.

    Args:
        kinds: What they are, by their weights.
        prompts: What they show.
        count: How many.
        rate: Requests a second in the mean; infinite sends all at once.
        burstiness: Shape of the gamma-distributed times between them: 1 is a Poisson process,
            below it they come in bursts, above more evenly.
        seed: Of all that is drawn.
    """
    what, when = create_generators(seed)
    arrivals = (
        [0.0] * count if math.isinf(rate) else gamma_times(when, count, rate, burstiness).tolist()
    )
    numbers, places = draw_kinds([kind.weight for kind in kinds], count, what)
    requests = []
    for number, (arrival, place) in enumerate(zip(arrivals, places, strict=True)):
        kind = kinds[numbers[number]]
        request = PlannedRequest(
            number=number,
            arrival_s=arrival,
            group=kind.name,
            kind=kind,
            steps=None if kind.steps is None else steps_at(float(place), *kind.steps),
            prompt=prompts(number),
        )
        requests.append(request)
    return requests


def replay_requests(jobs: Sequence[Job], default: Kind, prompts: Prompts) -> list[PlannedRequest]:
    """The jobs of a workload, with everything that they don't say from ``default``.

    Raises:
        ConfigurationError: A job is a video.
    """
    requests = []
    for number, job in enumerate(jobs):
        if job.frames != 1:
            raise ConfigurationError(f"frames is {job.frames} in the workload; it must be 1 here")
        shape = replace(
            default, width=job.width, height=job.height, n=None if job.n == 1 else job.n
        )
        kind = replace(
            shape,
            steps=(job.steps, job.steps),
            deadline_s=job.deadline_s,
            priority=job.priority or None,
            caller=job.caller or None,
        )
        request = PlannedRequest(
            number=number,
            arrival_s=job.arrival_s,
            group=shape.name,
            kind=kind,
            steps=job.steps,
            prompt=prompts(number),
        )
        requests.append(request)
    return requests
