"""Sends a workload with chairlift's load generator, and says what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from benchmarks.peers.workloads import EQUAL, Workload
from chairlift.bench.client import Client
from chairlift.bench.report import Summary, create_summary
from chairlift.bench.requests import PlannedRequest
from chairlift.bench.run import NobodyWatches, Run

WARM_UPS = 2
"""Requests one after the other before each workload, not counted."""
COMPANY = Workload(name="company", title="warm-up", length=1.0, kinds=EQUAL)
"""Requests at once before the first workload, not counted."""
COMPANY_SIZE = 8


def warm_up(url: str) -> None:
    """Let a contestant see company once."""
    requests = COMPANY.requests(COMPANY_SIZE, 1.0, seed=0)
    measure(url, COMPANY, requests)


def measure(url: str, workload: Workload, requests: Sequence[PlannedRequest]) -> Summary:
    """Send all and wait for the answers.

    Raises:
        RuntimeError: A request has failed.
    """
    summary = asyncio.run(_send(url, workload, requests))
    if summary.failed:
        raise RuntimeError(f"{summary.failed} requests of {workload.name}: {summary.messages}")
    return summary


async def _send(url: str, workload: Workload, requests: Sequence[PlannedRequest]) -> Summary:
    client = Client(url)
    run = Run(
        client, requests, workload.prompts, max_concurrency=workload.clients, watch=NobodyWatches()
    )
    async with client:
        await run.warm_up(WARM_UPS)
        await run.send_all()
    return create_summary(run.records, planned=len(requests))
