"""How fast the engine ticks, and what it costs beside a bare loop.

    python -m benchmarks.ticks

First, ticks and rows a second at 1 to 16 rows of the bundled model, with guidance. Then, at 8
rows, the engine's turns against a loop that does nothing but the same forwards and sampler
updates; the two alternate, and the ratio is taken pair by pair.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from statistics import median

import torch

from benchmarks.machine import describe_machine, spread
from chairlift.engine.loop import Loop
from chairlift.engine.memory import keep_freed_memory
from chairlift.engine.messages import Cancel, Submit
from chairlift.models.adapter import Adapter, ForwardBatch
from chairlift.models.registry import load_model
from chairlift.request import Prompt
from chairlift.sampling.samplers import step_table
from chairlift.scheduling.scheduler import Scheduler
from chairlift.validation import create_request

STEPS = 200


def engine_turns(adapter: Adapter, rows: int) -> Iterator[float]:
    """Seconds of each turn of the loop with this many rows aboard."""
    scheduler = Scheduler(batching="continuous", max_batch_size=rows)
    loop = Loop(adapter, scheduler, lambda message: None)
    number = 0
    while True:
        ids = [f"{number}-{row}" for row in range(rows)]
        for id in ids:
            request = create_request(adapter.card, id=id, prompt=f"a red boat {id}", steps=STEPS)
            loop.send(Submit(request=request))
        loop.turn()  # Finds the mailbox full only at its end.
        loop.turn()  # Takes everybody in.
        for _ in range(STEPS - 10):
            start = time.perf_counter()
            loop.turn()
            yield time.perf_counter() - start
        for id in ids:
            loop.send(Cancel(request_id=id))
        loop.turn()
        number += 1


@torch.inference_mode()
def bare_steps(adapter: Adapter, rows: int) -> Iterator[float]:
    """Seconds of each step of a loop without an engine: Euler, as plainly as it can be written."""
    request = create_request(adapter.card, id="bare", prompt="a red boat", steps=STEPS)
    table = step_table(adapter.schedule(request))
    positive, negative = adapter.encode([Prompt("a red boat"), Prompt("")])
    text = {
        name: torch.cat([negative.tensors[name].expand(rows, -1, -1), values.expand(rows, -1, -1)])
        for name, values in positive.tensors.items()
    }
    zeros = torch.zeros(2 * rows)
    scale = torch.full((rows, 1, 1, 1), request.cfg_scale)
    key = adapter.batch_key(request)
    while True:
        shape = (rows, *key.latent_shape)
        latents = torch.randn(shape) * table.initial_scale
        for step in range(STEPS - 10):
            start = time.perf_counter()
            scaled = latents * table.input_scale[step]
            batch = ForwardBatch(
                key=key,
                latents=torch.cat([scaled, scaled]),
                timesteps=torch.full((2 * rows,), float(table.timestep[step])),
                conditioning=text | {"guidance_rescale": zeros},
                sequences={},
                guided=rows,
                loras=frozenset(),
                cfg_scales=scale,
            )
            prediction = adapter.predict(batch)
            denoised = table.denoised_x[step] * latents + table.denoised_p[step] * prediction
            latents = table.next_x[step] * latents + table.next_denoised[step] * denoised
            yield time.perf_counter() - start


def take(source: Iterator[float], count: int) -> float:
    """The median of the next ``count`` values."""
    return median(next(source) for _ in range(count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a folder or a hub id; left out, the bundled model")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--ticks", type=int, default=100, help="ticks of each measurement")
    parser.add_argument("--pairs", type=int, default=20, help="alternations engine and bare loop")
    arguments = parser.parse_args()
    keep_freed_memory()  # As a worker does.
    adapter = load_model(arguments.model)
    print(f"{adapter.card.id} on {describe_machine()}\n")
    print("| rows | ticks/s | rows/s |\n| --- | --- | --- |")
    for rows in arguments.rows:
        turns = engine_turns(adapter, rows)
        take(turns, 5)
        seconds = take(turns, arguments.ticks)
        print(f"| {rows} | {1 / seconds:.1f} | {rows / seconds:.1f} |", flush=True)

    engine, bare = engine_turns(adapter, 8), bare_steps(adapter, 8)
    take(engine, 5), take(bare, 5)
    pairs = [(take(engine, 15), take(bare, 15)) for _ in range(arguments.pairs)]
    print(f"\nat 8 rows, {arguments.pairs} pairs of 15 ticks, medians (least to greatest):")
    print(f"engine {spread([1000 * pair[0] for pair in pairs])} ms a tick")
    print(f"bare loop {spread([1000 * pair[1] for pair in pairs])} ms a step")
    print(f"speed of the engine beside the bare loop {spread([b / e for e, b in pairs])}")


if __name__ == "__main__":
    main()
