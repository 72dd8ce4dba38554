"""What the server asks of whatever makes its pictures: the engine of this machine
(:class:`~chairlift.engine.client.EngineClient`), or a cluster of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from chairlift.card import ModelCard
from chairlift.engine.messages import Activity
from chairlift.engine.ride import Ride
from chairlift.request import GenerationRequest


class Engine(Protocol):
    """Requests go in, and ride until they have ended."""

    activity: Activity
    """The last report."""
    on_restart: Callable[[], None]
    """Called when something that had requests has died and is going to be replaced."""
    on_end: list[Callable[[Ride], None]]
    """Called with every ride that has ended, whose answer is done; in the context in which it was
    submitted."""
    takes_requests: bool
    """Until it drains or is closed."""
    is_closed: bool
    pending_rows: int
    """Rows that were accepted and have not ended."""

    @property
    def card(self) -> ModelCard:
        """What the model can do."""

    @property
    def is_ready(self) -> bool:
        """Whether requests are worked on now."""

    @property
    def failure(self) -> str | None:
        """Why it can't become ready again; None if it can."""

    @property
    def silent_seconds(self) -> float:
        """For how long a worker that loads or has work has said nothing."""

    @property
    def worker_pids(self) -> Sequence[int]:
        """The process ids of the workers that there are on this machine now."""

    @property
    def rides(self) -> Mapping[str, Ride]:
        """Requests that were accepted and have not ended, in the order in which they came."""

    @property
    def policy(self) -> str:
        """In which order requests are served."""

    def submit(self, request: GenerationRequest) -> Ride:
        """Accept a request, whose id is like no other's.

        Raises:
            Unavailable: Requests aren't taken any more. Every other error comes from the answer.
        """

    def cancel(self, request_id: str) -> bool:
        """End a request, which fails with RequestCancelled; whether it was here."""

    def set_policy(self, name: str) -> None:
        """Serve in the order of this policy from now on.

        Raises:
            Unsupported: The policy can't be changed while it runs.
        """

    def listen(self, listener: Callable[[Activity], None]) -> Callable[[], None]:
        """Call ``listener`` with every report from now on; returns what ends that."""
