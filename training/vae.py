"""Train the autoencoder of the bundled model: 128x128 pictures to 8x8 latents of 16 channels.

    python -m training.vae --minutes 20

Resumes from ``training/runs/vae.pt`` where there is one.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from training.average import WeightAverage
from training.postcards import draw, random_postcard

RUNS = Path(__file__).parent / "runs"
LATENT_CHANNELS = 16


def create_vae() -> AutoencoderKL:
    """A sixteenfold autoencoder of under two million parameters."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(16, 16, 32, 64, 96),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 5,
        up_block_types=("UpDecoderBlock2D",) * 5,
        norm_num_groups=4,
        sample_size=128,
        mid_block_add_attention=False,
    )


def random_pictures(count: int, rng: random.Random, size: tuple[int, int]) -> Tensor:
    """``(count, 3, height, width)`` float32 in -1..1."""
    width, height = size
    drawn = np.stack([np.asarray(draw(random_postcard(rng), width, height)) for _ in range(count)])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 127.5 - 1


def reconstruction_loss(restored: Tensor, pictures: Tensor) -> Tensor:
    """L1 of the pixels and of their differences (edges), and the mean square at half size."""
    loss = F.l1_loss(restored, pictures)
    for dim in (2, 3):
        loss = loss + F.l1_loss(restored.diff(dim=dim), pictures.diff(dim=dim))
    return loss + F.mse_loss(F.avg_pool2d(restored, 2), F.avg_pool2d(pictures, 2))


def train(minutes: float, batch: int, learning_rate: float) -> None:
    RUNS.mkdir(exist_ok=True)
    checkpoint = RUNS / "vae.pt"
    torch.manual_seed(0)
    vae = create_vae().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(vae.parameters(), learning_rate, betas=(0.9, 0.99))
    average = WeightAverage(vae, decay=0.995)
    step = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.load_state_dict(state["average"])
        step = state["step"]
    rng, start = random.Random(step), time.monotonic()
    sizes = [(128, 128)] * 6 + [(160, 96), (96, 160)]
    progress = 0.0
    while progress < 1:
        progress = (time.monotonic() - start) / (60 * minutes)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(
                1.0, step / 100 + 0.01, 2.5 * max(0.004, 1 - progress)
            )
        pictures = random_pictures(batch, rng, rng.choice(sizes)).to(
            memory_format=torch.channels_last
        )
        posterior = vae.encode(pictures).latent_dist
        restored = vae.decode(posterior.sample()).sample
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        loss = reconstruction_loss(restored, pictures) + 1e-3 * kl
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(vae)
        step += 1
        if step % 50 == 0:
            error = F.mse_loss(restored.detach().clamp(-1, 1), pictures).item()
            psnr = 10 * np.log10(4 / error)
            print(
                f"step {step} loss {loss.item():.4f} kl {kl.item():.2f} psnr {psnr:.1f} "
                f"done {progress:.0%}",
                flush=True,
            )
        if step % 500 == 0 or progress >= 1:
            torch.save(
                {
                    "model": vae.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "average": average.state_dict(),
                    "step": step,
                },
                checkpoint,
            )


def load_vae() -> AutoencoderKL:
    """The trained autoencoder (averaged weights)."""
    vae = create_vae()
    vae.load_state_dict(torch.load(RUNS / "vae.pt", weights_only=True)["average"])
    return vae.eval()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    arguments = parser.parse_args()
    train(arguments.minutes, arguments.batch, arguments.learning_rate)
