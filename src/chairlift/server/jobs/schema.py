"""The database's tables, and what is checked before it is used."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aiosqlite

from chairlift.errors import ConfigurationError
from chairlift.server.jobs.data_dir import sync_folder

APPLICATION_ID = 0x43484C46
"""Marks a database as Chairlift's: "CHLF"."""
OLDEST_SQLITE = (3, 37, 0)
"""The first with strict tables."""

_CREATE_JOBS = """
CREATE TABLE jobs (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order in which they were added
    id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL
        CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    created_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL CHECK ((finished_at IS NULL) = (status IN ('queued', 'running'))),
    request TEXT NOT NULL,
    output_format TEXT NOT NULL,
    images INTEGER NOT NULL,
    picture_bytes INTEGER NOT NULL,
    timings TEXT,
    warnings TEXT NOT NULL,
    error TEXT,
    user TEXT,
    idempotency_key TEXT UNIQUE,
    body_digest BLOB
) STRICT;

-- An index ends with the sequence by itself, so each of the first two gives pages in order.
CREATE INDEX jobs_by_status ON jobs (status);
CREATE INDEX jobs_by_user ON jobs (user, status) WHERE user IS NOT NULL;
CREATE INDEX jobs_by_end ON jobs (finished_at, picture_bytes) WHERE finished_at IS NOT NULL;
"""

# SQLite can't take back that a column is unique; so the table is made anew.
_ADD_OWNERS = """
CREATE TABLE jobs_with_owners (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL
        CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    created_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL CHECK ((finished_at IS NULL) = (status IN ('queued', 'running'))),
    request TEXT NOT NULL,
    output_format TEXT NOT NULL,
    images INTEGER NOT NULL,
    picture_bytes INTEGER NOT NULL,
    timings TEXT,
    warnings TEXT NOT NULL,
    error TEXT,
    user TEXT,
    owner TEXT NOT NULL,  -- short for an API key, or empty
    idempotency_key TEXT,
    body_digest BLOB
) STRICT;

INSERT INTO jobs_with_owners
SELECT
    sequence, id, status, created_at, started_at, finished_at, request, output_format, images,
    picture_bytes, timings, warnings, error, user, '', idempotency_key, body_digest
FROM jobs;

DROP TABLE jobs;
ALTER TABLE jobs_with_owners RENAME TO jobs;

CREATE INDEX jobs_by_status ON jobs (status);
CREATE INDEX jobs_by_user ON jobs (user, status) WHERE user IS NOT NULL;
CREATE INDEX jobs_by_owner ON jobs (owner, status);
CREATE INDEX jobs_by_owner_and_user ON jobs (owner, user, status) WHERE user IS NOT NULL;
CREATE INDEX jobs_by_end ON jobs (finished_at, picture_bytes) WHERE finished_at IS NOT NULL;
CREATE UNIQUE INDEX jobs_by_key ON jobs (owner, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
"""

MIGRATIONS: tuple[str, ...] = (_CREATE_JOBS, _ADD_OWNERS)
"""The script at index ``i`` brings a database from version ``i`` to ``i + 1``. A script that was
released is never changed; the next change of the schema is one more."""

PRAGMAS: tuple[str, ...] = ("synchronous = FULL", "busy_timeout = 5000")
"""What every connection is told. With FULL, a commit returns when it is on the disk. The time, in
milliseconds, is for an operator who looks into the database meanwhile."""


def prepare_database(path: Path) -> None:
    """Make the database if it is missing, else check it and bring it to the present version.

    Raises:
        ConfigurationError: It is corrupt, not Chairlift's, or of a newer version, which leaves it
            as it is; or it can't be written.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise ConfigurationError(
            f"jobs need SQLite {oldest} or newer; Python was built with {sqlite3.sqlite_version}"
        )
    try:
        if not path.exists():
            _create(path)
        _check_owner(path)
        _check_and_migrate(path)
    except sqlite3.Error as error:
        raise ConfigurationError(f"the database {path} can't be used: {error}") from error
    except OSError as error:
        raise ConfigurationError(f"the database {path} can't be used: {error.strerror}") from error


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[aiosqlite.Connection]:
    """A connection to a database that is prepared, on a thread of its own. Transactions are begun
    and committed by statements.

    Raises:
        sqlite3.Error: It can't be opened.
    """
    async with aiosqlite.connect(_uri(path), uri=True, isolation_level=None) as connection:
        connection.row_factory = sqlite3.Row
        for pragma in PRAGMAS:
            await connection.execute(f"PRAGMA {pragma}")
        yield connection


def _create(path: Path) -> None:
    """Make it under another name first: under its own name it is complete from the beginning."""
    for orphan in (Path(f"{path}-wal"), Path(f"{path}-journal")):
        if orphan.exists():
            # SQLite would take it for a part of the new database.
            raise ConfigurationError(f"{orphan} is there without its database {path.name}")
    draft = path.with_name(path.name + ".new")
    for leftover in (draft, Path(f"{draft}-journal")):
        leftover.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    with closing(_connect(draft)) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        _migrate(connection)
    os.rename(draft, path)
    sync_folder(path.parent)


def _check_owner(path: Path) -> None:
    """Look at the file's first bytes; SQLite might write to a database that isn't ours. All else in
    the file may be wrong until SQLite has recovered it.
    """
    with open(path, "rb") as file:
        header = file.read(100)
    application_id = int.from_bytes(header[68:72], "big")
    if not header.startswith(b"SQLite format 3\0") or application_id != APPLICATION_ID:
        raise ConfigurationError(f"{path} isn't a database of Chairlift's")


def _check_and_migrate(path: Path) -> None:
    with closing(_connect(path)) as connection:
        version = _number(connection, "user_version")
        if version > len(MIGRATIONS):
            raise ConfigurationError(
                f"the database {path} has version {version}, of a newer Chairlift; this one reads "
                f"versions up to {len(MIGRATIONS)}"
            )
        [result] = connection.execute("PRAGMA quick_check(1)").fetchone()
        if result != "ok":
            raise ConfigurationError(f"the database {path} is corrupt: {_one_line(result)}")
        _migrate(connection)
        # Kept in the file. Readers and the writer don't wait for each other then.
        [mode] = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise ConfigurationError(
                f"the database {path} is on a file system where SQLite can't keep a write-ahead log"
            )


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(_uri(path), uri=True, isolation_level=None)


def _uri(path: Path) -> str:
    """Names a database that is there; a path alone would make it."""
    return f"{path.absolute().as_uri()}?mode=rw"


def _migrate(connection: sqlite3.Connection) -> None:
    for version in range(_number(connection, "user_version"), len(MIGRATIONS)):
        connection.executescript(
            f"BEGIN IMMEDIATE; {MIGRATIONS[version]} PRAGMA user_version = {version + 1}; COMMIT;"
        )


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    [number] = connection.execute(f"PRAGMA {pragma}").fetchone()
    assert isinstance(number, int)
    return number


def _one_line(text: str) -> str:
    return " ".join(text.split())
