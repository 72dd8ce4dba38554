"""Builders for tests: requests, rows, and small checkpoints with random weights."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from chairlift.card import ModelCard
from chairlift.engine.engine import GeneratedImage
from chairlift.models.fake import FakeModel
from chairlift.request import GenerationRequest, RowId
from chairlift.scheduling.batch_key import BatchKey
from chairlift.scheduling.costs import Shape
from chairlift.scheduling.work import Leg, RowWork
from chairlift.validation import create_request


def create_card() -> ModelCard:
    """The fake model's."""
    return FakeModel().card


def create_video_card() -> ModelCard:
    """The fake model's, as if it made videos."""
    card = create_card()
    return replace(
        card,
        defaults=replace(card.defaults, frames=9),
        limits=replace(card.limits, max_frames=33, frame_multiple=4),
    )


def a_request(id: str = "a", **settings: Any) -> GenerationRequest:
    """A request to the fake model."""
    return create_request(create_card(), id=id, **({"prompt": "a boat", "seed": 1} | settings))


def a_row(
    id: str = "a",
    *,
    image: int = 0,
    evaluations: int = 5,
    arrival: float = 0.0,
    side: int = 8,
    entries: int = 1,
    **other: Any,
) -> RowWork:
    """A row of the scheduler's; ``side`` tells groups apart, ``settings`` dynamic batches."""
    return RowWork(
        id=RowId(id, image),
        legs=(Leg(BatchKey("model", (4, side, side), "text"), evaluations, entries),),
        shape=Shape(8 * side, 8 * side),
        settings=other.pop("settings", None),
        arrival=arrival,
        **other,
    )


def pixels(picture: GeneratedImage) -> torch.Tensor:
    """``(height, width, 3)``, int16, so that differences don't wrap."""
    return file_pixels(picture.data)


def file_pixels(file: bytes) -> torch.Tensor:
    """``(height, width, 3)``, int16, of a picture file."""
    image = Image.open(BytesIO(file)).convert("RGB")
    data = bytearray(image.tobytes())
    width, height = image.size
    return torch.frombuffer(data, dtype=torch.uint8).view(height, width, 3).to(torch.int16)


def largest_difference(a: torch.Tensor, b: torch.Tensor) -> int:
    """The largest difference of any pixel, in 255ths."""
    return int((a.to(torch.int16) - b.to(torch.int16)).abs().max())


def create_tokenizer(length: int = 16) -> CLIPTokenizer:
    """Letters are its words."""
    letters = [chr(code) for code in range(97, 123)]
    tokens = [
        *letters,
        *(letter + "</w>" for letter in letters),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=length)


def save_tiny_stable_diffusion(folder: Path, **scheduler_config: Any) -> Path:
    """A Stable Diffusion checkpoint of 16x16 latents, with random weights."""
    torch.manual_seed(0)
    tokenizer = create_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=16,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        latent_channels=4,
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        scaling_factor=0.5,
    )
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler = EulerDiscreteScheduler(**(config | scheduler_config))
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def stock_picture(
    pipeline: DiffusionPipeline,
    *,
    prompt: str,
    negative_prompt: str,
    steps: int,
    guidance_scale: float,
    seed: int,
    width: int,
    height: int,
) -> torch.Tensor:
    """What the stock pipeline makes: ``(height, width, 3)``, int16."""
    result = pipeline(
        prompt,
        negative_prompt=negative_prompt,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=torch.Generator().manual_seed(seed),
        width=width,
        height=height,
        output_type="np",
    )
    return torch.from_numpy((result.images[0] * 255).round()).to(torch.int16)
