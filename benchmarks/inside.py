"""An engine's loop in this process, with callers that each wait for their picture, and watches on
what its thread does.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any

from chairlift.engine.loop import Loop
from chairlift.engine.messages import Failed, Finished, FromEngine, Submit, encode
from chairlift.models.adapter import Adapter
from chairlift.scheduling.scheduler import Scheduler
from chairlift.validation import create_request


class Watch:
    """Tells how long the calling thread was in which of the functions that are watched. The time
    in a function doesn't count for the one that called it.
    """

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inner = [0.0]

    def watch(self, owner: Any, function: str, name: str) -> None:
        """Count the time in ``owner.function`` as ``name``."""
        original = getattr(owner, function)

        def timed(*arguments: Any, **named: Any) -> Any:
            self._inner.append(0.0)
            start = time.perf_counter()
            try:
                return original(*arguments, **named)
            finally:
                whole = time.perf_counter() - start
                self.seconds[name] += whole - self._inner.pop()
                self._inner[-1] += whole

        setattr(owner, function, timed)


class Callers:
    """A closed loop around a loop.

    Args:
        adapter: The model.
        callers: How many there are; each sends its next request when it has its picture.
        max_batch_size: As for the scheduler.
        steps: Of the request of a number.
    """

    def __init__(
        self,
        adapter: Adapter,
        callers: int,
        max_batch_size: int | None,
        steps: Callable[[int], int],
    ) -> None:
        self.pictures = 0
        self.scheduler = Scheduler(batching="continuous", max_batch_size=max_batch_size)
        self.loop = Loop(adapter, self.scheduler, self._receive)
        self._adapter = adapter
        self._steps = steps
        self._numbers = count()
        for _ in range(callers):
            self._send()

    def turn(self) -> None:
        """One turn of the loop."""
        self.loop.turn()

    def _send(self) -> None:
        number = next(self._numbers)
        request = create_request(
            self._adapter.card,
            id=str(number),
            prompt=f"a red boat on the left, {number} times",
            steps=self._steps(number),
            seed=number,
        )
        self.loop.send(Submit(request=request))

    def _receive(self, message: FromEngine) -> None:
        """From the loop's thread, or from one that has written a file."""
        encode(message)
        if isinstance(message, Failed):
            raise RuntimeError(message.message)
        if isinstance(message, Finished):
            self.pictures += 1
            self._send()
