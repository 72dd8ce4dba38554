"""Which device a worker takes where there are several, and its share of one where there is one."""

from __future__ import annotations

import os

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


def count_sharers(config: WorkerConfig) -> int:
    """How many workers there are on the worker's device, itself included."""
    return 1 if _has_choice(config) else config.workers


def choose_threads(sharers: int) -> int:
    """How many threads of a CPU a worker computes with: its share, unless ``OMP_NUM_THREADS`` says
    how many. Threads of several workers that outnumber the cores would wait for each other at every
    kernel.
    """
    usual = torch.get_num_threads()
    return usual if "OMP_NUM_THREADS" in os.environ else max(1, usual // sharers)


def _has_choice(config: WorkerConfig) -> bool:
    is_any = config.device in ("auto", "cuda")
    return is_any and not is_fake(config.model) and torch.cuda.is_available()
