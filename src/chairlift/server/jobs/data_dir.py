"""The folder given by ``--data-dir``: the database of jobs, their pictures, and a lock."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from chairlift.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True, slots=True)
class DataDir:
    """A folder that this process alone uses, until it is closed. Make one with :meth:`open`."""

    path: Path
    lock: int
    """Descriptor of the locked file. The lock ends with the process, however that ends."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Make the folder (mode 0700) where it is missing, and lock it.

        Raises:
            ConfigurationError: It can't be made or written, or another server uses it.
        """
        try:
            _make_folder(path / "pictures")
            return cls(path=path, lock=_lock(path / "lock"))
        except BlockingIOError as error:
            raise ConfigurationError(
                f"the data folder {path} is in use by another server"
            ) from error
        except OSError as error:
            at = path if error.filename is None else Path(error.filename)
            where = "" if at.is_relative_to(path) else f"{at}: "
            raise ConfigurationError(
                f"the data folder {path} can't be used: {where}{error.strerror}"
            ) from error

    @property
    def database(self) -> Path:
        return self.path / "jobs.sqlite3"

    @property
    def pictures(self) -> Path:
        return self.path / "pictures"

    def close(self) -> None:
        """Unlock the folder."""
        os.close(self.lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk.

    Raises:
        OSError: The disk fails.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _make_folder(path: Path) -> None:
    if not path.is_dir():
        if path.exists():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        _make_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(path.parent)


def _lock(path: Path) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


@contextmanager
def open_data_dir(path: Path | None, port: int) -> Iterator[DataDir]:
    """The folder of a server's jobs.

    Args:
        path: It; None is one of the port's in the user's state folder, since two servers can't have
            the same port.
        port: 0, which is any port, has a folder that goes with the server.

    Raises:
        ConfigurationError: It can't be made or written, or another server uses it.
    """
    if path is not None or port:
        with DataDir.open(path or _state_folder() / f"port-{port}") as data_dir:
            yield data_dir
        return
    with TemporaryDirectory(prefix="chairlift-data-") as folder, DataDir.open(Path(folder)) as own:
        yield own


def _state_folder() -> Path:
    """Where programs keep what they need at the next start:
    https://specifications.freedesktop.org/basedir-spec/latest/
    """
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "chairlift"
