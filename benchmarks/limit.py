"""How near to the limit it serves: ``chairlift serve`` beside a bare loop, and where the rest goes.

    python -m benchmarks.limit

The bare loop runs nothing but the denoiser at its best number of rows, the sampler and the decoder,
one batch after the other, without a server. The server has so many clients in another process that
each wait for their picture: HTTP, messages and PNG are included. The two take turns, and the ratio
is taken pair by pair. Then a loop in this process does the same work, and its thread is watched.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from statistics import median

import torch

from benchmarks.bare import BareLoop
from benchmarks.batching import new_client, send
from benchmarks.crew import Crew, Measure
from benchmarks.inside import Callers, Watch
from benchmarks.machine import describe_machine, spread
from chairlift.engine.memory import keep_freed_memory
from chairlift.engine.slots import Slots
from chairlift.models.adapter import Adapter
from chairlift.models.registry import load_model
from chairlift.server.process import running_server

PAUSE_SECONDS = 0.2
"""After so long without an end, those that end together all have."""


def make_bare_loop(model: str | None, rows: int, steps: int) -> Measure:
    """Measures pictures a second of a bare loop."""
    keep_freed_memory()
    return BareLoop(load_model(model), rows, steps).pictures_per_second


def choose_rows(adapter: Adapter, choices: Sequence[int], steps: int, seconds: float) -> int:
    """The number of rows at which the bare loop is fastest; they take turns."""
    loops = {rows: BareLoop(adapter, rows, steps) for rows in choices}
    served: dict[int, list[float]] = {rows: [] for rows in choices}
    for _ in range(3):
        for rows, loop in loops.items():
            served[rows].append(loop.pictures_per_second(seconds))
    speeds = {rows: median(values) for rows, values in served.items()}
    for rows, speed in speeds.items():
        print(f"bare loop, {rows} rows: {speed:.2f} pictures/s", flush=True)
    return max(speeds, key=lambda rows: speeds[rows])


class Clients:
    """Clients of a server that each wait for their picture."""

    def __init__(self, url: str, clients: int, steps: int) -> None:
        self._url = url
        self._clients = clients
        self._steps = [steps]
        self._number = 0

    def pictures_per_second(self, seconds: float) -> float:
        """Once all of them have been served."""
        return asyncio.run(self._saturate(seconds))

    async def _saturate(self, seconds: float) -> float:
        start, stop, ends = 0.0, float("inf"), list[float]()
        async with new_client(self._url) as client:

            async def one() -> None:
                while time.perf_counter() < stop:
                    self._number += 1
                    await send(client, self._number, self._steps)
                    ends.append(time.perf_counter())

            callers = [asyncio.create_task(one()) for _ in range(self._clients)]
            while len(ends) < self._clients or time.perf_counter() < ends[-1] + PAUSE_SECONDS:
                await asyncio.sleep(0.01)
            start = ends[-1]
            stop = start + seconds
            await asyncio.gather(*callers)
        # Rows that began together end together: from one such end to another one.
        counted = [end for end in ends if start < end <= stop]
        return len(counted) / (max(counted) - start)


def watch_loop(adapter: Adapter, clients: int, rows: int, steps: int, ticks: int) -> None:
    """Where the loop's thread spends its time."""
    callers, watch = Callers(adapter, clients, rows, lambda number: steps), Watch()
    while callers.pictures < clients:
        callers.turn()
    loop, scheduler = callers.loop, callers.scheduler
    for owner, function, name in (
        (adapter, "predict", "forward"),
        (Slots, "forward_batch", "sampler"),
        (Slots, "advance", "sampler"),
        (loop._runner, "_admit", "encode and join"),
        (loop._decoder, "run", "decode"),
        (scheduler, "plan", "scheduling"),
        (scheduler, "update", "scheduling"),
        (scheduler, "submit", "scheduling"),
        (scheduler, "snapshot", "reports"),
        (scheduler, "predict", "reports"),
        (loop, "_sink", "messages"),
        (loop, "turn", "bookkeeping"),
    ):
        watch.watch(owner, function, name)
    start, before = time.perf_counter(), callers.pictures
    for _ in range(ticks):
        callers.turn()
    seconds = time.perf_counter() - start
    print(f"\na loop of {rows} rows in this process, {clients} callers, no HTTP:")
    print(f"{(callers.pictures - before) / seconds:.2f} pictures/s\n")
    print("| | ms a tick | share |\n| --- | --- | --- |")
    for name, spent in watch.seconds.most_common():
        print(f"| {name} | {1000 * spent / ticks:.3f} | {spent / seconds:.4f} |")


def compare(options: argparse.Namespace, rows: int, threads: int) -> None:
    """The server and the bare loops, in turns."""
    bare_loop = (options.model, rows, options.steps)
    model = [options.model] if options.model else []
    settings = ["--workers", str(options.workers), "--max-batch-size", str(rows)]
    with (
        Crew(make_bare_loop, *bare_loop, processes=options.workers, threads=threads) as bare,
        running_server(*model, *settings) as url,
    ):
        clients = Clients(url, options.clients, options.steps)
        pairs = [
            (clients.pictures_per_second(options.seconds), bare.measure(options.seconds))
            for _ in range(options.pairs)
        ]
    print(f"\n{options.pairs} pairs, medians (least to greatest), pictures/s:")
    print(f"chairlift serve, {options.clients} clients: {spread([pair[0] for pair in pairs])}")
    print(f"bare loops: {options.workers} of {rows} rows: {spread([pair[1] for pair in pairs])}")
    print(f"ratio: {spread([server / alone for server, alone in pairs])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a folder or a hub id; left out, the bundled model")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[4, 8, 16, 32], help="to choose from"
    )
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument(
        "--workers", type=int, default=1, help="of the server; there are as many bare loops"
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument(
        "--pairs", type=int, default=7, help="alternations; 0 watches the loop only"
    )
    parser.add_argument("--seconds", type=float, default=10, help="of each")
    parser.add_argument("--ticks", type=int, default=400, help="of the loop that is watched")
    options = parser.parse_args()
    keep_freed_memory()  # As a worker does.
    threads = max(1, torch.get_num_threads() // options.workers)
    torch.set_num_threads(threads)
    adapter = load_model(options.model)
    print(f"{adapter.card.id}, {options.steps} steps, on {describe_machine()}\n", flush=True)
    rows = max(options.rows)
    if options.pairs:
        rows = choose_rows(adapter, options.rows, options.steps, options.seconds / 4)
        compare(options, rows, threads)
    watch_loop(adapter, options.clients, rows, options.steps, options.ticks)


if __name__ == "__main__":
    main()
