"""The networks that several families share, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
)


def randomize(*networks: nn.Module, gain: float = 1.0) -> None:
    """Draw the parameters that are zero and scale the matrices and kernels.

    An untrained network pays next to no heed to some of what goes in.
    """
    with torch.no_grad():
        for network in networks:
            for parameter in network.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.1)
                if parameter.ndim > 1:
                    parameter.mul_(gain)


def create_clip(
    tokenizer: CLIPTokenizer, width: int, *, projection: int | None = None
) -> CLIPTextModel | CLIPTextModelWithProjection:
    """Of three layers; with a projection where its width is given."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=projection or width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder = (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)
    randomize(encoder)
    return encoder


def create_t5(vocabulary: int, width: int) -> T5EncoderModel:
    """Of two layers."""
    encoder = T5EncoderModel(
        T5Config(
            vocab_size=vocabulary,
            d_model=width,
            d_kv=8,
            d_ff=2 * width,
            num_layers=2,
            num_heads=2,
            relative_attention_num_buckets=8,
            relative_attention_max_distance=32,
            feed_forward_proj="gated-gelu",
        )
    )
    # Most of the tokens are padding, which pipelines don't mask: it has to heed the prompt.
    randomize(encoder, gain=1.5)
    return encoder


def create_vae(**config: Any) -> AutoencoderKL:
    """Four pixels a latent each way."""
    vae = AutoencoderKL(
        **(
            {
                "latent_channels": 4,
                "block_out_channels": (8, 8, 16),
                "down_block_types": ("DownEncoderBlock2D",) * 3,
                "up_block_types": ("UpDecoderBlock2D",) * 3,
                "norm_num_groups": 4,
                "scaling_factor": 0.5,
            }
            | config
        )
    )
    randomize(vae)
    return vae
