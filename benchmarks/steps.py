"""What a step costs: seconds at 1 to 16 rows, for each size, and where the knee is.

    python -m benchmarks.steps --models flux.1-dev qwen-image --sizes 512 1024 --compiled -o costs

A model is a folder, or the name of a shipped config; what has no weights gets random ones of full
size. The engine's own runner takes the steps, guidance included, as the model's defaults have it.
Each table is written as a cost table, one file for each model and way, with seconds of encoding
and of decoding beside the steps; the printed one marks the knee, past which another row no longer
makes a row cheaper.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.machine import describe_machine
from chairlift.engine.runner import Runner
from chairlift.models.adapter import Adapter
from chairlift.models.family import Family
from chairlift.models.registry import load_model
from chairlift.models.source import shipped_configs
from chairlift.request import GenerationRequest, Prompt, RowId
from chairlift.scheduling.plan import Plan
from chairlift.validation import create_request

MODELS = ["flux.1-dev", "qwen-image", "z-image-turbo", "stable-diffusion-v1-5"]
WORTH_A_ROW = 0.05
"""By how much a row must become cheaper to count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """One size of one model."""

    width: int
    height: int
    frames: int
    step_seconds: dict[int, float] = field(default_factory=dict)
    """By number of rows."""
    encode_seconds: dict[int, float] = field(default_factory=dict)
    decode_seconds: dict[int, float] = field(default_factory=dict)

    @property
    def knee(self) -> int:
        """The last number of rows that made a row cheaper."""
        knee, cheapest = 1, float("inf")
        for rows, seconds in sorted(self.step_seconds.items()):
            if seconds / rows < cheapest * (1 - WORTH_A_ROW):
                knee, cheapest = rows, seconds / rows
        return knee

    def table(self) -> dict[str, Any]:
        """As a part of a cost table."""
        sides = {"width": self.width, "height": self.height, "frames": self.frames}
        names = ("step_seconds", "encode_seconds", "decode_seconds")
        seconds = {
            name: {str(rows): round(value, 6) for rows, value in getattr(self, name).items()}
            for name in names
        }
        return sides | seconds | {"knee": self.knee}


class Bench:
    """Measures one model.

    Args:
        adapter: Loaded.
        repeats: How often each thing is measured; the median counts.
    """

    def __init__(self, adapter: Adapter, repeats: int) -> None:
        self._adapter = adapter
        self._repeats = repeats

    def measure(self, width: int, height: int, row_counts: Iterable[int]) -> Shape:
        """One size, at as many rows as fit into memory."""
        frames = self._adapter.card.defaults.frames
        shape = Shape(width=width, height=height, frames=frames)
        for rows in row_counts:
            try:
                shape.step_seconds[rows] = self.step_seconds(width, height, rows)
            except torch.OutOfMemoryError:
                print(f"  {rows} rows don't fit into memory", flush=True)
                break
            print(f"  {rows} rows: {shape.step_seconds[rows]:.4f} s a step", flush=True)
            if rows <= self._adapter.max_decode_rows:
                shape.decode_seconds[rows] = self.decode_seconds(width, height, rows)
        shape.encode_seconds[1] = self.encode_seconds()
        return shape

    def step_seconds(self, width: int, height: int, rows: int) -> float:
        """A tick of this many rows that are all aboard."""
        runner = Runner(self._adapter, rows)
        requests = {
            str(row): self._request(str(row), width, height, self._repeats + 3)
            for row in range(rows)
        }
        ids = tuple(RowId(id, 0) for id in requests)
        key = runner.legs(requests["0"])[0].key
        joining = Plan(key=key, joining=ids, running=ids)
        self._run(lambda: runner.run(joining, requests))
        plan = Plan(key=key, running=ids)
        self._run(lambda: runner.run(plan, requests))
        return median(self._run(lambda: runner.run(plan, requests)) for _ in range(self._repeats))

    def decode_seconds(self, width: int, height: int, rows: int) -> float:
        """Latents to pixels on the host."""
        shape = self._adapter.batch_key(self._request("x", width, height, 1)).latent_shape
        latents = torch.randn(rows, *shape, device=self._adapter.device)
        decode = lambda: self._adapter.decode(latents).cpu()  # noqa: E731
        self._run(decode)
        return median(self._run(decode) for _ in range(max(1, self._repeats // 3)))

    def encode_seconds(self) -> float:
        """One prompt of some length."""
        encode = lambda: self._adapter.encode([Prompt("a red cabin at night " * 10)])  # noqa: E731
        self._run(encode)
        return median(self._run(encode) for _ in range(max(1, self._repeats // 3)))

    def _request(self, id: str, width: int, height: int, steps: int) -> GenerationRequest:
        return create_request(
            self._adapter.card,
            id=id,
            prompt=f"a red cabin at night, number {id}",
            width=width,
            height=height,
            steps=max(steps, 10),
            sampler="euler",
            seed=1,
        )

    def _run(self, work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        if self._adapter.device.type == "cuda":
            torch.cuda.synchronize(self._adapter.device)
        return time.perf_counter() - start


def load(model: str, compiled: bool) -> Adapter:
    """The model; random weights where only its configs are at hand."""
    load_format = "dummy" if model in shipped_configs() else "auto"
    adapter = load_model(model, load_format=load_format)
    if compiled and isinstance(adapter, Family):
        adapter.compile()
    return adapter


def write(path: Path, adapter: Adapter, way: str, shapes: Sequence[Shape]) -> None:
    """A cost table."""
    table = {
        "model": adapter.card.id,
        "device": describe_machine(),
        "dtype": adapter.card.dtype,
        "counts": "rows",
        "source": f"python -m benchmarks.steps, {way}, guidance as the model's defaults have it",
        "shapes": [shape.table() for shape in shapes],
    }
    path.write_text(json.dumps(table, indent=2) + "\n")


def report(name: str, way: str, shapes: Sequence[Shape]) -> None:
    """One table for people."""
    counts = sorted({rows for shape in shapes for rows in shape.step_seconds})
    print(f"\n{name}, {way}: seconds a step (knee in bold)\n")
    print("| size | " + " | ".join(map(str, counts)) + " |\n| --- |" + " --- |" * len(counts))
    for shape in shapes:
        cells = []
        for rows in counts:
            seconds = shape.step_seconds.get(rows)
            cell = "–" if seconds is None else f"{seconds:.4f}"
            cells.append(f"**{cell}**" if rows == shape.knee else cell)
        print(f"| {shape.width}x{shape.height} | " + " | ".join(cells) + " |")
    print(flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024], help="of squares")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--repeats", type=int, default=10, help="of which the median counts")
    parser.add_argument("--compiled", action="store_true", help="measure compiled steps too")
    parser.add_argument("-o", "--output", type=Path, default=Path(), help="folder of the tables")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    print(describe_machine())
    for model in options.models:
        for way in ["eager", "compiled"] if options.compiled else ["eager"]:
            print(f"{model}, {way}", flush=True)
            adapter = load(model, compiled=way == "compiled")
            bench = Bench(adapter, options.repeats)
            shapes = [bench.measure(side, side, options.rows) for side in options.sizes]
            report(adapter.card.id, way, shapes)
            write(options.output / f"{adapter.card.id}-{way}.json", adapter, way, shapes)
            del adapter, bench
            gc.collect()
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
