from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chairlift.errors import ConfigurationError
from chairlift.server.jobs.data_dir import DataDir

HOLD = """
import sys
from pathlib import Path
from chairlift.server.jobs.data_dir import DataDir
data_dir = DataDir.open(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


def test_the_folder_is_made_for_this_user_alone(tmp_path: Path) -> None:
    with DataDir.open(tmp_path / "deep" / "data") as data_dir:
        for folder in (data_dir.path, data_dir.pictures):
            assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    with DataDir.open(tmp_path):
        assert tmp_path.stat().st_mode & 0o777 == 0o750


def test_two_servers_cannot_share_a_folder(tmp_path: Path) -> None:
    with DataDir.open(tmp_path):
        with pytest.raises(ConfigurationError, match="in use by another server") as refusal:
            DataDir.open(tmp_path)
        assert str(tmp_path) in str(refusal.value)
    DataDir.open(tmp_path).close()


def test_the_lock_ends_with_the_process_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(ConfigurationError, match="in use by another server"):
            DataDir.open(tmp_path)
        process.kill()
        process.wait()
    DataDir.open(tmp_path).close()


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for path in (file, file / "below"):
        with pytest.raises(ConfigurationError, match="can't be used") as refusal:
            DataDir.open(path)
        assert "\n" not in str(refusal.value)
        assert str(refusal.value).endswith("Not a directory")
    assert f"{file}: Not a directory" in str(refusal.value)
    assert file.read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pictures").mkdir()
    os_open = os.open

    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:  # Who runs the tests may be allowed to write everywhere.
            raise PermissionError(13, "Permission denied", str(path))
        return os_open(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigurationError, match="can't be used: Permission denied"):
        DataDir.open(tmp_path)
