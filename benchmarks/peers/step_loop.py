"""The published step-level loop of 2023, from its description: requests join and leave a batch at
every sampler step; text encoding, denoiser, VAE and PNG run on the web server's event loop, and
pictures are decoded one at a time.

More than the description says, so that it can ride with mixed settings at all: every request has a
scheduler of its own, guidance is a column, requests without guidance have no negative side, and
each size has a forward of its own.
"""

from __future__ import annotations

import asyncio
import copy
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from benchmarks.peers.api import Body, answer


@dataclass(eq=False, slots=True)
class Rider:
    """A request on its way through denoising."""

    body: Body
    answered: asyncio.Future[dict[str, Any]]
    scheduler: EulerDiscreteScheduler
    text: Tensor
    negative: Tensor | None
    """None without guidance."""
    latents: Tensor
    step: int = 0

    @property
    def timestep(self) -> Tensor:
        timesteps: Tensor = self.scheduler.timesteps
        return timesteps[self.step]

    @property
    def is_done(self) -> bool:
        return self.step == len(self.scheduler.timesteps)


class StepLoop:
    """The loop.

    Args:
        pipeline: Whose networks are used.
        max_batch_size: The most requests in the batch; the others wait in order.
    """

    def __init__(self, pipeline: StableDiffusionPipeline, max_batch_size: int) -> None:
        self._pipeline = pipeline
        self._max_batch_size = max_batch_size
        self._waiting: deque[tuple[Body, asyncio.Future[dict[str, Any]]]] = deque()
        self._riding: list[Rider] = []
        self._arrived = asyncio.Event()

    async def generate(self, body: Body) -> dict[str, Any]:
        """Ride, and be answered."""
        answered: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append((body, answered))
        self._arrived.set()
        return await answered

    async def run(self) -> None:
        """Turn for ever."""
        while True:
            if not self._riding and not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            with torch.inference_mode():
                self._turn()
            await asyncio.sleep(0)  # Now the web server may read and write.

    def _turn(self) -> None:
        while self._waiting and len(self._riding) < self._max_batch_size:
            self._riding.append(self._board(*self._waiting.popleft()))
        sizes = defaultdict(list)
        for rider in self._riding:
            sizes[rider.body.size].append(rider)
        for riders in sizes.values():
            self._advance(riders)
        for rider in [rider for rider in self._riding if rider.is_done]:
            self._riding.remove(rider)
            if not rider.answered.done():
                rider.answered.set_result(self._decode(rider))

    def _board(self, body: Body, answered: asyncio.Future[dict[str, Any]]) -> Rider:
        pipeline = self._pipeline
        scheduler = copy.deepcopy(pipeline.scheduler)
        scheduler.set_timesteps(body.num_inference_steps)
        text, negative = pipeline.encode_prompt(body.prompt, "cpu", 1, body.guidance_scale > 1)
        scale = pipeline.vae_scale_factor
        shape = (1, pipeline.unet.config.in_channels, body.height // scale, body.width // scale)
        noise = randn_tensor(shape, generator=torch.Generator().manual_seed(body.seed))
        latents = noise * scheduler.init_noise_sigma
        return Rider(body, answered, scheduler, text, negative, latents)

    def _advance(self, riders: Sequence[Rider]) -> None:
        """One forward and one sampler step for riders of one size."""
        inputs = [
            rider.scheduler.scale_model_input(rider.latents, rider.timestep) for rider in riders
        ]
        guided = [place for place, rider in enumerate(riders) if rider.negative is not None]
        negatives = [one for rider in riders if (one := rider.negative) is not None]
        timesteps = [rider.timestep for rider in riders]
        output = self._pipeline.unet(
            torch.cat(inputs + [inputs[place] for place in guided]),
            torch.stack(timesteps + [timesteps[place] for place in guided]),
            encoder_hidden_states=torch.cat([rider.text for rider in riders] + negatives),
            return_dict=False,
        )[0]
        prediction, negative = output[: len(riders)], output[len(riders) :]
        if guided:
            scales = [riders[place].body.guidance_scale for place in guided]
            column = torch.tensor(scales).reshape(-1, 1, 1, 1)
            prediction[guided] = negative + column * (prediction[guided] - negative)
        for rider, row in zip(riders, prediction.split(1), strict=True):
            stepped = rider.scheduler.step(row, rider.timestep, rider.latents, return_dict=False)
            rider.latents = stepped[0]
            rider.step += 1

    def _decode(self, rider: Rider) -> dict[str, Any]:
        vae = self._pipeline.vae
        pixels = vae.decode(rider.latents / vae.config.scaling_factor, return_dict=False)[0]
        [picture] = self._pipeline.image_processor.postprocess(pixels)
        return answer(picture)
