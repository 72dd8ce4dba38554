"""The statement that reads one page of jobs, the last one added first."""

from __future__ import annotations

from collections.abc import Collection

from chairlift.server.jobs.job import JobStatus


def page_query(
    *,
    limit: int,
    before: int,
    statuses: Collection[JobStatus] | None,
    user: str | None,
    owner: str | None,
) -> tuple[str, list[object]]:
    """SQL and its parameters. It reads little more than the page, however many jobs there are.

    Args:
        limit: The most rows.
        before: Only rows whose sequence number is smaller.
        statuses: Only these, at least one; None is all.
        user: Only this user's; None is everybody's.
        owner: Only this owner's; None is everybody's.
    """
    given = {"owner": owner, "user": user}
    theirs = {column: value for column, value in given.items() if value is not None}
    if statuses is None and not theirs:
        parts = ["SELECT * FROM jobs WHERE sequence < ?"]
        parameters: list[object] = [before]
    else:
        # An index has the jobs of one status in order. SQLite merges those of several.
        whose = "".join(f"{column} = ? AND " for column in theirs)
        chosen = sorted(set(JobStatus if statuses is None else statuses))
        parts = [f"SELECT * FROM jobs WHERE {whose}status = ? AND sequence < ?" for _ in chosen]
        parameters = [value for status in chosen for value in (*theirs.values(), status, before)]
    return f"{' UNION ALL '.join(parts)} ORDER BY sequence DESC LIMIT ?", [*parameters, limit]
