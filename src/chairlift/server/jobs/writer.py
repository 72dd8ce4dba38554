"""Group commit: writes that wait for the disk share its next answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiosqlite

from chairlift.errors import StorageFailed

logger = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_SECONDS = 10
"""When a refused caller may come again; somebody must make room meanwhile."""
REASON = "the database fails"
REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_BUSY: "the database is locked",
    sqlite3.SQLITE_IOERR: "the disk fails",
    sqlite3.SQLITE_READONLY: "the database can't be written",
}
"""By SQLite's primary code; :data:`REASON` for all others."""

Operation = Callable[[aiosqlite.Connection], Awaitable[T]]
"""Reads and writes in a transaction that is open. It must raise before it writes, or not at all."""


class Writer:
    """The only one that writes to a database. While one group of operations is committed, the next
    one gathers; an answer is given when its group is on the disk.
    """

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._waiting: list[tuple[Operation[Any], asyncio.Future[Any]]] = []
        self._turning: asyncio.Task[None] | None = None

    async def write(self, operation: Operation[T]) -> T:
        """Carry out an operation, after those that were given before. It is carried out even if the
        caller is cancelled meanwhile.

        Raises:
            StorageFailed: The group could not be committed; nothing of it is written.
            Exception: What the operation raised.
        """
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((operation, answer))
        if self._turning is None:
            self._turning = asyncio.create_task(self._turn())
        return await answer

    async def drain(self) -> None:
        """Wait until everything is written."""
        if self._turning is not None:
            await self._turning

    async def _turn(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            outcomes = await self._commit([operation for operation, _ in group])
            for (_, answer), outcome in zip(group, outcomes, strict=True):
                if answer.done():  # Its caller was cancelled.
                    continue
                if isinstance(outcome, Exception):
                    answer.set_exception(outcome)
                else:
                    answer.set_result(outcome)
        self._turning = None

    async def _commit(self, group: list[Operation[Any]]) -> list[object]:
        """What each operation has returned or raised. If one fails in the database, all do."""
        try:
            await self._connection.execute("BEGIN IMMEDIATE")
            outcomes = [await self._outcome(operation) for operation in group]
            await self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            await self._roll_back()
            return [storage_failed("the job can't be stored", error) for _ in group]
        except ValueError as error:  # The connection is closed.
            return [error for _ in group]
        return outcomes

    async def _outcome(self, operation: Operation[Any]) -> object:
        try:
            return await operation(self._connection)
        except sqlite3.Error:
            # SQLite may have undone the whole transaction; it is over for the group.
            raise
        except Exception as error:
            return error

    async def _roll_back(self) -> None:
        # If even this fails, the next BEGIN does too, and it is tried again.
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                await self._connection.rollback()


def storage_failed(what: str, error: sqlite3.Error) -> StorageFailed:
    """The error that callers may see, which says why in our words; SQLite's are for the log."""
    logger.warning("%s: %s", what, error)
    primary_code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # Python's own errors have none.
    reason = REASONS.get(primary_code, REASON)
    failed = StorageFailed(f"{what}: {reason}", retry_after=RETRY_SECONDS)
    failed.__cause__ = error
    return failed
