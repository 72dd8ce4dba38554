"""FLUX.1."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

from tests.builders import create_tokenizer
from tests.tiny.networks import create_clip, create_t5, create_vae, randomize
from tests.tiny.tokenizers import create_t5_tokenizer


def save_tiny_flux(
    folder: Path, *, guidance_embeds: bool = True, dynamic_shift: bool = True
) -> Path:
    """A FLUX.1 [dev] checkpoint with random weights; with both ``False``, [schnell]."""
    torch.manual_seed(0)
    tokenizer = create_tokenizer()
    tokenizer_2 = create_t5_tokenizer()
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=12,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 4, 4),
    )
    randomize(transformer, gain=1.8)
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0 if dynamic_shift else 1.0,
            use_dynamic_shifting=dynamic_shift,
            base_image_seq_len=256,
            max_image_seq_len=4096,
            base_shift=0.5,
            max_shift=1.15,
        ),
        vae=create_vae(shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=create_clip(tokenizer, 16),
        tokenizer=tokenizer,
        text_encoder_2=create_t5(len(tokenizer_2), 32),
        tokenizer_2=tokenizer_2,
        transformer=transformer,
    ).save_pretrained(folder)
    return folder
