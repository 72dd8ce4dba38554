"""What is in the server's books in the end: every job of every key, and its picture once more."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.chaos.callers import Outcome, Refused, checked, picture_of, submit, user_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What was found of the jobs that were acknowledged, by the numbers of their requests."""

    lost: frozenset[int]
    """Unknown, not succeeded, or without a picture."""
    doubled: frozenset[int]
    """With two jobs of one key, or two pictures of one job."""


async def audit_jobs(client: httpx.AsyncClient, outcomes: list[Outcome]) -> Audit:
    """Look at every job, fetch its picture again, and send its key again."""
    listed = await list_jobs(client)
    lost, doubled = set(), set()
    for outcome in outcomes:
        if outcome.job_id is None:
            continue
        jobs = listed[user_of(outcome.number)]
        if len(jobs) > 1:
            doubled.add(outcome.number)
        if jobs.get(outcome.job_id) != "succeeded" or outcome.picture is None:
            lost.add(outcome.number)
            continue
        try:
            again, _ = await submit(client, outcome.number)
            if again["id"] != outcome.job_id:
                doubled.add(outcome.number)
            if await picture_of(client, outcome.job_id) != outcome.picture:
                doubled.add(outcome.number)
        except Refused:
            lost.add(outcome.number)
    return Audit(lost=frozenset(lost), doubled=frozenset(doubled))


async def list_jobs(client: httpx.AsyncClient) -> defaultdict[str, dict[str, str]]:
    """The ids and states of all jobs, by their users."""
    jobs: defaultdict[str, dict[str, str]] = defaultdict(dict)
    parameters: dict[str, Any] = {"limit": 100}
    while True:
        page = checked(await client.get("/v1/jobs", params=parameters)).json()
        for job in page["data"]:
            jobs[job["request"]["user"]][job["id"]] = job["status"]
        if not page["has_more"]:
            return jobs
        parameters["after"] = page["data"][-1]["id"]
