"""What previews of half-made pictures cost, and how close they are to what the decoder makes.

    python -m benchmarks.previews

First, at 1, 4 and 8 rows of the bundled model with guidance, ticks after which every row is
rendered and copied to the host, against ticks without; the two alternate tick by tick. Of the
former, also what the rendering alone took. Beside it the decode that it stands for, and the file of
one preview, which an image thread writes. Then, step by step on prompts that were held out, how far
the previews are from the decodes of the same latents, and how much both are like the finished
picture.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.machine import describe_machine
from chairlift.engine.previews import encode_preview
from chairlift.engine.runner import Runner
from chairlift.models.adapter import Adapter
from chairlift.models.preview import Previewer
from chairlift.models.registry import load_model
from chairlift.request import GenerationRequest, RowId
from chairlift.scheduling.plan import Plan
from chairlift.validation import create_request
from training.evaluate import held_out
from training.postcards import plain_sentence

STEPS = 200


def predictions(
    adapter: Adapter, requests: list[GenerationRequest]
) -> Iterator[Mapping[RowId, Tensor]]:
    """The predicted clean latents of each row, after each tick; empty where none are wanted."""
    known = {request.id: request for request in requests}
    rows = tuple(row for request in requests for row in request.row_ids)
    key, runner, steps = adapter.batch_key(requests[0]), Runner(adapter), requests[0].steps
    for step in range(steps):
        plan = Plan(
            key=key,
            joining=() if step else rows,
            running=rows,
            finishing=frozenset(rows if step == steps - 1 else ()),
        )
        previews = runner.run(plan, known).previews
        yield {row: previews[row] for row in rows if row in previews}


def create_requests(
    adapter: Adapter, prompts: list[str], steps: int, shown: bool
) -> list[GenerationRequest]:
    """One row each; if ``shown``, with a preview of every step."""
    preview_steps = tuple(range(1, steps + 1)) if shown else ()
    return [
        replace(
            create_request(adapter.card, id=str(seed), prompt=prompt, seed=seed, steps=steps),
            preview_steps=preview_steps,
        )
        for seed, prompt in enumerate(prompts)
    ]


def ticks(adapter: Adapter, rows: int, shown: bool) -> Iterator[tuple[float, float]]:
    """Seconds of each tick, and of its previews if they are ``shown``."""
    render = previewer_of(adapter).render
    prompts = [f"a red boat {row}" for row in range(rows)]
    while True:
        steps = predictions(adapter, create_requests(adapter, prompts, STEPS, shown))
        next(steps)  # Takes everybody in.
        for _ in range(STEPS - 10):
            start = time.perf_counter()
            latents = next(steps)
            ticked = time.perf_counter()
            if latents:
                render(torch.stack(list(latents.values()))).cpu()
            yield ticked - start, time.perf_counter() - ticked


def seconds_of(work: Callable[[], object], repeats: int = 20) -> float:
    """The median, after a first call that isn't counted."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def report_costs(adapter: Adapter, counts: list[int], repeats: int) -> None:
    print("| rows | tick, ms | with all previews, ms | more | previews alone, ms | decode, ms |")
    print("| --- | --- | --- | --- | --- | --- |")
    request = create_requests(adapter, ["a red boat"], 20, shown=False)[0]
    shape = adapter.batch_key(request).latent_shape
    for rows in counts:
        plain, shown = (ticks(adapter, rows, shown) for shown in (False, True))
        measured = [(next(plain), next(shown)) for _ in range(repeats + 5)][5:]
        tick = median(without for (without, _), _ in measured)
        together = median(sum(both) for _, both in measured)
        rendering = median(seconds for _, (_, seconds) in measured)
        latents = torch.randn(rows, *shape, device=adapter.device)
        decoding = seconds_of(lambda latents=latents: adapter.decode(latents).cpu())
        print(
            f"| {rows} | {1000 * tick:.2f} | {1000 * together:.2f} | {together / tick - 1:.1%} "
            f"| {1000 * rendering:.2f} ({rendering / tick:.1%}) | {1000 * decoding:.1f} |",
            flush=True,
        )
    picture = previewer_of(adapter).render(torch.randn(1, *shape, device=adapter.device))[0]
    file = seconds_of(lambda: encode_preview(picture, request))
    print(f"\nthe file of a preview, on an image thread: {1000 * file:.2f} ms")


def report_likeness(adapter: Adapter, pictures: int, steps: int) -> None:
    print(
        "\n| step | preview from decode, of 255 | mean colour from decode, of 255 "
        "| likeness of preview and picture | of decode and picture |"
    )
    print("| --- | --- | --- | --- | --- |")
    prompts = [plain_sentence(attributes) for attributes in held_out(pictures)]
    requests = create_requests(adapter, prompts, steps, shown=True)
    latents = [torch.stack(list(rows.values())) for rows in predictions(adapter, requests)]
    shown = sorted({*range(1, steps, 3), steps})
    decodes = {step: decode(adapter, latents[step - 1]) for step in shown}
    for step, decoded in decodes.items():
        previews = colours(previewer_of(adapter).render(latents[step - 1]))
        enlarged = F.interpolate(previews, decoded.shape[2:], mode="bicubic").clamp(0, 255)
        mean = decoded.mean((0, 2, 3), keepdim=True)
        print(
            f"| {step} | {(enlarged - decoded).abs().mean():.1f} "
            f"| {(mean - decoded).abs().mean():.1f} | {likeness(enlarged, decodes[steps]):.3f} "
            f"| {likeness(decoded, decodes[steps]):.3f} |"
        )


def decode(adapter: Adapter, latents: Tensor) -> Tensor:
    """``(rows, 3, height, width)``, from 0 to 255."""
    parts = latents.split(adapter.max_decode_rows)
    return torch.cat([colours(adapter.decode(part)) for part in parts])


def previewer_of(adapter: Adapter) -> Previewer:
    if adapter.previewer is None:
        raise SystemExit(f"{adapter.card.id} has no previews")
    return adapter.previewer


def colours(pixels: Tensor) -> Tensor:
    return pixels.movedim(-1, 1).float().cpu()


def likeness(a: Tensor, b: Tensor) -> float:
    """The mean over pictures of the correlation of their values."""
    both = (torch.stack(pair) for pair in zip(a.flatten(1), b.flatten(1), strict=True))
    return float(torch.stack([torch.corrcoef(pair)[0, 1] for pair in both]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--ticks", type=int, default=200, help="of each measurement")
    parser.add_argument("--pictures", type=int, default=32, help="that are compared")
    parser.add_argument("--steps", type=int, default=20, help="of the pictures that are compared")
    arguments = parser.parse_args()
    adapter = load_model()
    print(f"{adapter.card.id} on {describe_machine()}\n")
    report_costs(adapter, arguments.rows, arguments.ticks)
    report_likeness(adapter, arguments.pictures, arguments.steps)


if __name__ == "__main__":
    main()
