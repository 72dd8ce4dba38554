"""What a terminal shows while a run goes on."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from chairlift.bench.client import Answer


class LiveProgress:
    """A bar and the figures so far; a :class:`~chairlift.bench.run.Watch`. Only a terminal shows
    it, and nothing is left behind.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", figures="")
        self._begin = 0.0
        self._sent = self._ended = self._failed = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def phase(self, name: str, total: int) -> None:
        self._sent = self._ended = self._failed = 0
        self._begin = time.monotonic()
        self._progress.reset(self._task, total=total, description=name, figures="")

    def sent(self) -> None:
        self._sent += 1
        self._show()

    def ended(self, answer: Answer) -> None:
        self._ended += 1
        self._failed += answer.error is not None
        self._show()

    def _show(self) -> None:
        rate = self._ended / max(time.monotonic() - self._begin, 1e-9)
        figures = f"{self._sent - self._ended} under way  {rate:.2f}/s"
        if self._failed:
            figures += f"  {self._failed} failed"
        self._progress.update(self._task, completed=self._ended, figures=figures)
