"""A server under load whose processes are killed and stopped at random moments.

    python -m benchmarks.chaos

The same requests (sync, streams and jobs in turn, at a steady rate) are sent twice: to a server
that is left in peace, and to one whose worker is killed and stopped and which is itself killed
meanwhile. Counted is what its callers got. The exit status is 1 if anything was lost, doubled or
wrong, failed for another reason than a killed server, or was left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.chaos.audit import audit_jobs
from benchmarks.chaos.callers import new_client, send_all
from benchmarks.chaos.disturbances import Disturbance, Moment, disturb, draw_moments
from benchmarks.chaos.report import Report, Run
from benchmarks.chaos.server import Server
from benchmarks.machine import describe_machine

SHARE = 0.95
"""In which share of the time the server is broken, so that there is work when it happens."""


async def run_requests(server: Server, moments: list[Moment], count: int, rate: float) -> Run:
    """Start a server, send everything while it is disturbed, look into its books and end it."""
    await server.start()
    try:
        async with new_client(server.url) as client:
            disturbing = asyncio.create_task(disturb(server, moments))
            outcomes = await send_all(client, count, rate)
            outages = await disturbing
            audit = await audit_jobs(client, outcomes)
        exit_status = server.stop()
        leftovers = server.leftovers()
    finally:
        server.end_processes()
    return Run(
        outcomes=outcomes,
        outages=outages,
        audit=audit,
        restarts=server.restarts,
        exit_status=exit_status,
        leftovers=leftovers,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="fake:0.02", help="as for chairlift serve, or bundled")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--rate", type=float, default=2.0, help="requests a second")
    parser.add_argument("--worker-kills", type=int, default=10)
    parser.add_argument("--worker-stops", type=int, default=2)
    parser.add_argument("--server-kills", type=int, default=2)
    parser.add_argument("--hang-timeout", type=float, default=3.0, help="seconds")
    parser.add_argument("--seed", type=int, default=3, help="of the moments")
    options = parser.parse_args(arguments)
    counts = {
        Disturbance.WORKER_KILL: options.worker_kills,
        Disturbance.WORKER_STOP: options.worker_stops,
        Disturbance.SERVER_KILL: options.server_kills,
    }
    seconds = SHARE * options.requests / options.rate
    moments = draw_moments(counts, seconds, random.Random(options.seed))
    print(f"{options.requests} requests to {options.model}, {options.rate:g} a second, on ", end="")
    print(f"{describe_machine()}\n", flush=True)
    runs = []
    for disturbances in ([], moments):
        with TemporaryDirectory(prefix="chaos-") as folder:
            bounds = ["--hang-timeout", str(options.hang_timeout), "--max-queue", "10000"]
            server = Server(Path(folder), options.model, bounds)
            run = run_requests(server, disturbances, options.requests, options.rate)
            runs.append(asyncio.run(run))
    calm, disturbed = runs
    if any(outcome.picture is None for outcome in calm.outcomes):
        raise RuntimeError("the undisturbed server has not answered every request")
    report = Report(calm, disturbed)
    print("", *report.lines(), sep="\n")
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
