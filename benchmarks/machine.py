"""What every report begins with, and how durations are summed up."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from statistics import median

import torch


def describe_machine() -> str:
    """One line: processor or GPU, threads, versions."""
    device = platform.processor() or platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        names = [line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")]
    device = names[0] if names else device
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    return (
        f"{device}, {os.cpu_count()} cores, torch {torch.__version__} "
        f"({torch.get_num_threads()} threads), Python {platform.python_version()}"
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of them lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(values: Sequence[float]) -> str:
    """Median, least and greatest."""
    return f"{median(values):.3f} ({min(values):.3f} to {max(values):.3f})"
