"""Stable Diffusion XL."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

from tests.builders import create_tokenizer
from tests.tiny.networks import create_clip, create_vae, randomize
from tests.tiny.tokenizers import create_padding_tokenizer


def save_tiny_sdxl(folder: Path, *, zeros_for_empty_prompt: bool = True) -> Path:
    """A Stable Diffusion XL checkpoint of 16x16 latents, with random weights."""
    torch.manual_seed(0)
    tokenizer = create_tokenizer()
    tokenizer_2 = create_padding_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(1, 2),
        use_linear_projection=True,
        cross_attention_dim=16 + 24,
        norm_num_groups=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8,
    )
    randomize(unet, gain=2.0)
    StableDiffusionXLPipeline(
        vae=create_vae(),
        text_encoder=create_clip(tokenizer, 16),
        text_encoder_2=create_clip(tokenizer_2, 24, projection=24),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
        ),
        force_zeros_for_empty_prompt=zeros_for_empty_prompt,
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder
