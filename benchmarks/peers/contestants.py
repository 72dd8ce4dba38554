"""Who takes part, and how each is started."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.settings import Place, Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    """A server that answers the same requests as the others."""

    name: str
    title: str
    """For tables."""
    module: str | None = None
    """Of a peer; None is chairlift."""
    needs_environment: bool = False
    """Whether it needs more than the running environment has."""
    is_balanced: bool = False
    """Whether it is one process, so that several need a load balancer in front of them."""
    batches: bool = False
    """Whether there is a batch size to be chosen."""
    waits: bool = False
    """Whether a batch waits to be filled."""
    options: Sequence[str] = ()
    """Of ``chairlift serve``."""

    @property
    def is_peer(self) -> bool:
        return self.module is not None

    @property
    def ready_path(self) -> str:
        return "/health" if self.is_peer else "/ready"

    def command(self, place: Place, settings: Settings, python: Path) -> list[str]:
        """What starts it.

        Args:
            place: Where it serves, and what.
            settings: With which.
            python: Of the peers' environment.
        """
        if self.module is None:
            where = ["--port", str(place.port), "--data-dir", place.temporary]
            workers = ["--workers", str(settings.processes)]
            serve = [sys.executable, "-m", "chairlift", "serve", place.folder]
            return [*serve, *where, *workers, *self.options]
        interpreter = str(python) if self.needs_environment else sys.executable
        modules = [self.module]
        if self.is_balanced and settings.processes > 1:
            modules.insert(0, BALANCER)
        return [interpreter, "-m", *modules, *place.arguments(), *settings.arguments()]


SERVERS = "benchmarks.peers.servers"
BALANCER = f"{SERVERS}.balancer"
QUEUE = ("--max-queue", "10000", "--no-metadata")
"""The peers refuse nobody either, and write no metadata."""
CONTESTANTS: Mapping[str, Contestant] = {
    contestant.name: contestant
    for contestant in (
        Contestant(
            name="lock", title="FastAPI and a lock", module=f"{SERVERS}.lock", is_balanced=True
        ),
        Contestant(
            name="litserve",
            title="LitServe batching",
            module=f"{SERVERS}.litserve_batches",
            needs_environment=True,
            batches=True,
            waits=True,
        ),
        Contestant(
            name="ray",
            title="Ray Serve @serve.batch",
            module=f"{SERVERS}.ray_batches",
            needs_environment=True,
            batches=True,
            waits=True,
        ),
        Contestant(
            name="steps",
            title="step loop of 2023",
            module=f"{SERVERS}.steps",
            is_balanced=True,
            batches=True,
        ),
        Contestant(name="off", title="chairlift off", options=(*QUEUE, "--batching", "off")),
        Contestant(
            name="dynamic", title="chairlift dynamic", options=(*QUEUE, "--batching", "dynamic")
        ),
        Contestant(
            name="continuous",
            title="chairlift continuous",
            options=(*QUEUE, "--batching", "continuous"),
        ),
    )
}
BASELINE = "lock"
"""What most people write first."""
OURS = "continuous"
"""Chairlift's default, of which the targets speak, with its best number of workers."""
