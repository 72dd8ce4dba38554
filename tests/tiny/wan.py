"""Wan 2.1 and 2.2."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from transformers import UMT5Config, UMT5EncoderModel

from tests.tiny.networks import randomize
from tests.tiny.tokenizers import create_t5_tokenizer


def save_tiny_wan(folder: Path, *, experts: int = 1, expand_timesteps: bool = False) -> Path:
    """A Wan 2.1 checkpoint with random weights, eight pixels and four frames a latent.

    Wan 2.2 A14B has two experts; its TI2V-5B a timestep for every token and 16 pixels a latent.
    """
    torch.manual_seed(0)
    tokenizer = create_t5_tokenizer()
    text_encoder = UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(tokenizer),
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=2,
            relative_attention_num_buckets=8,
            relative_attention_max_distance=32,
        )
    )
    channels = 8 if expand_timesteps else 4
    larger = {
        "is_residual": True,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
        "scale_factor_spatial": 16,
    }
    vae = AutoencoderKLWan(
        base_dim=4,
        z_dim=channels,
        num_res_blocks=1,
        latents_mean=[0.1 * channel - 0.2 for channel in range(channels)],
        latents_std=[1.5 + 0.3 * channel for channel in range(channels)],
        **(larger if expand_timesteps else {}),
    )
    transformers = [
        WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=channels,
            out_channels=channels,
            text_dim=32,
            freq_dim=32,
            ffn_dim=48,
            num_layers=2,
            rope_max_seq_len=64,
        )
        for _ in range(experts)
    ]
    randomize(vae, gain=1.2)
    for transformer in transformers:
        randomize(transformer, gain=1.2)
        # Nearly all of the text's tokens are padding, which would outweigh the prompt.
        randomize(transformer.condition_embedder.text_embedder, gain=2.0)
        randomize(*(block.attn2 for block in transformer.blocks), gain=2.0)
    WanPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=vae,
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        transformer=transformers[0],
        transformer_2=transformers[1] if experts == 2 else None,
        boundary_ratio=0.875 if experts == 2 else None,
        expand_timesteps=expand_timesteps,
    ).save_pretrained(folder)
    return folder
