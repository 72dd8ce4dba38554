"""Measures what steps cost here: seconds of a tick by size and number of rows.

The engine's own runner takes the steps, guidance included, as the model's defaults have it. The
table counts entries of a forward, of which a row with classifier-free guidance takes two.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from chairlift.engine.runner import Runner
from chairlift.models.adapter import Adapter
from chairlift.request import GenerationRequest, RowId
from chairlift.scheduling.costs import Curve
from chairlift.scheduling.plan import Plan
from chairlift.validation import create_request


@dataclass(frozen=True, kw_only=True, slots=True)
class ShapeCosts:
    """One size of one model."""

    width: int
    height: int
    frames: int
    row_entries: int = 1
    """Entries of a forward that a row takes."""
    step_seconds: dict[int, float] = field(default_factory=dict)
    """By number of rows."""
    plain_step_seconds: dict[int, float] = field(default_factory=dict)
    """By number of rows without guidance, where they have it by default."""
    encode_seconds: dict[int, float] = field(default_factory=dict)
    decode_seconds: dict[int, float] = field(default_factory=dict)

    @property
    def knee(self) -> int:
        """The last number of rows that made a row cheaper."""
        return Curve(self.step_seconds).knee(max(self.step_seconds))

    def table(self) -> dict[str, Any]:
        """As a part of a cost table."""
        steps = {rows * self.row_entries: value for rows, value in self.step_seconds.items()}
        steps = dict(sorted((self.plain_step_seconds | steps).items()))
        seconds = {
            "step_seconds": steps,
            "encode_seconds": self.encode_seconds,
            "decode_seconds": self.decode_seconds,
        }
        return {
            "width": self.width,
            "height": self.height,
            "frames": self.frames,
            **{
                name: {str(number): round(value, 6) for number, value in points.items()}
                for name, points in seconds.items()
            },
            "knee": self.knee * self.row_entries,
        }


class Profiler:
    """Measures one model.

    Args:
        adapter: Loaded.
        repeats: How often each thing is measured; the median counts.
        report: Told what was measured, a line at a time.
    """

    def __init__(
        self, adapter: Adapter, repeats: int, report: Callable[[str], object] = lambda line: None
    ) -> None:
        self._adapter = adapter
        self._repeats = repeats
        self._report = report

    def table(self, shapes: Sequence[ShapeCosts], source: str) -> dict[str, Any]:
        """The cost table of what was measured."""
        return {
            "model": self._adapter.card.id,
            "device": describe_device(self._adapter.device),
            "dtype": self._adapter.card.dtype,
            "counts": "forward_rows",
            "row_entries": self._adapter.card.row_entries,
            "source": source,
            "shapes": [shape.table() for shape in shapes],
        }

    def measure(self, width: int, height: int, row_counts: Iterable[int]) -> ShapeCosts:
        """One size, at as many rows as fit into memory.

        Raises:
            InvalidRequest: The model doesn't take this size.
        """
        card = self._adapter.card
        shape = ShapeCosts(
            width=width,
            height=height,
            frames=card.defaults.frames,
            row_entries=card.row_entries,
        )
        for rows in row_counts:
            try:
                shape.step_seconds[rows] = self.step_seconds(width, height, rows)
            except torch.OutOfMemoryError:
                self._report(f"no memory for {rows_of(rows)} of {width}x{height}")
                break
            seconds = shape.step_seconds[rows]
            self._report(f"{rows_of(rows)} of {width}x{height}: {seconds:.4f} s a step")
            if rows <= self._adapter.max_decode_rows:
                shape.decode_seconds[rows] = self.decode_seconds(width, height, rows)
        if card.row_entries > 1:
            shape.plain_step_seconds[1] = self.step_seconds(width, height, 1, guided=False)
        shape.encode_seconds[1] = self.encode_seconds(width, height)
        return shape

    def step_seconds(self, width: int, height: int, rows: int, guided: bool = True) -> float:
        """A tick of this many rows that are all aboard.

        Args:
            width: Pixels.
            height: Pixels.
            rows: At least 1.
            guided: Whether they have classifier-free guidance where that is the default.

        Raises:
            torch.OutOfMemoryError: There is no memory for so many in one forward.
            StepFailed: Not even for one, or the step fails for another reason.
        """
        runner = Runner(self._adapter)
        requests = {
            str(row): self._request(str(row), width, height, self._repeats + 3, guided)
            for row in range(rows)
        }
        ids = tuple(RowId(id, 0) for id in requests)
        key = runner.legs(requests["0"])[0].key
        runner.run_to_end(Plan(key=key, joining=ids, running=ids), requests)
        plan = Plan(key=key, running=ids)
        runner.run_to_end(plan, requests)
        return median(runner.run_to_end(plan, requests).seconds for _ in range(self._repeats))

    def decode_seconds(self, width: int, height: int, rows: int) -> float:
        """Latents to pixels on the host."""
        shape = self._adapter.batch_key(self._request("x", width, height, 1)).latent_shape
        latents = torch.randn(rows, *shape, device=self._adapter.device)
        decode = lambda: self._adapter.decode(latents).cpu()  # noqa: E731
        self._run(decode)
        return median(self._run(decode) for _ in range(max(1, self._repeats // 3)))

    def encode_seconds(self, width: int, height: int) -> float:
        """A newcomer, until it has its slot: its prompt, its noise, its tables."""
        runner = Runner(self._adapter)
        seconds = []
        for number in range(self._repeats + 1):
            request = self._request(f"new {number}", width, height, 1)
            id, key = RowId(request.id, 0), runner.legs(request)[0].key
            plan = Plan(key=key, joining=(id,), running=(id,), finishing=frozenset({id}))
            seconds.append(runner.run_to_end(plan, {request.id: request}).encode_seconds)
        return median(seconds[1:])

    def _request(
        self, id: str, width: int, height: int, steps: int, guided: bool = True
    ) -> GenerationRequest:
        card = self._adapter.card
        off: dict[str, Any] = {card.guidance.cfg_field: card.guidance.cfg_value(1.0)}
        return create_request(
            card,
            id=id,
            prompt=f"a red cabin at night, number {id}",
            width=width,
            height=height,
            steps=max(steps, 10),
            sampler="euler",
            seed=1,
            **({} if guided else off),
        )

    def _run(self, work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        if self._adapter.device.type == "cuda":
            torch.cuda.synchronize(self._adapter.device)
        return time.perf_counter() - start


def rows_of(count: int) -> str:
    """So many rows, in words."""
    return "1 row" if count == 1 else f"{count} rows"


def describe_device(device: torch.device) -> str:
    """The hardware and the version of torch, in a line."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return f"{name}, torch {torch.__version__}"
