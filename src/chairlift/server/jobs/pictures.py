"""The picture files of jobs: ``<job id>/<index>.<format>``. Blocks; call it in a thread."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from chairlift.errors import StorageFailed
from chairlift.request import IMAGE_FORMATS, VIDEO_FORMATS, OutputFormat
from chairlift.server.jobs.data_dir import sync_folder
from chairlift.server.jobs.job import check_job_id

_OURS = re.compile(r"job_[0-9a-f]{32}(\.draft)?")


class PictureFolder:
    """A folder with one folder for each job that has pictures. A job's folder is complete: it is
    written as a draft, and then renamed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, job_id: str, index: int, output_format: OutputFormat) -> Path:
        """Where a picture is; no name but a job's id and a known format becomes a path.

        Raises:
            ValueError: One of these is something else.
        """
        return self._folder(job_id) / _file_name(index, output_format)

    def write(self, job_id: str, images: Sequence[bytes], output_format: OutputFormat) -> None:
        """Write a job's folder, in place of what an attempt that failed has left there.

        Raises:
            StorageFailed: It couldn't be written; nothing of it is left.
        """
        folder = self._folder(job_id)
        draft = folder.with_name(f"{folder.name}.draft")
        try:
            for leftover in (draft, folder):
                if leftover.exists():
                    shutil.rmtree(leftover)
            draft.mkdir(mode=0o700)
            for index, image in enumerate(images):
                _write_file(draft / _file_name(index, output_format), image)
            sync_folder(draft)
            os.rename(draft, folder)
            sync_folder(self.path)
        except OSError as error:
            self.discard(job_id)
            raise StorageFailed(f"the pictures can't be stored: {error.strerror}") from error

    def discard(self, job_id: str) -> None:
        """Remove what was written for a job that hasn't succeeded; what resists goes at the next
        start.
        """
        folder = self._folder(job_id)
        for leftover in (folder.with_name(f"{folder.name}.draft"), folder):
            shutil.rmtree(leftover, ignore_errors=True)

    def remove(self, job_ids: Iterable[str]) -> None:
        """Remove the folders of these jobs, where they have one.

        Raises:
            StorageFailed: Some couldn't be removed; all others are gone.
        """
        failures = []
        for job_id in job_ids:
            try:
                shutil.rmtree(self._folder(job_id))
            except FileNotFoundError:
                continue
            except OSError as error:
                failures.append(error)
        if failures:
            raise StorageFailed(
                f"{len(failures)} folders of pictures can't be removed: {failures[0].strerror}"
            )

    def sweep(self, keep: Collection[str]) -> None:
        """Remove drafts, and the folders of all jobs but these; other people's files stay.

        Raises:
            OSError: Something can't be removed.
        """
        for entry in list(self.path.iterdir()):
            if _OURS.fullmatch(entry.name) and entry.name not in keep:
                shutil.rmtree(entry)

    def _folder(self, job_id: str) -> Path:
        check_job_id(job_id)
        return self.path / job_id


def _file_name(index: int, output_format: OutputFormat) -> str:
    if index < 0 or output_format not in IMAGE_FORMATS + VIDEO_FORMATS:
        raise ValueError(f"no picture is called {index}.{output_format}")
    return f"{index}.{output_format}"


def _write_file(path: Path, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
