from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from chairlift.errors import ConfigurationError
from chairlift.server.jobs.rows import write_job
from chairlift.server.jobs.schema import (
    APPLICATION_ID,
    MIGRATIONS,
    connected,
    prepare_database,
)
from chairlift.server.jobs.store import Added
from tests.server.jobs.builders import a_job, job_id, opened


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(database: Path) -> str:
    """Why it isn't opened; everything in its folder stays as it is."""
    before = contents(database.parent)
    with pytest.raises(ConfigurationError) as refused:
        prepare_database(database)
    assert contents(database.parent) == before
    assert str(database) in str(refused.value)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def change(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(statement)
        connection.commit()


def test_a_missing_database_is_made_for_this_user_alone(tmp_path: Path) -> None:
    database = tmp_path / "jobs.sqlite3"
    prepare_database(database)
    assert database.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(database)) as connection:
        [(version,)] = connection.execute("PRAGMA user_version")
        [(application,)] = connection.execute("PRAGMA application_id")
        [(mode,)] = connection.execute("PRAGMA journal_mode")
    assert (version, application, mode) == (len(MIGRATIONS), APPLICATION_ID, "wal")


def test_a_database_that_was_never_finished_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite3.new").write_bytes(b"half of it")
    prepare_database(tmp_path / "jobs.sqlite3")
    assert list(contents(tmp_path)) == ["jobs.sqlite3"]


@pytest.mark.parametrize("content", [b"", b"not a database" * 100, b"SQLite format 3\0"])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    database = tmp_path / "jobs.sqlite3"
    database.write_bytes(content)
    refusal(database)


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    database = tmp_path / "jobs.sqlite3"
    change(database, "CREATE TABLE jobs (id)")
    assert "isn't a database of Chairlift's" in refusal(database)


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    database = tmp_path / "jobs.sqlite3"
    prepare_database(database)
    change(database, "PRAGMA user_version = 7")
    assert "version 7, of a newer Chairlift" in refusal(database)


def test_a_damaged_page_is_refused(tmp_path: Path) -> None:
    async def add_some() -> None:
        async with opened(tmp_path) as store:
            await asyncio.gather(*(store.add(a_job(number)) for number in range(50)))

    asyncio.run(add_some())
    database = tmp_path / "jobs.sqlite3"
    content = bytearray(database.read_bytes())
    content[4 * 4096 : 5 * 4096] = 4096 * b"\xff"
    database.write_bytes(content)
    (tmp_path / "pictures").rmdir()
    assert "corrupt" in refusal(database)


def test_a_truncated_database_is_refused(tmp_path: Path) -> None:
    database = tmp_path / "jobs.sqlite3"
    prepare_database(database)
    database.write_bytes(database.read_bytes()[:5000])
    refusal(database)


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_what_is_left_of_a_database_is_not_mixed_into_a_new_one(
    tmp_path: Path, suffix: str
) -> None:
    (tmp_path / f"jobs.sqlite3{suffix}").write_bytes(b"jobs of long ago")
    assert "without its database" in refusal(tmp_path / "jobs.sqlite3")


def test_an_older_version_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def add_one() -> None:
        async with opened(tmp_path) as store:
            await store.add(a_job(1))

    async def read_one() -> str:
        async with opened(tmp_path) as store:
            return (await store.get(job_id(1))).id

    asyncio.run(add_one())
    added = (*MIGRATIONS, "ALTER TABLE jobs ADD COLUMN place TEXT;")
    monkeypatch.setattr("chairlift.server.jobs.schema.MIGRATIONS", added)
    assert asyncio.run(read_one()) == job_id(1)
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite3")) as connection:
        assert connection.execute("SELECT id, place FROM jobs").fetchall() == [(job_id(1), None)]
        assert connection.execute("PRAGMA user_version").fetchone() == (len(added),)


def test_jobs_of_the_first_version_are_nobodys_and_keep_their_place_and_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def indices(database: Path) -> list[tuple[str]]:
        with closing(sqlite3.connect(database)) as connection:
            return connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()

    old, new = tmp_path / "jobs.sqlite3", tmp_path / "new.sqlite3"
    prepare_database(new)
    with monkeypatch.context() as patch:
        patch.setattr("chairlift.server.jobs.schema.MIGRATIONS", MIGRATIONS[:1])
        prepare_database(old)
    for number in (3, 1, 2):
        row = write_job(a_job(number, user="ada", key=f"key {number}", digest=b"\x01"))
        del row["owner"]
        with closing(sqlite3.connect(old)) as connection:
            names, values = ", ".join(row), ", ".join(f":{name}" for name in row)
            connection.execute(f"INSERT INTO jobs ({names}) VALUES ({values})", row)
            connection.commit()

    async def read() -> None:
        async with opened(tmp_path) as store:
            expected = [a_job(n, user="ada", key=f"key {n}", digest=b"\x01") for n in (3, 1, 2)]
            assert await store.unfinished() == expected
            assert await store.add(a_job(9, key="key 1")) == Added(expected[1], False)
            assert (await store.add(a_job(9, key="key 1", owner="one"))).is_new
            page = await store.page(limit=9, user="ada")
            assert page.jobs == expected[::-1]

    asyncio.run(read())
    assert indices(old) == indices(new)


def test_a_migration_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "jobs.sqlite3"
    prepare_database(database)
    broken = (*MIGRATIONS, "ALTER TABLE jobs ADD COLUMN place TEXT; DROP TABLE missing;")
    monkeypatch.setattr("chairlift.server.jobs.schema.MIGRATIONS", broken)
    assert "no such table" in refusal(database)


def test_every_connection_waits_for_the_disk(tmp_path: Path) -> None:
    async def settings() -> list[int]:
        async with connected(tmp_path / "jobs.sqlite3") as connection:
            pragmas = ("synchronous", "busy_timeout")
            rows = [await connection.execute_fetchall(f"PRAGMA {name}") for name in pragmas]
            return [value for [(value,)] in rows]

    prepare_database(tmp_path / "jobs.sqlite3")
    full = 2
    assert asyncio.run(settings()) == [full, 5000]
