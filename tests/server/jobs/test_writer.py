from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiosqlite
import pytest

from chairlift.errors import StorageFailed
from chairlift.server.jobs.schema import connected
from chairlift.server.jobs.writer import Operation, Writer


@asynccontextmanager
async def numbers(folder: Path) -> AsyncIterator[tuple[aiosqlite.Connection, Writer, list[str]]]:
    """A database with a table of numbers, its writer, and the statements that it is told."""
    path = folder / "numbers.sqlite3"
    path.touch()
    statements: list[str] = []
    async with connected(path) as connection:
        await connection.execute("CREATE TABLE numbers (number INTEGER PRIMARY KEY)")
        await connection.set_trace_callback(statements.append)
        yield connection, Writer(connection), statements


def insert(number: int) -> Operation[int]:
    async def operation(connection: aiosqlite.Connection) -> int:
        await connection.execute("INSERT INTO numbers VALUES (?)", (number,))
        return number

    return operation


def stored(folder: Path) -> list[int]:
    with sqlite3.connect(folder / "numbers.sqlite3") as connection:
        rows = connection.execute("SELECT number FROM numbers ORDER BY number").fetchall()
    connection.close()
    return [number for (number,) in rows]


def test_writes_that_wait_share_a_commit(tmp_path: Path) -> None:
    async def write() -> list[str]:
        async with numbers(tmp_path) as (_, writer, statements):
            answers = await asyncio.gather(*(writer.write(insert(n)) for n in range(50)))
            assert answers == list(range(50))
            return statements

    statements = asyncio.run(write())
    assert statements.count("COMMIT") < 5
    assert stored(tmp_path) == list(range(50))


def test_an_operation_that_refuses_does_not_spoil_its_group(tmp_path: Path) -> None:
    async def refuse(connection: aiosqlite.Connection) -> int:
        raise LookupError("there is none")

    async def write() -> list[int | BaseException]:
        async with numbers(tmp_path) as (_, writer, _statements):
            operations = [insert(1), refuse, insert(2)]
            writes = [writer.write(operation) for operation in operations]
            return await asyncio.gather(*writes, return_exceptions=True)

    first, refused, second = asyncio.run(write())
    assert (first, second) == (1, 2)
    assert isinstance(refused, LookupError)
    assert stored(tmp_path) == [1, 2]


def test_if_the_database_fails_nobody_of_the_group_is_acknowledged(tmp_path: Path) -> None:
    async def fail(connection: aiosqlite.Connection) -> int:
        raise sqlite3.OperationalError("disk I/O error")

    async def write() -> list[int | BaseException]:
        async with numbers(tmp_path) as (_, writer, _statements):
            operations = [insert(1), fail, insert(2)]
            failed = await asyncio.gather(
                *(writer.write(operation) for operation in operations), return_exceptions=True
            )
            assert await writer.write(insert(3)) == 3
            return failed

    failed = asyncio.run(write())
    assert [type(error) for error in failed] == 3 * [StorageFailed]
    assert {str(error) for error in failed} == {"the job can't be stored: the database fails"}
    assert len({id(error) for error in failed}) == 3
    assert stored(tmp_path) == [3]


def test_a_write_is_carried_out_without_its_caller(tmp_path: Path) -> None:
    async def write() -> None:
        async with numbers(tmp_path) as (_, writer, _statements):
            caller = asyncio.create_task(writer.write(insert(1)))
            await asyncio.sleep(0)
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
            await writer.drain()

    asyncio.run(write())
    assert stored(tmp_path) == [1]


def test_a_write_after_the_end_raises(tmp_path: Path) -> None:
    async def write() -> None:
        async with numbers(tmp_path) as (_, writer, _statements):
            pass
        with pytest.raises(ValueError, match="no active connection"):
            await writer.write(insert(1))

    asyncio.run(write())
