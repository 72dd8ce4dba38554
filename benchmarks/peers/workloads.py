"""What is asked for, and when."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chairlift.bench.kinds import Kind
from chairlift.bench.prompts import Prompts, draw_prompts
from chairlift.bench.requests import PlannedRequest, draw_requests

STEPS = 20
SIDE = 128
GUIDANCE_SCALE = 2.0
"""Of the requests that are all equal: the bundled model's defaults."""
BURSTINESS = 0.1
"""Shape of the gamma-distributed times between arrivals that come in bursts; 1 would be Poisson."""
LEAST_TURNS = 1.5
"""Requests for each client of a closed loop, at least."""
PROMPTS_APART = 300
"""Numbers of prompts between two workloads, so that none finds its prompts in a cache."""


def _kind(
    *,
    weight: float = 1.0,
    side: int = SIDE,
    steps: tuple[int, int] = (STEPS, STEPS),
    guidance_scale: float = GUIDANCE_SCALE,
) -> Kind:
    return Kind(weight=weight, width=side, height=side, steps=steps, guidance_scale=guidance_scale)


EQUAL = (_kind(),)
MIXED_STEPS = (_kind(steps=(10, 50)),)
MIXED_GUIDANCE = (
    *(_kind(guidance_scale=scale) for scale in (1.5, 2.0, 3.0, 5.0)),
    _kind(guidance_scale=1.0),  # No classifier-free guidance.
)
MIXED_SIZES = tuple(_kind(side=side) for side in (96, 128, 160))


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """A run of requests."""

    name: str
    title: str
    """For tables."""
    length: float
    """How long it is beside the others, as the best peer would take for it."""
    load: float | None = None
    """Of what the best peer serves at most, when requests come by themselves; None is all at
    once."""
    burstiness: float = 1.0
    clients: int | None = None
    """The most requests under way; None is without bound."""
    kinds: Sequence[Kind] = EQUAL

    @property
    def is_saturating(self) -> bool:
        """Whether it is the throughput that counts, and not the latency."""
        return self.load is None

    def rate(self, capacity: float) -> float:
        """Requests a second."""
        return math.inf if self.load is None else self.load * capacity

    def requests(self, capacity: float, seconds: float, seed: int) -> list[PlannedRequest]:
        """The plan, the same for every contestant.

        Args:
            capacity: Requests a second that the best peer serves.
            seconds: That a workload of length 1 takes, at the load that it has.
            seed: Of what is drawn.
        """
        load = 1.0 if self.load is None else self.load
        count = round(self.length * seconds * load * capacity)
        return draw_requests(
            self.kinds,
            self.prompts,
            count=max(count, 2 if self.clients is None else round(LEAST_TURNS * self.clients)),
            rate=self.rate(capacity),
            burstiness=self.burstiness,
            seed=seed,
        )

    @property
    def prompts(self) -> Prompts:
        """Its own."""
        first = PROMPTS_APART * list(WORKLOADS).index(self.name) if self.name in WORKLOADS else 0
        sentences = draw_prompts(0)
        return lambda number: sentences(first + number)


def _poisson(load: float, length: float = 1.0) -> Workload:
    return Workload(name=f"poisson-{load}", title=f"Poisson, {load}", length=length, load=load)


WORKLOADS: Mapping[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload(name="closed", title="closed loop, 64 clients", length=1.5, clients=64),
        Workload(name="at-once", title="all at once", length=1.0),
        _poisson(0.3),
        _poisson(0.5),
        _poisson(0.7, length=1.5),
        _poisson(0.9),
        Workload(name="bursts", title="bursts, 0.5", length=1.5, load=0.5, burstiness=BURSTINESS),
        Workload(name="steps", title="10 to 50 steps", length=0.5, kinds=MIXED_STEPS),
        Workload(name="guidance", title="mixed guidance", length=0.5, kinds=MIXED_GUIDANCE),
        Workload(name="sizes", title="mixed sizes", length=0.5, kinds=MIXED_SIZES),
    )
}
"""In the order in which they run: the first ones say which loads a contestant can bear."""
QUICK_WORKLOADS = ("at-once", "poisson-0.7", "steps", "guidance", "sizes")
"""Those of a short run."""
