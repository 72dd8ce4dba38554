from __future__ import annotations

import builtins
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from chairlift.errors import StorageFailed
from chairlift.server.jobs import pictures
from chairlift.server.jobs.pictures import PictureFolder
from tests.server.jobs.builders import job_id, names

FULL = os.strerror(errno.ENOSPC)


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """After so many files the kernel has no room for what is written."""
    written = 0

    def open_on_full_disk(path: Path, mode: str) -> Any:
        nonlocal written
        written += 1
        return builtins.open(path if written <= after else "/dev/full", mode.replace("x", "w"))

    monkeypatch.setattr(pictures, "open", open_on_full_disk, raising=False)


def test_pictures_are_files_of_this_user_alone(tmp_path: Path) -> None:
    folder = PictureFolder(tmp_path)
    folder.write(job_id(1), [b"first", b"second"], "webp")
    assert names(tmp_path) == [job_id(1), f"{job_id(1)}/0.webp", f"{job_id(1)}/1.webp"]
    assert (tmp_path / job_id(1)).stat().st_mode & 0o777 == 0o700
    assert folder.file(job_id(1), 1, "webp").read_bytes() == b"second"


@pytest.mark.parametrize("after", [0, 2])
def test_a_full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    folder = PictureFolder(tmp_path)
    fill_the_disk(monkeypatch, after=after)
    with pytest.raises(StorageFailed, match=FULL) as failure:
        folder.write(job_id(1), [b"picture"] * 3, "png")
    assert str(tmp_path) not in failure.value.message  # Callers are told it.
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["fsync", "rename"])
def test_a_disk_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    folder = PictureFolder(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        with pytest.raises(StorageFailed, match=os.strerror(errno.EIO)):
            folder.write(job_id(1), [b"picture"], "png")
    assert names(tmp_path) == []
    folder.write(job_id(1), [b"picture"], "png")
    assert folder.file(job_id(1), 0, "png").read_bytes() == b"picture"


def test_what_a_failed_attempt_has_left_is_replaced(tmp_path: Path) -> None:
    folder = PictureFolder(tmp_path)
    folder.write(job_id(1), [b"old", b"old"], "png")
    (tmp_path / f"{job_id(1)}.draft").mkdir()
    folder.write(job_id(1), [b"new"], "png")
    assert names(tmp_path) == [job_id(1), f"{job_id(1)}/0.png"]
    assert folder.file(job_id(1), 0, "png").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("id", "index", "output_format"),
    [
        ("../../etc", 0, "png"),
        (job_id(1) + "/..", 0, "png"),
        (job_id(1), -1, "png"),
        (job_id(1), 0, "png/../../passwd"),
        (job_id(1), 0, "gif"),
    ],
)
def test_no_other_name_becomes_a_path(
    tmp_path: Path, id: str, index: int, output_format: Any
) -> None:
    with pytest.raises(ValueError, match=r"not a job's id|no picture is called"):
        PictureFolder(tmp_path).file(id, index, output_format)


def test_a_sweep_removes_drafts_and_forgotten_jobs_but_nothing_of_others(tmp_path: Path) -> None:
    folder = PictureFolder(tmp_path)
    for number in (1, 2):
        folder.write(job_id(number), [b"picture"], "png")
    for name in (f"{job_id(3)}.draft", "holidays"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(b"half")
    folder.sweep({job_id(2)})
    assert names(tmp_path) == ["holidays", "holidays/0.png", job_id(2), f"{job_id(2)}/0.png"]


def test_a_folder_that_cannot_be_removed_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = PictureFolder(tmp_path)
    for number in (1, 2, 3):
        folder.write(job_id(number), [b"picture"], "png")
    remove_tree = shutil.rmtree

    def refuse_one(path: Path) -> None:
        if path.name == job_id(1):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        remove_tree(path)

    monkeypatch.setattr(shutil, "rmtree", refuse_one)
    with pytest.raises(StorageFailed, match="1 folders of pictures can't be removed"):
        folder.remove([job_id(number) for number in (1, 2, 3, 4)])
    assert names(tmp_path) == [job_id(1), f"{job_id(1)}/0.png"]
