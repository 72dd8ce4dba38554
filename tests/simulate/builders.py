"""Builders for tests of the simulator."""

from __future__ import annotations

from typing import Any

from chairlift.simulate.workload import Job

TABLE: dict[str, Any] = {
    "shapes": [
        {
            "width": side,
            "height": side,
            "step_seconds": step,
            "encode_seconds": {"1": 0.5},
            "decode_seconds": {"1": 1.0},
        }
        for side, step in [(64, {"1": 1.0, "2": 1.2, "3": 1.4, "4": 1.6}), (128, {"1": 3.0})]
    ]
}
"""Numbers for sums in the head."""

QWEN: dict[str, Any] = {
    "shapes": [
        {
            "width": 512,
            "height": 512,
            "frames": 1,
            "step_seconds": {
                "1": 0.167,
                "2": 0.183,
                "3": 0.186,
                "4": 0.240,
                "8": 0.425,
                "16": 0.832,
            },
            "encode_seconds": {"1": 0.02},
            "decode_seconds": {"1": 0.04},
        },
        {
            "width": 1024,
            "height": 1024,
            "frames": 1,
            "step_seconds": {"1": 0.243, "2": 0.474, "3": 0.711},
            "encode_seconds": {"1": 0.02},
            "decode_seconds": {"1": 0.16},
        },
    ]
}
"""Qwen-Image-2512 on an H200, as published; encode and decode are estimates."""


def a_job(arrival: float = 0.0, *, side: int = 64, steps: int = 3, **other: Any) -> Job:
    return Job(arrival_s=arrival, width=side, height=side, steps=steps, **other)
