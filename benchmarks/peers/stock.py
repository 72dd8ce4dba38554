"""The stock pipeline, and a batch of requests for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from benchmarks.peers.api import Body
from benchmarks.peers.settings import Settings


def load_pipeline(folder: str, settings: Settings) -> StableDiffusionPipeline:
    """The pipeline of a folder, in float32."""
    torch.set_num_threads(settings.threads)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    if settings.channels_last:
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
    return pipeline


def draw(pipeline: StableDiffusionPipeline, requests: Sequence[Body]) -> list[Image.Image]:
    """A picture for each. One call takes one number of steps, one guidance scale and one size, so
    a batch is split in groups of equals, which run one after the other.
    """
    groups = defaultdict(list)
    for place, request in enumerate(requests):
        key = (request.num_inference_steps, request.guidance_scale, request.size)
        groups[key].append(place)
    pictures: dict[int, Image.Image] = {}
    for places in groups.values():
        members = [requests[place] for place in places]
        pictures |= zip(places, _call(pipeline, members), strict=True)
    return [pictures[place] for place in range(len(requests))]


def _call(pipeline: StableDiffusionPipeline, requests: Sequence[Body]) -> list[Image.Image]:
    first = requests[0]
    generators = [torch.Generator().manual_seed(request.seed) for request in requests]
    images: list[Image.Image] = pipeline(
        [request.prompt for request in requests],
        width=first.width,
        height=first.height,
        num_inference_steps=first.num_inference_steps,
        guidance_scale=first.guidance_scale,
        generator=generators,
    ).images
    return images
