"""What previews of half-made pictures cost, and how close they are to what the decoder makes.

    python -m benchmarks.previews

First, at 1, 4 and 8 rows of the bundled model with guidance, ticks after which every row is
rendered and copied to the host, against ticks without; the two alternate, and the share is taken
pair by pair. Beside it the rendering by itself, the decode that it stands for, and the file of one
preview, which an image thread writes. Then, step by step on prompts that were held out, how far the
previews are from the decodes of the same latents, and how much both are like the finished picture.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.machine import describe_machine, spread
from chairlift.engine.previews import encode_preview
from chairlift.engine.runner import Runner
from chairlift.models.adapter import Adapter
from chairlift.models.preview import Previewer
from chairlift.models.registry import load_model
from chairlift.request import GenerationRequest
from chairlift.scheduling.plan import Plan
from chairlift.validation import create_request
from training.evaluate import held_out
from training.postcards import plain_sentence

STEPS = 200


def predictions(adapter: Adapter, requests: list[GenerationRequest]) -> Iterator[Tensor | None]:
    """The predicted clean latents of all rows after each tick; None where no request wants any."""
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
        yield torch.stack([previews[row] for row in rows]) if previews else None


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


def ticks(adapter: Adapter, previewer: Previewer, rows: int, shown: bool) -> Iterator[float]:
    """Seconds of each tick; if ``shown``, of each tick and the previews of all its rows."""
    prompts = [f"a red boat {row}" for row in range(rows)]
    while True:
        steps = predictions(adapter, create_requests(adapter, prompts, STEPS, shown))
        next(steps)  # Takes everybody in.
        for _ in range(STEPS - 10):
            start = time.perf_counter()
            latents = next(steps)
            if latents is not None:
                previewer.render(latents).cpu()
            yield time.perf_counter() - start


def take(source: Iterator[float], count: int) -> float:
    """The median of the next ``count`` values."""
    return median(next(source) for _ in range(count))


def seconds_of(work: Callable[[], object], repeats: int = 50) -> float:
    """The median, after a first call that isn't counted."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def report_costs(adapter: Adapter, previewer: Previewer, counts: list[int], pairs: int) -> None:
    print("| rows | tick, ms | cost of previews, % of a tick | rendering, ms | decoding, ms |")
    print("| --- | --- | --- | --- | --- |")
    request = create_requests(adapter, ["a red boat"], 20, shown=False)[0]
    shape = adapter.batch_key(request).latent_shape
    for rows in counts:
        plain, shown = (ticks(adapter, previewer, rows, shown) for shown in (False, True))
        take(plain, 5), take(shown, 5)
        measured = [(take(plain, 15), take(shown, 15)) for _ in range(pairs)]
        costs = spread([100 * (b / a - 1) for a, b in measured])
        latents = torch.randn(rows, *shape, device=adapter.device)
        rendering = seconds_of(lambda latents=latents: previewer.render(latents).cpu())
        decoding = seconds_of(lambda latents=latents: adapter.decode(latents).cpu(), 10)
        tick = median(a for a, _ in measured)
        print(
            f"| {rows} | {1000 * tick:.1f} | {costs} | {1000 * rendering:.3f} "
            f"({100 * rendering / tick:.2f} % of a tick) | {1000 * decoding:.1f} |",
            flush=True,
        )
    picture = previewer.render(torch.randn(1, *shape, device=adapter.device))[0]
    file = seconds_of(lambda: encode_preview(picture, request))
    print(f"\nthe file of a preview, on an image thread: {1000 * file:.2f} ms")


def report_likeness(adapter: Adapter, previewer: Previewer, pictures: int, steps: int) -> None:
    print(
        "\n| step | preview from decode, of 255 | mean colour from decode, of 255 "
        "| likeness of preview and picture | of decode and picture |"
    )
    print("| --- | --- | --- | --- | --- |")
    prompts = [plain_sentence(attributes) for attributes in held_out(pictures)]
    latents = list(predictions(adapter, create_requests(adapter, prompts, steps, shown=True)))
    decodes = {step: decode(adapter, latents[step - 1]) for step in range(1, steps + 1, 3)}
    decodes[steps] = decode(adapter, latents[-1])
    for step, decoded in decodes.items():
        previews = colours(previewer.render(latents[step - 1]))
        enlarged = F.interpolate(previews, decoded.shape[2:], mode="bicubic").clamp(0, 255)
        mean = decoded.mean((0, 2, 3), keepdim=True)
        print(
            f"| {step} | {(enlarged - decoded).abs().mean():.1f} "
            f"| {(mean - decoded).abs().mean():.1f} | {likeness(enlarged, decodes[steps]):.3f} "
            f"| {likeness(decoded, decodes[steps]):.3f} |"
        )


def decode(adapter: Adapter, latents: Tensor | None) -> Tensor:
    """``(rows, 3, height, width)``, from 0 to 255."""
    assert latents is not None
    parts = latents.split(adapter.max_decode_rows)
    return torch.cat([colours(adapter.decode(part)) for part in parts])


def colours(pixels: Tensor) -> Tensor:
    return pixels.movedim(-1, 1).float().cpu()


def likeness(a: Tensor, b: Tensor) -> float:
    """The mean over pictures of the correlation of their values."""
    both = (torch.stack(pair) for pair in zip(a.flatten(1), b.flatten(1), strict=True))
    return float(torch.stack([torch.corrcoef(pair)[0, 1] for pair in both]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--pairs", type=int, default=20, help="alternations with and without")
    parser.add_argument("--pictures", type=int, default=32, help="that are compared")
    parser.add_argument("--steps", type=int, default=20, help="of the pictures that are compared")
    arguments = parser.parse_args()
    adapter = load_model()
    previewer = adapter.previewer
    assert previewer is not None
    print(f"{adapter.card.id} on {describe_machine()}\n")
    report_costs(adapter, previewer, arguments.rows, arguments.pairs)
    report_likeness(adapter, previewer, arguments.pictures, arguments.steps)


if __name__ == "__main__":
    main()
