"""Marks in a device's queue of work.

On CUDA the host puts work into a queue and goes on. A mark tells when the device has come so far,
and how long it took from one mark to another. On a CPU everything before a mark is done when the
mark is made.
"""

from __future__ import annotations

import time
from typing import Protocol, Self

import torch


class Mark(Protocol):
    """A moment of the device."""

    @property
    def reached(self) -> bool:
        """Whether the device has come so far."""

    def wait(self) -> None:
        """Let this thread sleep until it has."""

    def seconds_since(self, earlier: Self) -> float:
        """From another mark of the same device to this one; both are reached."""


class HostMark:
    """Now."""

    reached = True

    def __init__(self) -> None:
        self._at = time.monotonic()

    def wait(self) -> None:
        """There is nothing to wait for."""

    def seconds_since(self, earlier: HostMark) -> float:
        """As :meth:`Mark.seconds_since`."""
        return self._at - earlier._at


class CudaMark:
    """Behind all that is in the current stream of the current device."""

    def __init__(self) -> None:
        # Blocking: who waits leaves its core to those that write pictures.
        self._event = torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]
        self._event.record()

    @property
    def reached(self) -> bool:
        """As :attr:`Mark.reached`."""
        return bool(self._event.query())  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        """As :meth:`Mark.wait`."""
        self._event.synchronize()

    def seconds_since(self, earlier: CudaMark) -> float:
        """As :meth:`Mark.seconds_since`."""
        milliseconds: float = earlier._event.elapsed_time(self._event)
        return milliseconds / 1000


def make_mark(device: torch.device) -> Mark:
    """A mark behind all that the device was given by this thread."""
    return CudaMark() if device.type == "cuda" else HostMark()
