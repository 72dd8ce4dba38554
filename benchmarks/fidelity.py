"""How right the simulator is: the real engine and the simulator on the same arrivals.

    python -m benchmarks.fidelity

The model is profiled on this machine; then Poisson arrivals of two sizes and of 10 to 30 steps, at
shares of what the knee allows, go through the engine in this process, and through the simulator:
with the table of the profile, and with what the engine has learned from its own ticks meanwhile.
The machine should have nothing else to do. With ``--model fake:0.03:0.005``, whose forwards sleep
and always take as long, what is left is the simulator's own error.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Sequence
from statistics import mean

import numpy as np

from benchmarks.machine import describe_machine, percentile
from chairlift.engine.loop import Loop
from chairlift.engine.memory import keep_freed_memory
from chairlift.engine.messages import Finished, FromEngine, Stop, Submit
from chairlift.models.adapter import Adapter
from chairlift.models.registry import load_model
from chairlift.profiler import Profiler
from chairlift.scheduling.costs import Costs
from chairlift.scheduling.scheduler import Scheduler
from chairlift.simulate.arrivals import OpenLoop
from chairlift.simulate.router import create_router
from chairlift.simulate.simulation import simulate
from chairlift.simulate.workload import Job, Kind, capacity, draw_jobs
from chairlift.validation import create_request

MIX = (Kind(0.5, 64, 10, 30), Kind(0.5, 128, 10, 30))


def run_engine(adapter: Adapter, costs: Costs, policy: str, jobs: Sequence[Job]) -> list[float]:
    """Seconds from each arrival to its picture."""
    arrived: dict[str, float] = {}
    latencies: dict[str, float] = {}
    done = threading.Event()

    def receive(message: FromEngine) -> None:
        if isinstance(message, Finished):
            latencies[message.request_id] = time.monotonic() - arrived[message.request_id]
            if len(latencies) == len(jobs):
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

    loop = Loop(adapter, Scheduler(policy=policy, costs=costs), receive)
    sender = threading.Thread(target=send)
    sender.start()
    loop.run()
    sender.join()
    return list(latencies.values())


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
    print("| load | seed | engine mean, p99 | profiled / engine | learned / engine |")
    print("| --- | --- | --- | --- | --- |")
    for load in options.loads:
        for seed in options.seeds:
            rng = np.random.default_rng(seed)
            arrivals = np.cumsum(rng.exponential(1 / (load * rate), options.requests))
            jobs = draw_jobs(MIX, arrivals.tolist(), rng)
            learned = Costs(table)
            engine = run_engine(adapter, learned, options.policy, jobs)
            cells = [f"{mean(engine):.3f} s, {percentile(engine, 0.99):.3f} s"]
            for truth in (Costs(table), learned):
                times = run_simulator(truth, Costs(table), options.policy, jobs)
                p99 = percentile(times, 0.99) / percentile(engine, 0.99)
                cells.append(f"{mean(times) / mean(engine):.2f}, {p99:.2f}")
            print(f"| {load:g} | {seed} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
