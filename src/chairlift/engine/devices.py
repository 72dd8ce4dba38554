"""Which device a worker takes where there are several."""

from __future__ import annotations

import torch

from chairlift.engine.worker_config import WorkerConfig
from chairlift.models.registry import choose_device
from chairlift.models.source import is_fake


def count_devices(config: WorkerConfig) -> int:
    """How many workers can have a device of their own; at least 1."""
    return torch.cuda.device_count() if _has_choice(config) else 1


def own_device(config: WorkerConfig) -> torch.device:
    """The CUDA device with the worker's number, unless a certain one or none is asked for.

    Raises:
        ConfigurationError: There is none.
    """
    name = f"cuda:{config.number}" if _has_choice(config) else config.device
    return choose_device(name)


def _has_choice(config: WorkerConfig) -> bool:
    is_any = config.device in ("auto", "cuda")
    return is_any and not is_fake(config.model) and torch.cuda.is_available()
