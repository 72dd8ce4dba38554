"""Who takes part, and how each is started."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.settings import PeerSettings, Place


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
    batches: bool = True
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

    def command(self, place: Place, settings: PeerSettings | None, python: Path) -> list[str]:
        """What starts it.

        Args:
            place: Where it serves, and what.
            settings: Of a peer; chairlift has none.
            python: Of the peers' environment.
        """
        if self.module is None:
            own = ["--port", str(place.port), "--data-dir", place.temporary, *self.options]
            return [sys.executable, "-m", "chairlift", "serve", place.folder, *own]
        assert settings is not None, f"{self.name} has no settings"
        interpreter = str(python) if self.needs_environment else sys.executable
        where = [f"--port={place.port}", f"--folder={place.folder}"]
        where.append(f"--temporary={place.temporary}")
        return [interpreter, "-m", self.module, *where, *settings.arguments()]


SERVERS = "benchmarks.peers.servers"
QUEUE = ("--max-queue", "10000", "--no-metadata")
"""The peers refuse nobody either, and write no metadata."""
CONTESTANTS: Mapping[str, Contestant] = {
    contestant.name: contestant
    for contestant in (
        Contestant(
            name="lock", title="FastAPI and a lock", module=f"{SERVERS}.lock", batches=False
        ),
        Contestant(
            name="litserve",
            title="LitServe batching",
            module=f"{SERVERS}.litserve_batches",
            needs_environment=True,
            waits=True,
        ),
        Contestant(
            name="ray",
            title="Ray Serve @serve.batch",
            module=f"{SERVERS}.ray_batches",
            needs_environment=True,
            waits=True,
        ),
        Contestant(name="steps", title="step loop of 2023", module=f"{SERVERS}.steps"),
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
"""Chairlift's default, of which the targets speak."""
