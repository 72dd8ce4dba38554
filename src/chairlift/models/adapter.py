"""What the engine asks of a model family.

One file per family implements this; no family imports another. Networks, tokenizers and schedule
tables are diffusers' and transformers'; the loop, the guidance and the sampler update are not the
adapter's business, because they are what makes rows independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from chairlift.card import ModelCard
from chairlift.request import GenerationRequest
from chairlift.sampling.schedule import Schedule
from chairlift.scheduling.batch_key import BatchKey


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What the text encoders give the denoiser for one row: named tensors without a batch
    dimension.
    """

    tensors: Mapping[str, Tensor]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """The input of one forward.

    It has ``guided + rows`` entries. The first ``guided`` are the negative sides of the first
    ``guided`` rows, *in reverse order*; then come the positive sides of all rows in order. So
    entry ``guided + i`` is row ``i``, and entry ``guided - 1 - i`` is its negative side.
    """

    latents: Tensor
    """``(guided + rows, …)``, scaled for the denoiser, in the adapter's type."""
    timesteps: Tensor
    """``(guided + rows,)``, float32."""
    conditioning: Mapping[str, Tensor]
    """Each ``(guided + rows, …)``."""
    guided: int
    """How many rows use classifier-free guidance."""
    guidance_scales: Tensor
    """``(guided, 1, …)``, float32."""


class Adapter(Protocol):
    """A loaded model."""

    card: ModelCard
    device: torch.device
    dtype: torch.dtype

    def batch_key(self, request: GenerationRequest) -> BatchKey:
        """What a row of this request must share with the rows beside it."""
        ...

    def is_guided(self, request: GenerationRequest) -> bool:
        """Whether a row of this request needs a negative side."""
        ...

    def encode(self, prompts: Sequence[str]) -> list[Conditioning]:
        """The conditioning of each prompt, on the adapter's device."""
        ...

    def schedule(self, request: GenerationRequest) -> Schedule:
        """The noise levels of a row of this request."""
        ...

    def initial_noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Unit noise of one row (``shape`` has no batch dimension) in float32 on the CPU, drawn
        as the stock pipeline draws it; samplers' fresh noise is drawn by this too.
        """
        ...

    def predict(self, batch: ForwardBatch) -> Tensor:
        """One denoiser forward with guidance combined: ``(rows, …)``."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """``(rows, …)`` float32 latents to ``(rows, height, width, 3)`` uint8 pixels."""
        ...


def combine_guidance(output: Tensor, batch: ForwardBatch) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022), row by row: ``negative + scale * (positive -
    negative)`` for the guided rows, the plain output for the others.

    Args:
        output: ``(guided + rows, …)``, the denoiser's output for ``batch``.

    Returns:
        ``(rows, …)``, float32.
    """
    output = output.float()
    if not batch.guided:
        return output
    positive = output[batch.guided :]
    negative = output[: batch.guided].flip(0)
    guided = torch.lerp(negative, positive[: batch.guided], batch.guidance_scales)
    return torch.cat([guided, positive[batch.guided :]])
