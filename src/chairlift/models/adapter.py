"""What the engine asks of a model family.

One file per family implements this; no family imports another. Networks, tokenizers and schedule
tables are diffusers' and transformers'; the loop and the sampler update are not the adapter's
business, because they are what makes rows independent.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chairlift.card import ModelCard
from chairlift.models.preview import Previewer
from chairlift.request import GenerationRequest, Prompt
from chairlift.sampling.advance import HISTORY
from chairlift.sampling.schedule import Schedule
from chairlift.scheduling.batch_key import BatchKey
from chairlift.scheduling.work import Leg

DECODE_CHANNELS = 256


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What the text encoders give the denoiser for one row, without a batch dimension."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """Of one shape for every row."""
    sequences: Mapping[str, Tensor] = field(default_factory=dict)
    """``(length, …)``; the length may differ from row to row."""

    @property
    def nbytes(self) -> int:
        everything = (*self.tensors.values(), *self.sequences.values())
        return sum(tensor.nbytes for tensor in everything)


@dataclass(frozen=True, slots=True)
class Padded:
    """Sequences of different lengths in one tensor."""

    values: Tensor
    """``(entries, longest, …)``; zero past each entry's end."""
    lengths: tuple[int, ...]
    """Of each entry. On the host, since some networks take lists."""
    device_lengths: Tensor
    """The same, ``(entries,)``, on the device."""

    @property
    def mask(self) -> Tensor | None:
        """``(entries, longest)`` bool, true where there is something; None if it is everywhere."""
        longest = self.values.shape[1]
        if min(self.lengths) == longest:
            return None
        return torch.arange(longest, device=self.values.device) < self.device_lengths[:, None]

    def unpad(self) -> list[Tensor]:
        """Each entry's sequence by itself, ``(length, …)``."""
        return [row[:length] for row, length in zip(self.values, self.lengths, strict=True)]

    def shortened(self) -> Padded:
        """The last entry without the end of its sequence."""
        values, device_lengths = self.values.clone(), self.device_lengths.clone()
        values[-1, self.lengths[-1] - 1 :] = 0
        device_lengths[-1] -= 1
        return Padded(values, (*self.lengths[:-1], self.lengths[-1] - 1), device_lengths)

    def repeated(self, entries: int) -> Padded:
        """So many entries: these, and the first again and again."""
        more = entries - len(self.lengths)
        return Padded(
            repeat_first(self.values, entries),
            self.lengths + self.lengths[:1] * more,
            repeat_first(self.device_lengths, entries),
        )


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """The input of one forward.

    It has ``guided + rows`` entries. The first ``guided`` are the negative sides of the first
    ``guided`` rows, *in reverse order*; then come the positive sides of all rows in order. So
    entry ``guided + i`` is row ``i``, and entry ``guided - 1 - i`` is its negative side.
    """

    key: BatchKey
    """What the rows have in common."""
    latents: Tensor
    """``(guided + rows, …)``, scaled for the denoiser, in the adapter's type."""
    timesteps: Tensor
    """``(guided + rows,)``, float32."""
    conditioning: Mapping[str, Tensor]
    """Each ``(guided + rows, …)``."""
    sequences: Mapping[str, Padded]
    guided: int
    """How many rows use classifier-free guidance in this step."""
    loras: frozenset[str]
    """Those that any of the rows uses."""
    cfg_scales: Tensor
    """``(guided, 1, …)``, float32: the weight of classifier-free guidance."""

    def repeated(self, entries: int) -> ForwardBatch:
        """A batch of so many entries for the denoiser: these, and behind them the first again and
        again. Only the outputs of the entries themselves mean anything.
        """
        if entries == len(self.latents):
            return self
        return replace(
            self,
            latents=repeat_first(self.latents, entries),
            timesteps=repeat_first(self.timesteps, entries),
            conditioning={
                name: repeat_first(values, entries) for name, values in self.conditioning.items()
            },
            sequences={name: values.repeated(entries) for name, values in self.sequences.items()},
        )

    def of_guided_rows(self, name: str) -> Tensor:
        """``(guided, 1, …)``: a number that each guided row has in its conditioning."""
        numbers = self.conditioning[name][self.guided : 2 * self.guided]
        return numbers.view(-1, *(1,) * (self.latents.dim() - 1))


class Adapter(ABC):
    """A loaded model."""

    card: ModelCard
    device: torch.device
    dtype: torch.dtype
    noise_dtype: torch.dtype
    """The type in which the stock pipeline draws the initial noise."""
    max_decode_rows: int = 4
    """The most rows that are decoded together, between two ticks."""
    previewer: Previewer | None = None
    """Makes small pictures of half-made ones; None for a model that makes videos."""

    @abstractmethod
    def batch_key(self, request: GenerationRequest) -> BatchKey:
        """What a row of this request must share with the rows beside it."""

    def legs(self, request: GenerationRequest, schedule: Schedule) -> tuple[Leg, ...]:
        """The groups through which a row of this request goes; one, unless its denoiser changes
        on the way.
        """
        return (Leg(self.batch_key(request), schedule.evaluations),)

    def cfg_scales(self, request: GenerationRequest, schedule: Schedule) -> NDArray[np.float32]:
        """``(evaluations,)``: the weight of classifier-free guidance at each; up to 1 it is off."""
        return np.full(schedule.evaluations, request.cfg_scale, dtype=np.float32)

    def slot_memory(self, request: GenerationRequest) -> int:
        """Bytes that a row of this request takes while it has a slot, but for its texts."""
        numbers = math.prod(self.batch_key(request).latent_shape)
        # Latents, history and noise are float32; the denoiser's input has two sides.
        return numbers * (4 * (2 + HISTORY) + 2 * self.dtype.itemsize)

    def decode_memory(self, request: GenerationRequest) -> int:
        """Bytes that decoding takes, as many rows at once as are decoded together: a VAE has some
        :data:`DECODE_CHANNELS` channels at full size.
        """
        pixels = request.width * request.height * request.frames * self.max_decode_rows
        return pixels * DECODE_CHANNELS * self.dtype.itemsize

    @abstractmethod
    def encode(self, prompts: Sequence[Prompt]) -> list[Conditioning]:
        """The conditioning of each prompt, on the adapter's device."""

    def added_conditioning(self, request: GenerationRequest) -> Mapping[str, Tensor]:
        """What the denoiser, or the family's guidance, is told of a row besides its text. It is
        the same on both sides of a row.
        """
        return {}

    @abstractmethod
    def schedule(self, request: GenerationRequest) -> Schedule:
        """The noise levels of a row of this request."""

    def initial_noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Unit noise of one row (``shape`` has no batch dimension) in float32 on the CPU, drawn
        as the stock pipeline draws it; samplers' fresh noise is drawn by this too.
        """
        return torch.randn(shape, generator=generator, dtype=self.noise_dtype).float()

    @abstractmethod
    def predict(self, batch: ForwardBatch) -> Tensor:
        """One denoiser forward with guidance combined: ``(rows, …)``."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """``(rows, …)`` float32 latents to ``(rows, height, width, 3)`` uint8 pixels, or to
        ``(rows, frames, height, width, 3)``.
        """


def repeat_first(values: Tensor, entries: int) -> Tensor:
    """``(entries, …)``: the values, then the first of them again and again."""
    more = entries - len(values)
    return torch.cat([values, values[:1].expand(more, *values.shape[1:])]) if more else values


def combine_guidance(
    output: Tensor,
    batch: ForwardBatch,
    adjust: Callable[[Tensor, Tensor], Tensor] = lambda guided, positive: guided,
) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022), row by row: ``negative + scale * (positive -
    negative)`` for the guided rows, the plain output for the others.

    Args:
        output: ``(guided + rows, …)``, the denoiser's output for ``batch``.
        adjust: What a family makes of the guided outputs, given them and their positive sides,
            both ``(guided, …)`` and float32.

    Returns:
        ``(rows, …)``, float32.
    """
    output = output.float()
    positive = output[batch.guided :]
    if not batch.guided:
        return positive
    negative = output[: batch.guided].flip(0)
    own, plain = positive[: batch.guided], positive[batch.guided :]
    return torch.cat([adjust(torch.lerp(negative, own, batch.cfg_scales), own), plain])


def to_pixels(images: Tensor) -> Tensor:
    """A VAE's output to pixels.

    Args:
        images: ``(rows, 3, …, height, width)`` from -1 to 1.

    Returns:
        ``(rows, …, height, width, 3)`` uint8.
    """
    levels = (images.float() / 2 + 0.5).clamp(0, 1) * 255
    return levels.round().to(torch.uint8).movedim(1, -1)
