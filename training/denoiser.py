"""Train the denoiser of the bundled model: a small UNet that predicts v (Salimans & Ho 2022).

    python -m training.denoiser --minutes 70

Needs what training.vae and training.text_encoder left in ``training/runs``. Resumes from
``training/runs/denoiser.pt`` where there is one; ``--minutes`` counts the whole training.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from training.average import WeightAverage
from training.postcards import Postcard, draw, is_held_out, random_postcard, sentence, some
from training.text_encoder import WIDTH, tokenize
from training.vae import LATENT_CHANNELS, RUNS, load_vae

SIZES = {(128, 128): 24_000, (160, 96): 3_000, (96, 160): 3_000}
"""(width, height) and how many pictures are drawn of it."""
CAPTIONS = 3
"""Sentences for each picture."""
UNCONDITIONAL = 0.1
"""The share of captions that are empty, for classifier-free guidance (Ho & Salimans 2022)."""
BETAS = {"beta_start": 0.00085, "beta_end": 0.02, "beta_schedule": "scaled_linear"}


def create_unet(channels: tuple[int, ...] = (96, 192), layers: int = 1) -> UNet2DConditionModel:
    levels = len(channels)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=layers,
        block_out_channels=channels,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        cross_attention_dim=WIDTH,
        attention_head_dim=tuple(width // 32 for width in channels),
        norm_num_groups=16,
    )


@dataclass(frozen=True, slots=True)
class Pictures:
    """What one size gives to the training: latents and the embeddings of their captions."""

    latents: Tensor
    """``(pictures, channels, height, width)``, of standard deviation about 1."""
    embeddings: Tensor
    """``(pictures, CAPTIONS, 32, WIDTH)`` in float16."""


def trainable_postcard(rng: random.Random) -> Postcard:
    while is_held_out((card := random_postcard(rng)).attributes()):
        pass
    return card


@torch.no_grad()
def encode_pictures(size: tuple[int, int], count: int, seed: int) -> Pictures:
    rng = random.Random(seed)
    vae = load_vae().to(memory_format=torch.channels_last)
    tokenizer = CLIPTokenizer.from_pretrained(RUNS / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(RUNS / "text_encoder").eval()
    latents, embeddings = [], []
    for _ in range(0, count, 40):
        cards = [trainable_postcard(rng) for _ in range(40)]
        pixels = np.stack([np.asarray(draw(card, *size)) for card in cards])
        pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        latents.append(vae.encode(pictures).latent_dist.mode().contiguous())
        texts = [
            sentence(some(card.attributes(), rng, keep=0.85), rng)
            for card in cards
            for _ in range(CAPTIONS)
        ]
        hidden = text_encoder(tokenize(tokenizer, texts)).last_hidden_state
        embeddings.append(hidden.half().unflatten(0, (40, CAPTIONS)))
    return Pictures(torch.cat(latents), torch.cat(embeddings))


def load_pictures() -> tuple[dict[tuple[int, int], Pictures], Tensor, float]:
    """The pictures of each size, the embedding of the empty prompt, the scaling factor."""
    path = RUNS / "pictures.pt"
    if not path.exists():
        sets = {size: encode_pictures(size, count, seed=sum(size)) for size, count in SIZES.items()}
        tensors = {size: (pictures.latents, pictures.embeddings) for size, pictures in sets.items()}
        torch.save(tensors, path)
    sets = {
        size: Pictures(*tensors) for size, tensors in torch.load(path, weights_only=True).items()
    }
    scaling_factor = round(1 / sets[128, 128].latents.std().item(), 5)
    tokenizer = CLIPTokenizer.from_pretrained(RUNS / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(RUNS / "text_encoder").eval()
    with torch.no_grad():
        empty = text_encoder(tokenize(tokenizer, [""])).last_hidden_state[0]
    return sets, empty, scaling_factor


def train(
    minutes: float, batch: int, learning_rate: float, unet: UNet2DConditionModel, name: str
) -> None:
    checkpoint = RUNS / f"{name}.pt"
    sets, empty, scaling_factor = load_pictures()
    scheduler = DDPMScheduler(prediction_type="v_prediction", **BETAS)
    unet = unet.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        unet.parameters(), learning_rate, betas=(0.9, 0.99), weight_decay=0.01
    )
    average = WeightAverage(unet, decay=0.9985)
    step, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        unet.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.load_state_dict(state["average"])
        step, spent = state["step"], state["seconds"]
    torch.manual_seed(step)
    rng, start = random.Random(step), time.monotonic() - spent
    sizes, weights = list(SIZES), list(SIZES.values())
    running, progress = 0.0, 0.0
    while progress < 1:
        progress = (time.monotonic() - start) / (60 * minutes)
        decayed = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min((step + 1) / 300, max(0.01, decayed))
        pictures = sets[rng.choices(sizes, weights)[0]]
        index = torch.randint(len(pictures.latents), (batch,))
        caption = torch.randint(CAPTIONS, (batch,))
        latents = pictures.latents[index] * scaling_factor
        embeddings = pictures.embeddings[index, caption].float()
        embeddings[torch.rand(batch) < UNCONDITIONAL] = empty
        # One timestep from each of `batch` equal intervals: less noise than independent draws.
        timesteps = ((torch.arange(batch) + torch.rand(batch)) * (1000 / batch)).long()
        noise = torch.randn_like(latents)
        noisy = scheduler.add_noise(latents, noise, timesteps).to(memory_format=torch.channels_last)
        target = scheduler.get_velocity(latents, noise, timesteps)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = unet(noisy, timesteps, encoder_hidden_states=embeddings).sample
        loss = F.mse_loss(predicted.float(), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(unet)
        step += 1
        running += loss.item() / 100
        if step % 100 == 0:
            print(f"step {step} loss {running:.4f} done {progress:.1%}", flush=True)
            running = 0.0
        if step % 300 == 0 or progress >= 1:
            torch.save(
                {
                    "model": unet.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "average": average.state_dict(),
                    "step": step,
                    "seconds": time.monotonic() - start,
                },
                checkpoint,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=70)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--channels", type=int, nargs="+", default=[96, 192])
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--name", default="denoiser", help="name of the checkpoint")
    arguments = parser.parse_args()
    train(
        arguments.minutes,
        arguments.batch,
        arguments.learning_rate,
        create_unet(tuple(arguments.channels), arguments.layers),
        arguments.name,
    )
