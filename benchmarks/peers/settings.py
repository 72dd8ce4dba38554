"""What a contestant can be set to. The sweep looks for the best of each."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Of one contestant; what it has no use for has no effect. Chairlift uses the first only."""

    processes: int = 1
    """That compute: workers or replicas."""
    threads: int = 2
    """Of torch, in each process."""
    channels_last: bool = True
    """The memory format of the denoiser and the decoder."""
    max_batch_size: int = 16
    """Of each process."""
    batch_timeout: float = 0.05
    """Seconds for which a batch waits to be filled."""

    def arguments(self) -> list[str]:
        """For the command line of a peer."""
        return _arguments(asdict(self))


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a contestant is to serve, and what."""

    port: int
    folder: str
    """Of the model."""
    temporary: str
    """A folder for files of its own."""

    def arguments(self) -> list[str]:
        """For the command line of a peer."""
        return _arguments(asdict(self))


def _arguments(values: dict[str, Any]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]


def parse_arguments(arguments: Sequence[str] | None = None) -> tuple[Place, Settings]:
    """The command line of a peer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--temporary", required=True)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--channels-last", choices=["True", "False"], required=True)
    parser.add_argument("--max-batch-size", type=int, required=True)
    parser.add_argument("--batch-timeout", type=float, required=True)
    given = parser.parse_args(arguments)
    return (
        Place(port=given.port, folder=given.folder, temporary=given.temporary),
        Settings(
            processes=given.processes,
            threads=given.threads,
            channels_last=given.channels_last == "True",
            max_batch_size=given.max_batch_size,
            batch_timeout=given.batch_timeout,
        ),
    )
