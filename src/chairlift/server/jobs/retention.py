"""Which finished jobs are kept: a bound of age, one of size, and what callers want removed. It sees
rows only.
"""

from __future__ import annotations

import aiosqlite

BATCH = 500
"""The most rows that are removed at once; acknowledgements wait meanwhile."""

_REMOVE_OLD = """
DELETE FROM jobs WHERE sequence IN (
    SELECT sequence FROM jobs WHERE finished_at < ? ORDER BY finished_at, sequence LIMIT ?
) RETURNING id
"""

# From the last one that finished back to the first: a job is kept while it and all later ones
# together are small enough. One without pictures would free nothing.
_REMOVE_LARGE = """
DELETE FROM jobs WHERE sequence IN (
    SELECT sequence FROM (
        SELECT
            sequence,
            finished_at,
            picture_bytes,
            sum(picture_bytes) OVER (ORDER BY finished_at DESC, sequence DESC) AS bytes_so_far
        FROM jobs
        WHERE finished_at IS NOT NULL
    )
    WHERE bytes_so_far > ? AND picture_bytes > 0
    ORDER BY finished_at, sequence LIMIT ?
) RETURNING id
"""

_REMOVE_ONE = "DELETE FROM jobs WHERE id = ? AND finished_at IS NOT NULL RETURNING id"


async def remove_row(connection: aiosqlite.Connection, id: str) -> bool:
    """Remove the row of a finished job, in the transaction that is open; whether there was one."""
    return bool(await connection.execute_fetchall(_REMOVE_ONE, (id,)))


async def remove_rows(
    connection: aiosqlite.Connection, finished_before: float | None, max_bytes: int | None
) -> list[str]:
    """Remove some rows of finished jobs that needn't be kept, in the transaction that is open.

    Args:
        connection: Of the database.
        finished_before: Unix time in seconds; those that finished before go. None is no bound.
        max_bytes: How large all pictures together may be; None is no bound.

    Returns:
        The jobs' ids, none if all that remain are to be kept. Their pictures are still there.
    """
    removed: list[str] = []
    for statement, bound in ((_REMOVE_OLD, finished_before), (_REMOVE_LARGE, max_bytes)):
        if bound is not None:
            rows = await connection.execute_fetchall(statement, (bound, BATCH))
            removed += [row["id"] for row in rows]
    return removed
