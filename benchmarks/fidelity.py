"""How right the simulator is, and predictions are: the real engine and the simulator on the same
arrivals.

    python -m benchmarks.fidelity

The model is profiled on this machine; then Poisson arrivals of two sizes and of 10 to 30 steps, at
shares of what the knee allows, go through the engine in this process, and through the simulator:
with the table of the profile, and with the means of what ran, for each number of entries. The last
column is how long requests took by what was predicted when they were accepted.
The machine should have nothing else to do. With ``--model fake:0.03:0.005``, whose forwards sleep
and always take as long, what is left is the simulator's own error.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from statistics import mean
from typing import NamedTuple

import numpy as np

from benchmarks.machine import describe_machine, percentile
from chairlift.engine.loop import Loop
from chairlift.engine.memory import keep_freed_memory
from chairlift.engine.messages import Accepted, Finished, FromEngine, Stop, Submit
from chairlift.models.adapter import Adapter
from chairlift.models.registry import load_model
from chairlift.profiler import Profiler
from chairlift.scheduling.costs import Costs, Shape
from chairlift.scheduling.plan import TickResult
from chairlift.scheduling.scheduler import Scheduler
from chairlift.simulate.arrivals import OpenLoop
from chairlift.simulate.router import create_router
from chairlift.simulate.simulation import simulate
from chairlift.simulate.workload import Job, Kind, capacity, draw_jobs
from chairlift.validation import create_request

Seconds = dict[tuple[Shape, int], list[float]]
"""Of each time, by shape and entries."""
MIX = (Kind(0.5, 64, 10, 30), Kind(0.5, 128, 10, 30))


class Watched(Scheduler):
    """A scheduler that keeps all that it is told of costs."""

    def __init__(self, policy: str, costs: Costs) -> None:
        super().__init__(policy=policy, costs=costs)
        self._steps: Seconds = defaultdict(list)
        self._encodes: Seconds = defaultdict(list)
        self._decodes: Seconds = defaultdict(list)

    def update(self, result: TickResult) -> None:
        if result.plan.key is not None:
            shape = self._state.groups[result.plan.key].shape
            seconds = result.seconds - result.encode_seconds
            self._steps[shape, result.entries].append(seconds)
            if newcomers := len(result.plan.joining):
                self._encodes[shape, 1].append(result.encode_seconds / newcomers)
        super().update(result)

    def decoded(self, shape: Shape, seconds: float) -> None:
        self._decodes[shape, 1].append(seconds)
        super().decoded(shape, seconds)

    def means(self, row_entries: int) -> Costs:
        """What things took on average."""
        shapes = {shape for shape, _ in self._steps}
        return Costs(
            {
                "counts": "forward_rows",
                "row_entries": row_entries,
                "shapes": [
                    {
                        "width": shape.width,
                        "height": shape.height,
                        "step_seconds": _means(self._steps, shape),
                        "encode_seconds": _means(self._encodes, shape),
                        "decode_seconds": _means(self._decodes, shape),
                    }
                    for shape in shapes
                ],
            }
        )


def _means(seconds: Seconds, shape: Shape) -> dict[str, float]:
    return {str(entries): mean(own) for (one, entries), own in seconds.items() if one == shape}


class Ride(NamedTuple):
    """A request of the engine's."""

    seconds: float
    """From its arrival to its picture."""
    predicted: float
    """The same, as it was predicted when it was accepted."""


def run_engine(adapter: Adapter, scheduler: Scheduler, jobs: Sequence[Job]) -> list[Ride]:
    """All of them, as they are done."""
    arrived: dict[str, float] = {}
    predicted: dict[str, float] = {}
    rides: list[Ride] = []
    done = threading.Event()

    def receive(message: FromEngine) -> None:
        match message:
            case Accepted(request_id=id, eta_s=eta):
                predicted[id] = time.monotonic() + eta - arrived[id]
            case Finished(request_id=id):
                rides.append(Ride(time.monotonic() - arrived[id], predicted[id]))
                if len(rides) == len(jobs):
                    done.set()

    def send() -> None:
        start = time.monotonic()
        for number, job in enumerate(jobs):
            request = create_request(
                adapter.card,
                id=str(number),
                prompt=f"a red boat, number {number}",
                width=job.width,
                height=job.height,
                steps=job.steps,
                seed=number,
            )
            time.sleep(max(0.0, start + job.arrival_s - time.monotonic()))
            arrived[request.id] = time.monotonic()
            loop.send(Submit(request=request))
        done.wait()
        loop.send(Stop())

    loop = Loop(adapter, scheduler, receive)
    sender = threading.Thread(target=send)
    sender.start()
    loop.run()
    sender.join()
    return rides


def run_simulator(truth: Costs, known: Costs, policy: str, jobs: Sequence[Job]) -> list[float]:
    """The same on the virtual clock, with ticks of other costs than those that are known first."""
    schedulers = [Scheduler(policy=policy, costs=known)]
    simulation = simulate(OpenLoop(jobs), schedulers, create_router("round-robin"), truth)
    return [outcome.latency_s for outcome in simulation.outcomes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a folder, or a fake one; left out, the bundled model")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.5, 0.7])
    parser.add_argument("--requests", type=int, default=150)
    parser.add_argument("--policy", default="balanced")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    keep_freed_memory()  # As a worker does.
    adapter = load_model(options.model)
    profiler = Profiler(adapter, repeats=15)
    shapes = [profiler.measure(kind.side, kind.side, [1, 2, 4, 8, 16]) for kind in MIX]
    table = profiler.table(shapes, "benchmarks.fidelity")
    rate = capacity(Costs(table), MIX)
    print(f"{adapter.card.id} on {describe_machine()}")
    print(f"capacity at the knee {rate:.2f} requests/s, knees {[shape.knee for shape in shapes]}\n")
    print("| load | seed | engine mean, p99 | profiled | as it ran | real / predicted |")
    print("| --- | --- | --- | --- | --- | --- |")
    for load in options.loads:
        for seed in options.seeds:
            rng = np.random.default_rng(seed)
            arrivals = np.cumsum(rng.exponential(1 / (load * rate), options.requests))
            jobs = draw_jobs(MIX, arrivals.tolist(), rng)
            scheduler = Watched(options.policy, Costs(table))
            rides = run_engine(adapter, scheduler, jobs)
            engine = [ride.seconds for ride in rides]
            ran = scheduler.means(adapter.card.row_entries)
            cells = [f"{mean(engine):.3f} s, {percentile(engine, 0.99):.3f} s"]
            for truth in (Costs(table), ran):
                times = run_simulator(truth, Costs(table), options.policy, jobs)
                p99 = percentile(times, 0.99) / percentile(engine, 0.99)
                cells.append(f"{mean(times) / mean(engine):.2f}, {p99:.2f}")
            error = [ride.seconds / ride.predicted for ride in rides]
            cells.append(", ".join(f"{percentile(error, p):.2f}" for p in (0.1, 0.5, 0.9)))
            print(f"| {load:g} | {seed} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
