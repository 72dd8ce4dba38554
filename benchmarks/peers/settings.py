"""What a peer can be set to. The sweep looks for the best of each."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerSettings:
    """Of one peer; what a peer has no use for has no effect."""

    threads: int = 2
    """Of torch."""
    channels_last: bool = True
    """The memory format of the denoiser and the decoder."""
    max_batch_size: int = 16
    batch_timeout: float = 0.05
    """Seconds for which a batch waits to be filled."""

    def arguments(self) -> list[str]:
        """For the command line of a peer."""
        return [f"--{name.replace('_', '-')}={value}" for name, value in asdict(self).items()]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a peer is to serve, and what."""

    port: int
    folder: str
    """Of the model."""
    temporary: str
    """A folder for files of its own."""


def parse_arguments() -> tuple[Place, PeerSettings]:
    """The command line of a peer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--temporary", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--channels-last", choices=["True", "False"], required=True)
    parser.add_argument("--max-batch-size", type=int, required=True)
    parser.add_argument("--batch-timeout", type=float, required=True)
    given = parser.parse_args()
    return (
        Place(port=given.port, folder=given.folder, temporary=given.temporary),
        PeerSettings(
            threads=given.threads,
            channels_last=given.channels_last == "True",
            max_batch_size=given.max_batch_size,
            batch_timeout=given.batch_timeout,
        ),
    )
