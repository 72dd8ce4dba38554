"""Files as answers, and parts of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from chairlift.errors import RangeNotSatisfiable, StorageFailed
from chairlift.server.file_answer import CHUNK_BYTES, FileAnswer, find_part

HEADERS = {"ETag": '"a"'}


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-", range(10)),
        ("bytes=0-0", range(1)),
        ("bytes=3-5", range(3, 6)),
        ("bytes=9-9", range(9, 10)),
        ("bytes=5-999999999999999999", range(5, 10)),
        ("bytes=-3", range(7, 10)),
        ("bytes=-30", range(10)),
    ],
)
def test_a_range_names_a_part(asked: str, part: range) -> None:
    assert find_part(asked, 10) == part


@pytest.mark.parametrize(
    "asked",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5-3",
        "bytes=a-b",
        "bytes=0-1,4-5",
        "bytes=0-" + "9" * 30,
        "bytes=٣-٥",
        "frames=0-1",
    ],
)
def test_what_names_no_range_is_ignored(asked: str | None) -> None:
    assert find_part(asked, 10) is None


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-12", "bytes=-0"])
def test_a_range_behind_the_end_is_refused(asked: str) -> None:
    message = f"^Range is '{asked}'; the file has 10 bytes$"
    with pytest.raises(RangeNotSatisfiable, match=message) as refused:
        find_part(asked, 10)
    assert refused.value.size == 10


def send(path: Path, **options: Any) -> tuple[int, Mapping[str, str], bytes, int]:
    """The status, the headers, the body, and in how many pieces it was sent."""
    messages: list[Any] = []

    async def keep(message: Any) -> None:
        messages.append(message)

    async def run() -> None:
        answer = FileAnswer(path.open("rb"), "video/mp4", HEADERS, **options)
        await answer({"type": "http"}, lambda: asyncio.sleep(0), keep)  # type: ignore[arg-type]

    asyncio.run(run())
    head, *bodies = messages
    assert [body.get("more_body", False) for body in bodies] == [True] * (len(bodies) - 1) + [False]
    headers = httpx.Headers(head["headers"])
    return head["status"], headers, b"".join(body["body"] for body in bodies), len(bodies)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * (3 * CHUNK_BYTES // 256 + 1))
    return path


def test_a_long_file_is_sent_in_pieces(path: Path) -> None:
    status, headers, body, pieces = send(path)
    assert (status, body, pieces) == (200, path.read_bytes(), 4)
    assert headers["Content-Length"] == str(len(body))
    assert "Content-Range" not in headers


@pytest.mark.parametrize("start", [7, CHUNK_BYTES, 3 * CHUNK_BYTES + 255])
def test_a_part_is_sent_in_pieces(path: Path, start: int) -> None:
    whole = path.read_bytes()
    status, headers, body, _ = send(path, asked=f"bytes={start}-")
    assert (status, body) == (206, whole[start:])
    assert headers["Content-Length"] == str(len(body))
    assert headers["Content-Range"] == f"bytes {start}-{len(whole) - 1}/{len(whole)}"


@pytest.mark.parametrize(("condition", "status"), [('"a"', 206), ('"b"', 200), ('W/"a"', 200)])
def test_a_part_of_another_file_is_the_whole(path: Path, condition: str, status: int) -> None:
    assert send(path, asked="bytes=0-1", condition=condition)[0] == status


def test_a_file_that_has_shrunk_is_an_error(path: Path) -> None:
    async def run() -> None:
        answer = FileAnswer(path.open("rb"), "video/mp4", HEADERS, "bytes=100-")
        path.write_bytes(b"short")
        await answer({"type": "http"}, None, None)  # type: ignore[arg-type]

    with pytest.raises(StorageFailed, match=r"are missing at its end$"):
        asyncio.run(run())


def test_a_disk_that_fails_is_told_before_the_head_is_sent(path: Path) -> None:
    class Broken(BytesIO):
        def fileno(self) -> int:
            return file.fileno()

        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error", "secret")

    async def run() -> None:
        await FileAnswer(Broken(), "video/mp4", HEADERS)({"type": "http"}, None, None)  # type: ignore[arg-type]

    with path.open("rb") as file, pytest.raises(StorageFailed, match=r"read: Input/output error$"):
        asyncio.run(run())


def test_an_empty_file_is_sent(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    status, headers, body, pieces = send(tmp_path / "empty")
    assert (status, headers["Content-Length"], body, pieces) == (200, "0", b"", 1)
