"""How much is stored."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from chairlift.server.jobs.job import JobStatus

COUNT_JOBS = "SELECT status, count(*) AS jobs FROM jobs GROUP BY status"
SUM_PICTURES = """
SELECT coalesce(sum(picture_bytes), 0) AS picture_bytes FROM jobs WHERE finished_at IS NOT NULL
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreStatistics:
    """How much is stored."""

    jobs: Mapping[JobStatus, int]
    """How many jobs there are of each status; every status is there."""
    picture_bytes: int
    """Size of all picture files."""

    @classmethod
    def of(cls, counts: Iterable[sqlite3.Row], size: sqlite3.Row) -> Self:
        """What the rows of :data:`COUNT_JOBS` and the one of :data:`SUM_PICTURES` say."""
        found = {row["status"]: row["jobs"] for row in counts}
        return cls(
            jobs={status: found.get(status, 0) for status in JobStatus},
            picture_bytes=size["picture_bytes"],
        )
