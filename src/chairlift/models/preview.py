"""Previews: small pictures of latents that are still on their way, for next to nothing.

A VAE takes as long as a tick. The colours of a picture at a fraction of its size are nearly a
function of each latent pixel and its neighbours, for which one convolution does, or a few.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import isqrt
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from chairlift.errors import ModelError

PREVIEW_FILE = "preview.safetensors"
"""In a model's folder: the layers of its :class:`LatentPreview`."""

Layer = tuple[Tensor, Tensor]
"""Its weight, ``(outputs, inputs, side, side)``, and its bias, ``(outputs,)``."""


class Previewer(ABC):
    """Makes small pictures of predicted clean latents."""

    @property
    def ready(self) -> bool:
        """Whether it can render. Once it can, it always can."""
        return True

    @property
    def learning(self) -> bool:
        """Whether it still wants to observe finished pictures."""
        return False

    @abstractmethod
    def render(self, latents: Tensor) -> Tensor:
        """Small pictures, without a host synchronisation.

        Args:
            latents: ``(rows, *latent_shape)``, float32, predicted clean, as slots keep them.

        Returns:
            ``(rows, height, width, 3)`` uint8 on the latents' device, in the picture's
            proportions, and as a rule smaller.

        Raises:
            ValueError: The latents aren't this model's.
        """

    def observe(self, latents: Tensor, pixels: Tensor) -> None:  # noqa: B027
        """Learn from finished pictures, if it still learns; from any thread.

        Args:
            latents: ``(rows, *latent_shape)``, float32, final.
            pixels: ``(rows, height, width, 3)`` uint8, on any device: what the model's decoder
                made of them.
        """


class LatentPreview(Previewer):
    """A convolution, and any number of layers behind it, with a ReLU before each.

    The convolution sees a latent pixel's neighbourhood; past its borders, a picture goes on as it
    ends. A further layer sees what the layer before makes of the pixel, and the mean of that over
    the picture: a decoder's normalisations make every pixel depend on all. The last layer makes
    ``factor x factor`` pixels of each latent pixel. One layer alone is a linear map.

    Args:
        layers: The first has an odd side. The others have a side of 1, and twice as many inputs as
            the one before has outputs: the pixel's, then the means. The last has ``3 * factor²``
            outputs.

    Raises:
        ValueError: The layers don't fit together.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        _check(layers)
        self.layers = tuple(layers)
        self.channels = layers[0][0].shape[1]
        """Of the latents."""
        self.factor = isqrt(len(layers[-1][1]) // 3)
        """Pixels of a latent pixel, each way."""

    def colours(self, latents: Tensor) -> Tensor:
        """``(rows, channels, height, width)`` to ``(rows, height * factor, width * factor, 3)``,
        from 0 to 1, and a little beyond.
        """
        return self._arrange(self._squares(latents), latents)

    @torch.inference_mode()
    def render(self, latents: Tensor) -> Tensor:
        require_shape(latents, self.channels)
        # Adding a half rounds, since the conversion cuts off. Bytes are then quicker to arrange.
        levels = self._squares(latents).mul_(255).add_(0.5).clamp_(0, 255).to(torch.uint8)
        return self._arrange(levels, latents)

    def _squares(self, latents: Tensor) -> Tensor:
        """``(rows, height * width, 3 * factor * factor)``: the pixels of each latent pixel."""
        (weight, bias), *others = self.layers
        margin = weight.shape[-1] // 2
        values = F.conv2d(F.pad(latents, (margin,) * 4, mode="replicate"), weight, bias)
        values = values.flatten(2).transpose(1, 2)
        for weight, bias in others:
            values = values.relu_()
            of_pixel, of_mean = weight.flatten(1).chunk(2, dim=1)
            overall = F.linear(values.mean(1, keepdim=True), of_mean, bias)
            values = torch.baddbmm(overall, values, of_pixel.T.expand(len(values), -1, -1))
        return values

    def _arrange(self, squares: Tensor, latents: Tensor) -> Tensor:
        """The squares, each where its latent pixel is: ``(rows, height, width, 3)``."""
        rows, _, height, width = latents.shape
        factor = self.factor
        pixels = squares.view(rows, height, width, 3, factor, factor).permute(0, 1, 4, 2, 5, 3)
        return pixels.reshape(rows, height * factor, width * factor, 3)

    def save(self, path: Path) -> None:
        """Write the layers as safetensors, in half precision."""
        tensors = {}
        for index, (weight, bias) in enumerate(self.layers):
            tensors[f"layers.{index}.weight"] = weight.detach().half().cpu().contiguous()
            tensors[f"layers.{index}.bias"] = bias.detach().half().cpu().contiguous()
        save_file(tensors, path)

    @classmethod
    def load(cls, path: Path, channels: int, device: torch.device) -> LatentPreview:
        """Read what :meth:`save` wrote.

        Args:
            path: The file.
            channels: Of the model's latents.
            device: Where the latents will be.

        Raises:
            ModelError: The file is missing or broken, or is another model's.
        """
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path} can't be read: {error}") from None
        count = len(tensors) // 2
        names = {f"layers.{i}.{part}" for i in range(count) for part in ("weight", "bias")}
        if not names or tensors.keys() != names:
            raise ModelError(
                f"{path} has the tensors {', '.join(sorted(tensors)) or 'none'}; a preview has "
                "layers.0.weight, layers.0.bias and so on"
            )
        floats = {name: tensor.to(device, torch.float32) for name, tensor in tensors.items()}
        try:
            preview = cls(
                [(floats[f"layers.{i}.weight"], floats[f"layers.{i}.bias"]) for i in range(count)]
            )
        except ValueError as error:
            raise ModelError(f"{path}: {error}") from None
        if preview.channels != channels:
            raise ModelError(
                f"{path} is for latents of {preview.channels} channels; the model's have {channels}"
            )
        return preview


def require_shape(latents: Tensor, channels: int) -> None:
    """Raise ValueError for latents that a preview of so many channels can't render."""
    if latents.dim() != 4 or latents.shape[1] != channels:
        raise ValueError(
            f"latents have the shape {tuple(latents.shape)}; the preview is for "
            f"(rows, {channels}, height, width)"
        )


def _check(layers: Sequence[Layer]) -> None:
    """Raise ValueError for layers that don't fit together."""
    outputs = 0
    for index, (weight, bias) in enumerate(layers):
        name, shape = f"layers.{index}", tuple(weight.shape)
        if len(shape) != 4 or shape[2] != shape[3] or shape[2] % 2 == 0 or not weight.numel():
            raise ValueError(f"{name}.weight has the shape {shape}; it must be (n, m, odd, odd)")
        if index and shape[1:] != (2 * outputs, 1, 1):
            raise ValueError(
                f"{name}.weight has the shape {shape}; behind a layer of {outputs} outputs it must "
                f"be (n, {2 * outputs}, 1, 1)"
            )
        if bias.shape != shape[:1]:
            raise ValueError(
                f"{name}.bias has the shape {tuple(bias.shape)}; it must be {shape[:1]}"
            )
        if not (weight.isfinite().all() and bias.isfinite().all()):
            raise ValueError(f"{name} has numbers that are not finite")
        outputs = shape[0]
    if not outputs or outputs != 3 * isqrt(outputs // 3) ** 2:
        raise ValueError(f"the last layer has {outputs} outputs; it must be 3 times a square")
