"""What the rows need after a restart, however the server ended before."""

from __future__ import annotations

import aiosqlite

from chairlift.server.jobs.job import JobError
from chairlift.server.jobs.rows import check_replayable, write_error

_UNFINISHED = "SELECT id, request FROM jobs WHERE status IN ('queued', 'running')"
_FAIL = "UPDATE jobs SET status = 'failed', finished_at = ?, error = ? WHERE id = ?"
_REQUEUE = "UPDATE jobs SET status = 'queued', started_at = NULL WHERE status = 'running'"
_WITH_PICTURES = "SELECT id FROM jobs WHERE images > 0"


async def recover(connection: aiosqlite.Connection, now: float) -> set[str]:
    """Fail the unfinished jobs that can't be played again, and put the others into the queue.

    Args:
        connection: Of the database; a transaction is open.
        now: Unix time in seconds.

    Returns:
        The ids of all jobs that have pictures.
    """
    for row in await connection.execute_fetchall(_UNFINISHED):
        try:
            check_replayable(row["request"])
        except ValueError as error:
            message = f"another version has stored this job, and this one can't read it: {error}"
            failure = write_error(JobError("storage_failed", message))
            await connection.execute(_FAIL, (now, failure, row["id"]))
    await connection.execute(_REQUEUE)
    return {row["id"] for row in await connection.execute_fetchall(_WITH_PICTURES)}
