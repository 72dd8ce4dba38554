"""Full-size models of random weights on a GPU: each way to batch, beside a bare loop.

    python -m benchmarks.gpu --models flux.1-dev --sizes 512 1024 -o build/gpu/flux

For each model and size: what steps of 1 to 16 rows cost, and the knee; a bare loop of nothing but
denoiser, sampler and decoder at the knee; then ``off``, ``dynamic`` (swept) and ``continuous``: a
closed loop, all at once, and Poisson arrivals at shares of the bare loop's capacity.
Everything runs in this process, without HTTP. After every measurement what there is is written to
results.json and results.md in the output folder. The exit status is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import published
from benchmarks.gpu.measure import SizeBench
from benchmarks.gpu.report import lines
from benchmarks.gpu.results import ModelResults, Results, Size
from benchmarks.gpu.settings import Plan
from benchmarks.gpu.targets import verdicts
from benchmarks.machine import describe_machine
from benchmarks.steps import MODELS
from chairlift.engine.memory import free_memory
from chairlift.errors import ChairliftError
from chairlift.models.adapter import Adapter
from chairlift.models.family import Family
from chairlift.models.registry import choose_device, hide_progress_bars, load_model
from chairlift.models.source import shipped_configs
from chairlift.validation import create_request


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure everything; the exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parse(given)
    device = choose_device(options.device)
    if device.type == "cpu" and options.device == "auto":
        full = [model for model in options.models if is_shipped(model)]
        if full:
            print(
                f"there is no CUDA device for {', '.join(full)} at full size; give the folders of "
                "small models, or --device cpu",
                file=sys.stderr,
            )
            return 2
    plan = Plan(**{field.name: getattr(options, field.name) for field in fields(Plan)})
    benchmark = Benchmark(plan, options, Results(machine=describe_machine(), arguments=given))
    hide_progress_bars()
    for model in options.models:
        benchmark.measure(model)
    print("", *lines(benchmark.results), f"\nwritten to {options.output}", sep="\n", flush=True)
    return 0 if benchmark.results.is_whole else 1


class Benchmark:
    """One model after the other.

    Args:
        plan: What is measured.
        options: How models are loaded, and where the results go.
        results: To fill in.
    """

    def __init__(self, plan: Plan, options: argparse.Namespace, results: Results) -> None:
        self.results = results
        self._plan = plan
        self._options = options
        self._start = time.monotonic()

    def measure(self, name: str) -> None:
        """One model; whatever goes wrong with it is written down."""
        model = ModelResults(name=name)
        self.results.models.append(model)
        self._report(name, "is loaded")
        try:
            adapter = self._load(name)
        except ChairliftError as error:
            model.error = str(error)
            self._report(name, model.error)
            self.save()
            return
        self._measure_sizes(model, adapter)
        del adapter
        self._give_back(name)

    def _measure_sizes(self, model: ModelResults, adapter: Adapter) -> None:
        card = adapter.card
        defaults = create_request(card, id="defaults", prompt="")
        model.dtype, model.guided = card.dtype, defaults.cfg_scale > 1
        model.steps = self._plan.steps or card.defaults.steps
        model.parameters = {part.name: part.parameters for part in card.components}
        memory = free_memory(adapter.device)
        # As a worker does: what is loaded stays, and isn't looked through for garbage.
        gc.collect()
        gc.freeze()
        for side in self._plan.sides:
            size = Size(side=side, is_large=side >= self._plan.large)
            model.sizes.append(size)
            bench = SizeBench(
                adapter,
                size,
                self._plan,
                steps=model.steps,
                memory=memory,
                report=lambda line, side=side: self._report(f"{model.name} {side}x{side}", line),  # type: ignore[misc]
                save=self.save,
            )
            try:
                bench.run()
            except Exception as error:  # The other sizes and models may work.
                traceback.print_exc()
                size.error = f"{type(error).__name__}: {error}"
            self.save()

    def _load(self, name: str) -> Adapter:
        adapter = load_model(
            name,
            device=self._options.device,
            dtype=self._options.dtype,
            load_format=load_format(name),
            attention_backend=self._options.attention_backend,
        )
        if self._options.compile:
            if not isinstance(adapter, Family):
                raise ChairliftError(f"{name} has no networks to compile")
            adapter.compile()
        return adapter

    def _give_back(self, name: str) -> None:
        """The memory of a model to which nobody refers any more."""
        gc.unfreeze()
        if self._options.compile:
            torch.compiler.reset()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            held = torch.cuda.memory_allocated() / 2**30
            self._report(name, f"is given back; {held:.1f} GiB are still held")

    def _report(self, what: str, line: str) -> None:
        print(f"[{time.monotonic() - self._start:6.0f} s] {what}: {line}", flush=True)

    def save(self) -> None:
        """Write what there is. Whoever reads it meanwhile finds the former files whole."""
        folder: Path = self._options.output
        folder.mkdir(parents=True, exist_ok=True)
        texts = {
            "results.json": json.dumps(to_json(self.results), indent=1),
            "results.md": "\n".join(lines(self.results)),
        }
        for name, text in texts.items():
            new = folder / f"{name}.new"
            new.write_text(text + "\n", encoding="utf-8")
            os.replace(new, folder / name)


def to_json(results: Results) -> dict[str, Any]:
    """For other programs."""
    models = []
    for model in results.models:
        entry = model.to_json()
        for size, known in zip(entry["sizes"], model.sizes, strict=True):
            size["targets"] = [
                asdict(verdict) | {"is_met": verdict.is_met} for verdict in verdicts(known)
            ]
        models.append(entry)
    return {
        "machine": results.machine,
        "arguments": list(results.arguments),
        "is_whole": results.is_whole,
        "models": models,
        "published": {
            "requests_source": published.REQUESTS_SOURCE,
            "requests": {name: asdict(one) for name, one in published.REQUESTS.items()},
            "steps_source": published.STEPS_SOURCE,
            "steps": {name: dict(sizes) for name, sizes in published.STEPS.items()},
        },
    }


def is_shipped(model: str) -> bool:
    """Whether this is the name of a shipped config, and so of a model of full size."""
    return model in shipped_configs() and not Path(model).is_dir()


def load_format(model: str) -> str:
    """Random weights where only configs are at hand."""
    has_weights = any(Path(model).glob("*/*.safetensors"))
    return "auto" if has_weights else "dummy"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    plan = Plan()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    add = parser.add_argument
    add("--models", nargs="+", default=MODELS, help="folders, or names of shipped configs")
    add("--sizes", dest="sides", type=int, nargs="+", default=plan.sides, help="of squares, pixels")
    add("--large", type=int, default=plan.large, help="from this size on, batching gains nothing")
    add("--steps", type=int, default=plan.steps, help="of a picture; else the model's default")
    add("--rows", type=int, nargs="+", default=plan.rows, help="at which a step is measured")
    add("--repeats", type=int, default=plan.repeats, help="steps of each")
    add("--seconds", type=float, default=plan.seconds, help="of each measurement, at least")
    add("--pictures", type=int, default=plan.pictures, help="at each Poisson load, at least")
    add("--clients", type=int, nargs="+", default=plan.clients, help="of closed loops")
    add("--at-once", type=int, default=plan.at_once, help="requests sent together; 0 for none")
    add("--loads", type=float, nargs="+", default=plan.loads, help="shares of the bare loop's")
    add("--batch-sizes", type=int, nargs="+", default=plan.batch_sizes, help="of dynamic")
    add("--delays", type=float, nargs="+", default=plan.delays, help="of dynamic, in times alone")
    add("--seed", type=int, default=plan.seed, help="of the arrivals")
    add("--device", default="auto", help="auto, cpu or cuda[:i]")
    add("--dtype", default="auto", help="as for chairlift serve")
    add("--attention-backend", help="as for chairlift serve")
    add("--compile", action="store_true", help="the denoisers")
    add("-o", "--output", type=Path, default=Path("build/gpu"), help="folder of the results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
