"""Train the previews of the bundled model: a few convolutions from latents to a small picture.

    python -m training.preview

The model generates pictures itself; what it predicts on the way, and what its decoder makes of
that, are the pairs to learn from. Writes ``preview.safetensors`` beside the bundled weights, and
prints how far the previews are from the decodes on prompts that it wasn't trained on.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from chairlift.engine.runner import Runner
from chairlift.models.adapter import Adapter
from chairlift.models.preview import PREVIEW_FILE, LatentPreview, Layer, Previewer
from chairlift.models.registry import load_model
from chairlift.models.source import BUNDLED_FOLDER
from chairlift.scheduling.plan import Plan
from chairlift.validation import create_request
from training.evaluate import held_out
from training.postcards import plain_sentence, random_postcard, sentence, some

FACTOR = 8
"""Pixels of a preview for a latent pixel, each way: half of the picture's sides."""
WIDTH = 96
"""Outputs of each layer but the last."""
LAYERS = 4
SIZES = [(128, 128)] * 6 + [(160, 96), (96, 160)]
ROWS = 8
"""Generated together."""
SHOWN = 5
"""Steps of each generation, besides the last, of which the predictions are learned from."""
BATCH = 64
LEARNING_RATE = 2e-3


@dataclass(frozen=True, slots=True)
class Pairs:
    """What was predicted on the way of some pictures of one size, and what it looks like."""

    latents: Tensor
    """``(pairs, channels, height, width)``."""
    pixels: Tensor
    """``(pairs, height, width, 3)``, uint8, of the picture's full size."""


def random_prompts(count: int, rng: random.Random) -> list[str]:
    """As the model was trained on: in any words, with attributes left out."""
    cards = [random_postcard(rng).attributes() for _ in range(count)]
    return [sentence(some(attributes, rng, keep=0.85), rng) for attributes in cards]


@torch.inference_mode()
def generate(adapter: Adapter, prompts: Sequence[str], rng: random.Random) -> Iterator[Pairs]:
    """Generate a picture of each prompt; the pairs of some together."""
    for first in range(0, len(prompts), ROWS):
        width, height = rng.choice(SIZES)
        steps = rng.choice((8, 20, 30))
        shown = sorted(rng.sample(range(1, steps), SHOWN))
        requests = {}
        for number, prompt in enumerate(prompts[first : first + ROWS], first):
            request = create_request(
                adapter.card,
                id=str(number),
                prompt=prompt,
                width=width,
                height=height,
                steps=steps,
                guidance_scale=rng.choice((1.0, 2.0, 2.0, 3.0)),
                seed=number,
            )
            requests[request.id] = replace(request, preview_steps=(*shown, steps))
        key = adapter.batch_key(request)
        rows = tuple(row for one in requests.values() for row in one.row_ids)
        runner, latents = Runner(adapter), []
        for step in range(1, steps + 1):
            finishing = frozenset(rows) if step == steps else frozenset()
            joining = rows if step == 1 else ()
            plan = Plan(key=key, joining=joining, running=rows, finishing=finishing)
            latents += runner.run(plan, requests).previews.values()
        parts = torch.stack(latents).split(adapter.max_decode_rows)
        pixels = torch.cat([adapter.decode(part) for part in parts])
        yield Pairs(torch.cat(parts), pixels)


def create_layers(channels: int) -> list[Layer]:
    """With random weights (He et al. 2015)."""
    shapes = [(WIDTH, channels, 3, 3), *[(WIDTH, 2 * WIDTH, 1, 1)] * (LAYERS - 2)]
    shapes.append((3 * FACTOR * FACTOR, 2 * WIDTH, 1, 1))
    layers = []
    for shape in shapes:
        weight = torch.empty(shape)
        torch.nn.init.kaiming_uniform_(weight, nonlinearity="relu")
        layers.append((weight.requires_grad_(), torch.zeros(shape[0], requires_grad=True)))
    return layers


def train(pairs: Sequence[Pairs], updates: int) -> LatentPreview:
    """Adam on the mean absolute error at the preview's size, at a rate that falls to nothing."""
    preview = LatentPreview(create_layers(pairs[0].latents.shape[1]))
    optimizer = torch.optim.Adam([part for layer in preview.layers for part in layer])
    scale = pairs[0].pixels.shape[1] // (pairs[0].latents.shape[2] * FACTOR)
    sizes: dict[torch.Size, list[Pairs]] = {}
    for some_pairs in pairs:
        sizes.setdefault(some_pairs.latents.shape[1:], []).append(some_pairs)
    data = [
        (
            torch.cat([one.latents for one in group]),
            torch.cat([_shrink(one.pixels, scale) for one in group]),
        )
        for group in sizes.values()
    ]
    weights = torch.tensor([len(latents) for latents, _ in data]).float()
    for update in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, 2 * (1 - update / updates))
        latents, colours = data[int(torch.multinomial(weights, 1))]
        chosen = torch.randint(len(latents), (BATCH,))
        loss = F.l1_loss(preview.colours(latents[chosen]), colours[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if update % 1000 == 0:
            print(f"update {update} of {updates}, error {255 * loss.item():.2f}", flush=True)
    return preview


def error(previewer: Previewer, pairs: Sequence[Pairs]) -> tuple[float, float]:
    """Mean absolute difference in 255ths between the decodes and the previews, enlarged to their
    size; and between the decodes and the mean colour of them all.
    """
    total, plain, values = 0.0, 0.0, 0
    everything = torch.cat(
        [_colours(some_pairs.pixels).mean((0, 2, 3))[None] for some_pairs in pairs]
    )
    mean = everything.mean(0)[:, None, None]
    for some_pairs in pairs:
        colours = _colours(some_pairs.pixels)
        preview = _colours(previewer.render(some_pairs.latents))
        enlarged = F.interpolate(preview, colours.shape[2:], mode="bicubic").clamp(0, 1)
        total += float((enlarged - colours).abs().sum())
        plain += float((mean - colours).abs().sum())
        values += colours.numel()
    return 255 * total / values, 255 * plain / values


def _shrink(pixels: Tensor, scale: int) -> Tensor:
    """``(pictures, height / scale, width / scale, 3)``, from 0 to 1."""
    return F.avg_pool2d(_colours(pixels), scale).movedim(1, -1)


def _colours(pixels: Tensor) -> Tensor:
    """``(pictures, 3, height, width)``, from 0 to 1."""
    return pixels.movedim(-1, 1).float() / 255


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=1024)
    parser.add_argument("--updates", type=int, default=20_000)
    parser.add_argument("-o", "--output", type=Path, default=BUNDLED_FOLDER / PREVIEW_FILE)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model, rng = load_model(), random.Random(0)
    made = train(
        list(generate(model, random_prompts(arguments.pictures, rng), rng)), arguments.updates
    )
    made.save(arguments.output)
    stored = LatentPreview.load(arguments.output, made.channels, model.device)
    prompts = [plain_sentence(attributes) for attributes in held_out(128)]
    ours, plain = error(stored, list(generate(model, prompts, rng)))
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1000:.0f} kB")
    print(f"error {ours:.2f} of 255; of the mean colour {plain:.2f}")
