"""One forward of a denoiser in several ways, which take turns on the very same input: as it is, on
other numbers of threads, compiled.

    python -m benchmarks.forwards --compiled

The ratio is taken turn by turn; above 1 a way is faster than the first, which is what is served.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.machine import describe_machine, spread
from chairlift.engine.memory import keep_freed_memory
from chairlift.models.adapter import ForwardBatch
from chairlift.models.compiling import uncompiled
from chairlift.models.family import Family
from chairlift.models.registry import load_model
from chairlift.validation import create_request

Forward = Callable[[], Tensor]


def create_batch(adapter: Family, rows: int) -> ForwardBatch:
    """Rows of the default size, guided if the model's defaults are."""
    request = create_request(adapter.card, id="forward", prompt="a red boat", seed=1)
    entries = rows * (1 + (request.cfg_scale > 1))
    batch = adapter.one_entry(adapter.batch_key(request), request).repeated(entries)
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(1))
    batch.latents.copy_(noise)
    return batch


def create_ways(adapter: Family, batch: ForwardBatch, threads: list[int]) -> dict[str, Forward]:
    """What is compared, the first with all others."""
    usual = torch.get_num_threads()

    def plain() -> Tensor:
        if adapter.compilation is None:
            return adapter.forward(batch)
        with uncompiled():
            return adapter.forward(batch)

    def compiled() -> Tensor:
        assert adapter.compilation is not None
        return adapter.forward(adapter.compilation.prepare(batch))[: len(batch.latents)]

    def with_threads(count: int) -> Tensor:
        torch.set_num_threads(count)
        try:
            return plain()
        finally:
            torch.set_num_threads(usual)

    ways: dict[str, Forward] = {"as it is": plain}
    for count in threads:
        ways[f"{count} threads"] = lambda count=count: with_threads(count)  # type: ignore[misc]
    if adapter.compilation is not None:
        ways["compiled"] = compiled
    return ways


@torch.inference_mode()
def compare(ways: dict[str, Forward], rows: int, repeats: int, device: torch.device) -> None:
    """One table row for each way."""
    outputs = {name: forward().clone() for name, forward in ways.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, forward in ways.items():
            start = time.perf_counter()
            forward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            taken[name].append(time.perf_counter() - start)
    first = next(iter(ways))
    for name, seconds in taken.items():
        ratios = [usual / own for usual, own in zip(taken[first], seconds, strict=True)]
        difference = float((outputs[name] - outputs[first]).abs().max())
        milliseconds = spread([1000 * one for one in seconds])
        print(
            f"| {rows} | {name} | {milliseconds} | {spread(ratios)} | {difference:.0e} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a folder or a hub id; left out, the bundled model")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--threads", type=int, nargs="*", default=[1], help="to compare with")
    parser.add_argument("--compiled", action="store_true", help="compare with compiled forwards")
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    keep_freed_memory()  # As a worker does.
    adapter = load_model(options.model)
    if not isinstance(adapter, Family):
        parser.error(f"{adapter.card.id} has no networks")
    if options.compiled:
        adapter.compile()
        adapter.warm_up(max(options.rows), lambda part, done, total: print(part, flush=True))
    print(f"{adapter.card.id} on {describe_machine()}\n")
    print("| rows | way | ms | times as fast | largest difference |")
    print("| --- | --- | --- | --- | --- |")
    for rows in options.rows:
        with torch.inference_mode():
            batch = create_batch(adapter, rows)
        ways = create_ways(adapter, batch, options.threads)
        compare(ways, rows, options.repeats, adapter.device)


if __name__ == "__main__":
    main()
