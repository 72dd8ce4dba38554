"""The share of attributes that come out right on held-out prompts.

    python -m training.evaluate                          # default settings
    python -m training.evaluate --steps 8 20 50 --guidance 1 3 --samplers euler dpmpp_2m

It runs the stock diffusers pipeline, so that the figure is the model's and not this server's.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
)
from PIL import Image

from training.checker import read, share_right
from training.export import FOLDER
from training.postcards import (
    ATTRIBUTES,
    is_held_out,
    plain_sentence,
    random_postcard,
    sentence,
)

SCHEDULERS: dict[str, Any] = {
    "euler": EulerDiscreteScheduler,
    "ddim": DDIMScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
}


def held_out(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Combinations of attributes that no training picture shows."""
    rng = random.Random(seed)
    found: list[dict[str, str]] = []
    while len(found) < count:
        attributes = random_postcard(rng).attributes()
        if is_held_out(attributes):
            found.append(attributes)
    return found


@torch.no_grad()
def generate(
    pipeline: DiffusionPipeline, prompts: list[str], steps: int, guidance: float
) -> list[Image.Image]:
    pictures: list[Image.Image] = []
    for first in range(0, len(prompts), 16):
        batch = prompts[first : first + 16]
        generators = [torch.Generator().manual_seed(first + i) for i in range(len(batch))]
        pictures += pipeline(
            batch, num_inference_steps=steps, guidance_scale=guidance, generator=generators
        ).images
    return pictures


def contact_sheet(pictures: list[Image.Image], columns: int) -> Image.Image:
    width, height = pictures[0].size
    sheet = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height))
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index % columns * width, index // columns * height))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--steps", type=int, nargs="+", default=[20])
    parser.add_argument("--guidance", type=float, nargs="+", default=[2.0])
    parser.add_argument("--samplers", nargs="+", default=["euler"], choices=list(SCHEDULERS))
    parser.add_argument("--wordings", action="store_true", help="prompts in free wording")
    parser.add_argument("--sheet", type=Path, help="also write the first 40 pictures here")
    arguments = parser.parse_args()
    pipeline = DiffusionPipeline.from_pretrained(arguments.folder)
    pipeline.set_progress_bar_config(disable=True)
    meant = held_out(arguments.count)
    rng = random.Random(1)
    prompts = [
        sentence(attributes, rng) if arguments.wordings else plain_sentence(attributes)
        for attributes in meant
    ]
    print("| sampler | steps | guidance | " + " | ".join([*ATTRIBUTES, "all"]) + " |")
    print("| --- " * (len(ATTRIBUTES) + 4) + "|")
    for sampler in arguments.samplers:
        pipeline.scheduler = SCHEDULERS[sampler].from_config(
            pipeline.scheduler.config, clip_sample=False
        )
        for steps in arguments.steps:
            for guidance in arguments.guidance:
                pictures = generate(pipeline, prompts, steps, guidance)
                shares = share_right([read(picture) for picture in pictures], meant)
                cells = " | ".join(f"{share:.3f}" for share in shares.values())
                print(f"| {sampler} | {steps} | {guidance:g} | {cells} |", flush=True)
                if arguments.sheet:
                    contact_sheet(pictures[:40], 8).save(arguments.sheet)


if __name__ == "__main__":
    main()
