"""What arrivals and departures do to those who ride: how long they wait between two forwards.

    python -m benchmarks.stalls

Rows that nobody joins and nobody leaves, against as many of which some come and go all the time:
10 to 50 steps each, every one with a prompt of its own, which is encoded, and a picture, which is
decoded and written. The pause is what lies between the end of a forward and the start of the next.
The ways to divide the decoding into chunks take turns.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.inside import Callers
from benchmarks.machine import describe_machine, percentile
from chairlift.engine.memory import keep_freed_memory
from chairlift.models.adapter import Adapter
from chairlift.models.registry import load_model

CALM = 200
"""Steps of rows that stay."""


@dataclass
class Ride:
    """What was measured in one way."""

    periods: list[float] = field(default_factory=list)
    """Seconds from the start of a forward to the start of the next."""
    pauses: list[float] = field(default_factory=list)
    """Seconds from the end of a forward to the start of the next."""
    pictures: int = 0
    seconds: float = 0.0


class Forwards:
    """Notes when a model's forwards start and end."""

    def __init__(self, adapter: Adapter) -> None:
        self._predict = adapter.predict
        self.ride = Ride()
        self._start = self._end = 0.0
        adapter.predict = self.predict  # type: ignore[method-assign]

    def predict(self, batch: Any) -> Any:
        """As the model's."""
        start = time.perf_counter()
        if self._start:
            self.ride.periods.append(start - self._start)
            self.ride.pauses.append(start - self._end)
        prediction = self._predict(batch)
        self._start, self._end = start, time.perf_counter()
        return prediction

    def forget(self, ride: Ride) -> None:
        """From here on it is another ride."""
        self.ride, self._start = ride, 0.0


def ride(callers: Callers, forwards: Forwards, into: Ride, ticks: int) -> None:
    """So many ticks more."""
    for _ in range(5):
        callers.turn()
    forwards.forget(into)
    start, before = time.perf_counter(), callers.pictures
    for _ in range(ticks):
        callers.turn()
    into.seconds += time.perf_counter() - start
    into.pictures += callers.pictures - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a folder or a hub id; left out, the bundled model")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument(
        "--chunks", type=int, nargs="+", default=[1, 2, 4, 8], help="of the decoder"
    )
    parser.add_argument("--ticks", type=int, default=150, help="of each turn")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    keep_freed_memory()  # As a worker does.
    adapter = load_model(options.model)
    forwards = Forwards(adapter)
    mixed = lambda number: random.Random(number).randint(10, 50)  # noqa: E731
    calm = "nobody comes or goes"
    rides = {calm: Ride()} | {f"chunks of {chunk}": Ride() for chunk in options.chunks}
    busy = [Callers(adapter, options.rows, options.rows, mixed) for _ in options.chunks]
    for _ in range(options.repetitions):
        staying = Callers(adapter, options.rows, options.rows, lambda number: CALM)
        ride(staying, forwards, rides[calm], min(options.ticks, CALM - 20))
        for chunk, callers in zip(options.chunks, busy, strict=True):
            adapter.max_decode_rows = chunk
            ride(callers, forwards, rides[f"chunks of {chunk}"], options.ticks)
    print(f"{adapter.card.id}, {options.rows} rows, on {describe_machine()}; milliseconds\n")
    print("| | period p50 | p90 | p99 | most | pause p50 | p99 | pictures/s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, one in rides.items():
        periods = [1000 * percentile(one.periods, share) for share in (0.5, 0.9, 0.99, 1.0)]
        pauses = [1000 * percentile(one.pauses, share) for share in (0.5, 0.99)]
        cells = " | ".join(f"{value:.1f}" for value in (*periods, *pauses))
        print(f"| {name} | {cells} | {one.pictures / one.seconds:.1f} |")


if __name__ == "__main__":
    main()
