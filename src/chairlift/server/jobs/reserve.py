"""Room on the disk that is kept for what becomes of jobs, so that one which can't be stored because
the disk is full has a row that says so. Blocks; call it in a thread.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from chairlift.errors import StorageFailed
from chairlift.server.jobs.writer import RETRY_SECONDS

logger = logging.getLogger(__name__)

LOG_BYTES = 4608 * 2**10
"""The write-ahead log gets about as long by itself: SQLite begins it anew after 1000 pages."""
MIN_FREE_BYTES = 2**20
"""While less is free, no job is accepted: its pictures would hardly find room."""


def reserve_log(database: Path) -> None:
    """Make the write-ahead log as long as it gets, while there is room. What comes behind its last
    frame SQLite passes over.

    Args:
        database: One that a connection has written to.
    """
    if not hasattr(os, "posix_fallocate"):  # As on macOS.
        return
    log = os.open(f"{database}-wal", os.O_RDWR)
    try:
        os.posix_fallocate(log, 0, LOG_BYTES)
    except OSError as error:
        logger.warning("no room can be kept for the ends of jobs: %s", error.strerror)
    finally:
        os.close(log)


def require_room(folder: Path) -> None:
    """Refuse a job whose pictures would find no room.

    Raises:
        StorageFailed: The disk is full.
    """
    try:
        disk = os.statvfs(folder)
    except OSError as error:
        raise StorageFailed(f"the job can't be stored: {error.strerror}") from error
    free = disk.f_bavail * disk.f_frsize
    if free < MIN_FREE_BYTES:
        raise StorageFailed(
            f"the job can't be stored: the disk is full, {free} bytes are free of at least "
            f"{MIN_FREE_BYTES}",
            retry_after=RETRY_SECONDS,
        )
