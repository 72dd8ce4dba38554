"""Stable Diffusion 3 and 3.5."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)

from tests.builders import create_tokenizer
from tests.tiny.networks import create_clip, create_t5, create_vae, randomize
from tests.tiny.tokenizers import create_padding_tokenizer, create_t5_tokenizer


def save_tiny_sd3(
    folder: Path,
    *,
    t5: bool = True,
    patch_size: int = 2,
    qk_norm: str | None = None,
    dual_attention_layers: tuple[int, ...] = (),
    dynamic_shift: bool = False,
) -> Path:
    """A Stable Diffusion 3 checkpoint of 16x16 latents, with random weights.

    Stable Diffusion 3.5 has ``qk_norm="rms_norm"``, and its medium size dual attention layers.
    Without T5, diffusers wants ``text_encoder_3=None, tokenizer_3=None`` to load the folder.
    """
    torch.manual_seed(0)
    tokenizer = create_tokenizer()
    tokenizer_2 = create_padding_tokenizer()
    tokenizer_3 = create_t5_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=patch_size,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=48,
        caption_projection_dim=32,
        pooled_projection_dim=16 + 24,
        pos_embed_max_size=32,
        dual_attention_layers=dual_attention_layers,
        qk_norm=qk_norm,
    )
    randomize(transformer, gain=1.5)
    StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=dynamic_shift),
        vae=create_vae(shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=create_clip(tokenizer, 16, projection=16),
        tokenizer=tokenizer,
        text_encoder_2=create_clip(tokenizer_2, 24, projection=24),
        tokenizer_2=tokenizer_2,
        text_encoder_3=create_t5(len(tokenizer_3), 48) if t5 else None,
        tokenizer_3=tokenizer_3 if t5 else None,
    ).save_pretrained(folder)
    return folder
