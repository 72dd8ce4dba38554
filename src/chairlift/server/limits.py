"""The bounds on what a server takes in, from its connections to the work of a request.

What operators may set are options of ``chairlift serve``; all else is the same for everybody.
"""

from __future__ import annotations

import logging
import math
import resource
from dataclasses import dataclass, replace

from chairlift.errors import ConfigurationError

logger = logging.getLogger(__name__)

RESERVED_FILES = 256
"""Files that may be open beside connections: the database, pictures, the engine's sockets."""
LEAST_SPARE_CONNECTIONS = 64
"""So many connections without an event stream there must be at least."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """All bounds of a server.

    Raises:
        ConfigurationError: An option is out of bounds.
    """

    max_queue: int = 256
    """The most rows that are accepted and not done."""
    max_queue_per_key: int | None = None
    """The most of them that came with one API key; None is no bound."""
    max_streams: int = 2048
    """The most event streams that are open."""
    max_megapixel_steps: float = 6000.0
    """The most work of one request: million pixels, times frames, steps and images. A video of 121
    frames of 1280x704 in 50 steps is 5,452; ten pictures of 1024x1024 in 50 steps are 524."""

    spare_connections: int = 2048
    """The most open connections, beside as many as there may be streams."""
    max_headers: int = 100
    """The most headers of a request."""
    max_head_bytes: int = 16 * 2**10
    """The longest head of a request: its line and its headers."""
    head_seconds: float = 10.0
    """A head must be there so long after the connection was made, or after its own first byte."""
    max_body_bytes: int = 1 * 2**20
    """The longest body of a request."""
    body_seconds: float = 30.0
    """A body must be there so long after its head."""
    farewell_seconds: float = 1.0
    """A body must be there so long after the server was told to end."""
    reader_seconds: float = 30.0
    """So often it is looked how much a slow reader has taken."""
    reader_bytes_per_second: float = 8 * 2**10
    """Who takes less of what waits for him is disconnected."""

    def __post_init__(self) -> None:
        for name in ("max_queue", "max_queue_per_key", "max_streams"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigurationError(f"{name} is {value}; it must be 1 or more")
        if not 0 < self.max_megapixel_steps < math.inf:
            raise ConfigurationError(
                f"max_megapixel_steps is {self.max_megapixel_steps}; it must be above 0"
            )

    @property
    def max_rows(self) -> int:
        """The most rows of a request, for which there would be room in an empty queue."""
        return min(self.max_queue, self.max_queue_per_key or self.max_queue)

    @property
    def max_connections(self) -> int:
        """The most connections that are open."""
        return self.max_streams + self.spare_connections


def fit_to_open_files(limits: Limits) -> Limits:
    """Let this process open as many files as the connections need, if it may; if not, the limits
    with so many connections as it may.

    Raises:
        ConfigurationError: There is no room for the streams.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.max_connections + RESERVED_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return limits
    files = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    spare = files - RESERVED_FILES - limits.max_streams
    if spare < LEAST_SPARE_CONNECTIONS:
        most = files - RESERVED_FILES - LEAST_SPARE_CONNECTIONS
        raise ConfigurationError(
            f"--max-streams is {limits.max_streams}; with {hard} open files at most (ulimit -Hn) "
            f"it must be at most {most}"
        )
    if spare < limits.spare_connections:
        limits = replace(limits, spare_connections=spare)
        logger.warning(
            "at most %d connections can be open, because this process may open only %d files "
            "(ulimit -Hn)",
            limits.max_connections,
            hard,
        )
    return limits
