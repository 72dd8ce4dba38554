"""What every family has to pass: lone requests equal the stock pipeline, rows in company equal the
same rows alone, and in bfloat16 company costs no more than the stock pipeline's own batching.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from chairlift.engine.messages import Submit
from chairlift.models.adapter import Adapter
from chairlift.models.registry import load_model
from chairlift.validation import create_request
from tests.builders import file_pixels, largest_difference
from tests.company import (
    compare_with_alone,
    create_loop,
    psnr,
    random_requests,
    run_alone,
    run_company,
)

BFLOAT16_SEEDS = (0, 100, 200)
"""Which way a last bit falls is chance, so that a few pictures more are compared."""

StockSettings = Callable[[dict[str, Any]], dict[str, Any]]
"""Turns the settings of a request into the arguments of the stock pipeline."""


def load_stock(folder: Path, dtype: torch.dtype = torch.float32) -> DiffusionPipeline:
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def stock_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """For pipelines that name their arguments as requests do."""
    return {
        "num_inference_steps" if name == "steps" else name: value
        for name, value in settings.items()
        if name != "seed"
    }


def stock_pixels(
    pipeline: DiffusionPipeline, settings: dict[str, Any], translate: StockSettings = stock_settings
) -> torch.Tensor:
    """What the stock pipeline makes, as :func:`output_pixels` has it."""
    generator = torch.Generator().manual_seed(settings["seed"])
    result = pipeline(**translate(settings), generator=generator, output_type="np")
    return output_pixels(result)[0]


def output_pixels(result: Any) -> list[torch.Tensor]:
    """The pictures of a stock pipeline's output, ``(height, width, 3)``, int16. The frames of a
    video are one picture, each below the one before.
    """
    if hasattr(result, "frames"):
        pictures = [video.reshape(-1, *video.shape[2:]) for video in result.frames]
    else:
        pictures = list(result.images)
    return [torch.from_numpy((picture * 255).round()).to(torch.int16) for picture in pictures]


def check_alone(
    adapter: Adapter,
    pipeline: DiffusionPipeline,
    settings: dict[str, Any],
    translate: StockSettings = stock_settings,
) -> None:
    """A lone request equals the stock pipeline, to 1/255 in any pixel."""
    request = create_request(adapter.card, id="alone", **settings)
    picture = file_pixels(run_alone(adapter, request))
    expected = stock_pixels(pipeline, settings, translate)
    assert picture.shape == expected.shape
    assert expected.float().std() > 5, "a picture of nothing would prove nothing"
    assert largest_difference(picture, expected) <= 1


def check_company(
    adapter: Adapter,
    sizes: Sequence[tuple[int, int]],
    count: int = 30,
    seed: int = 1,
    **choices: Sequence[Any],
) -> tuple[int, int]:
    """Random requests in company equal the same requests alone, to 1/255 in any pixel.

    Returns:
        How many pictures there were, and how many were identical to the byte.
    """
    rng = random.Random(seed)
    requests = random_requests(adapter, rng, count, sizes, **choices)
    outcome = run_company(adapter, requests, rng)
    compared = compare_with_alone(adapter, requests, outcome)
    assert compared[0] >= count
    return compared


def check_bfloat16(
    folder: Path,
    batch: Sequence[dict[str, Any]],
    translate: StockSettings = stock_settings,
) -> tuple[float, float]:
    """In bfloat16, rows together differ from the same rows alone by no more than two batch sizes
    of the stock pipeline do.

    Args:
        folder: The checkpoint.
        batch: Settings of each request, equal in everything but prompt and seed, so that the
            stock pipeline can batch them too.

    Returns:
        The two as PSNR in decibels, ours first: the mean over the batch's pictures.
    """
    adapter = load_model(str(folder), device="cpu", dtype="bfloat16")
    pipeline = load_stock(folder, torch.bfloat16)
    pictures: dict[str, list[torch.Tensor]] = {
        name: [] for name in ("ours", "alone", "stock", "lone")
    }
    for seed in BFLOAT16_SEEDS:
        settings = [one | {"seed": seed + one["seed"]} for one in batch]
        requests = [
            create_request(adapter.card, id=str(number), **one)
            for number, one in enumerate(settings)
        ]
        pictures["ours"] += [file_pixels(file) for file in run_together(adapter, requests)]
        pictures["alone"] += [file_pixels(run_alone(adapter, request)) for request in requests]
        pictures["stock"] += stock_batch(pipeline, settings, translate)
        pictures["lone"] += [stock_pixels(pipeline, one, translate) for one in settings]
    ours = mean_psnr(pictures["ours"], pictures["alone"])
    stock = mean_psnr(pictures["stock"], pictures["lone"])
    assert ours >= stock
    return ours, stock


def run_together(adapter: Adapter, requests: Sequence[Any]) -> list[bytes]:
    """One picture of each request; all join in one tick."""
    loop, outcome = create_loop(adapter, "continuous", max_batch_size=len(requests))
    for request in requests:
        loop.send(Submit(request=request))
    while len(outcome.ended) < len(requests):
        loop.turn()
    return [outcome.finished[request.id][0] for request in requests]


def stock_batch(
    pipeline: DiffusionPipeline, batch: Sequence[dict[str, Any]], translate: StockSettings
) -> list[torch.Tensor]:
    arguments = translate(dict(batch[0]))
    arguments["prompt"] = [settings["prompt"] for settings in batch]
    if arguments.get("negative_prompt") is not None:
        arguments["negative_prompt"] = [arguments["negative_prompt"]] * len(batch)
    generators = [torch.Generator().manual_seed(settings["seed"]) for settings in batch]
    result = pipeline(**arguments, generator=generators, output_type="np")
    return output_pixels(result)


def mean_psnr(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> float:
    """Of the mean squared error over all pictures."""
    return psnr(torch.stack(list(a)), torch.stack(list(b)))
