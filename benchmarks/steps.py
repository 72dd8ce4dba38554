"""What a step costs: seconds at 1 to 16 rows, for each size, and where the knee is.

    python -m benchmarks.steps --models flux.1-dev qwen-image --sizes 512 1024 --compiled -o costs

A model is a folder, or the name of a shipped config; what has no weights gets random ones of full
size. As ``chairlift profile`` measures one model, this measures several, eager and compiled. Each
table is written as a cost table, one file for each model and way; the printed one marks the knee,
past which another row no longer makes a row cheaper.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.machine import describe_machine
from chairlift.models.adapter import Adapter
from chairlift.models.family import Family
from chairlift.models.registry import load_model
from chairlift.models.source import shipped_configs
from chairlift.profiler import Profiler, ShapeCosts

MODELS = ["flux.1-dev", "qwen-image", "z-image-turbo", "stable-diffusion-v1-5"]


def load(model: str, compiled: bool) -> Adapter:
    """The model; random weights where only its configs are at hand."""
    load_format = "dummy" if model in shipped_configs() else "auto"
    adapter = load_model(model, load_format=load_format)
    if compiled and isinstance(adapter, Family):
        adapter.compile()
    return adapter


def report(name: str, way: str, shapes: Sequence[ShapeCosts]) -> None:
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
            profiler = Profiler(adapter, options.repeats, report=print)
            shapes = [profiler.measure(side, side, options.rows) for side in options.sizes]
            report(adapter.card.id, way, shapes)
            table = profiler.table(shapes, f"python -m benchmarks.steps, {way}")
            path = options.output / f"{adapter.card.id}-{way}.json"
            path.write_text(json.dumps(table, indent=2) + "\n")
            del adapter, profiler
            gc.collect()
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
