"""What others have published of the same models, to stand beside what is measured here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SIDE = 512
"""Pixels of the pictures of :data:`REQUESTS`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """One model, served one way."""

    requests_per_s: float
    mean_s: float
    p99_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Batching:
    """One model without and with request-level dynamic batching."""

    name: str
    off: Served
    on: Served


REQUESTS_SOURCE = "sgl-project/sglang pull request 18764: one H100, 64 prompts at 512x512"

REQUESTS: Mapping[str, Batching] = {
    "qwen-image": Batching(
        name="Qwen-Image-2512",
        off=Served(requests_per_s=0.488, mean_s=8.002, p99_s=10.190),
        on=Served(requests_per_s=0.633, mean_s=6.212, p99_s=6.954),
    ),
    "flux.1-dev": Batching(
        name="FLUX.1-dev",
        off=Served(requests_per_s=0.496, mean_s=7.877, p99_s=10.087),
        on=Served(requests_per_s=0.538, mean_s=7.437, p99_s=9.244),
    ),
    "z-image-turbo": Batching(
        name="Z-Image-Turbo",
        off=Served(requests_per_s=0.377, mean_s=10.351, p99_s=13.267),
        on=Served(requests_per_s=0.395, mean_s=9.960, p99_s=10.358),
    ),
}
"""By the names of the shipped configs. Qwen-Image has the architecture of Qwen-Image-2512, and so
the same costs."""

STEPS_SOURCE = (
    "sgl-project/sglang pull request 22183: Qwen-Image-2512, H200, bfloat16, compiled, "
    "guidance inside the step"
)

STEPS: Mapping[str, Mapping[int, Mapping[int, float]]] = {
    "qwen-image": {
        512: {1: 0.167, 2: 0.183, 3: 0.186, 4: 0.240, 8: 0.425, 16: 0.832},
        1024: {1: 0.243, 2: 0.474, 3: 0.711},
    }
}
"""Seconds of a step by model, side in pixels and number of rows."""
