"""A preview that is learned while serving: every finished picture is a pair of latents and pixels,
and a linear map from one to the other is a small least squares problem.
"""

from __future__ import annotations

import threading

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from chairlift.models.preview import LatentPreview, Previewer

FACTOR = 2
"""Pixels of a preview for a latent pixel, each way."""
SIDE = 3
"""Of the neighbourhood that a latent pixel's colours come from."""
PRIOR = 5.0
"""How many latent pixels the assumption weighs that there is nothing to see."""
SAMPLES = 256
"""Latent pixels of a picture that are looked at."""
PICTURES = 32
"""After these many it has learned enough."""


class PreviewFit:
    """Ridge regression from latents to pixels, of which the pairs come one after the other.

    Args:
        channels: Of the latents.
        factor: Pixels of the preview for a latent pixel, each way.
        side: Of the neighbourhood, odd.
        prior: How many latent pixels the assumption weighs that the latents say nothing.
    """

    def __init__(
        self, channels: int, factor: int = FACTOR, side: int = SIDE, prior: float = PRIOR
    ) -> None:
        self.channels, self.factor, self.side, self.prior = channels, factor, side, prior
        unknowns = channels * side * side + 1  # The last one is the bias.
        self._gram = np.zeros((unknowns, unknowns))
        self._moments = np.zeros((unknowns, 3 * factor * factor))

    def observe(
        self, latents: Tensor, pixels: Tensor, positions: NDArray[np.int64] | None = None
    ) -> None:
        """Add a picture.

        Args:
            latents: ``(channels, height, width)``, float32.
            pixels: ``(height * scale, width * scale, 3)``, uint8; ``factor`` divides the scale.
            positions: Which latent pixels to look at, as ``y * width + x``; None is all.

        Raises:
            ValueError: The shapes don't go together.
        """
        self._check(latents, pixels)
        height, width = latents.shape[1:]
        if positions is None:
            positions = np.arange(height * width)
        y, x = (torch.from_numpy(index) for index in np.divmod(positions, width))
        features = self._neighbourhoods(latents, y, x)
        features = np.hstack([features, np.ones((len(features), 1))])
        self._gram += features.T @ features
        self._moments += features.T @ self._squares(pixels, height, width, y, x)

    def solve(self, device: torch.device) -> LatentPreview:
        """The map of all pictures so far; there is at least one."""
        pixels, unknowns = self._gram[-1, -1], len(self._gram)
        penalty = self.prior / pixels * self._gram.trace() / unknowns * np.eye(unknowns)
        penalty[-1, -1] = 0
        solution = torch.from_numpy(np.linalg.solve(self._gram + penalty, self._moments)).float()
        weight = solution[:-1].T.reshape(-1, self.channels, self.side, self.side)
        return LatentPreview([(weight.contiguous().to(device), solution[-1].to(device))])

    def _check(self, latents: Tensor, pixels: Tensor) -> None:
        channels, height, width = latents.shape
        if channels != self.channels:
            raise ValueError(
                f"the latents have {channels} channels; the fit is for {self.channels}"
            )
        step_y, step_x = height * self.factor, width * self.factor
        rows, columns, colours = pixels.shape
        if colours != 3 or rows % step_y or columns % step_x or rows // step_y != columns // step_x:
            raise ValueError(
                f"pixels have the shape {tuple(pixels.shape)}; of latents of {height}x{width} it "
                f"must be a multiple of ({step_y}, {step_x}), and 3 colours"
            )

    def _neighbourhoods(self, latents: Tensor, y: Tensor, x: Tensor) -> NDArray[np.float64]:
        """``(positions, channels * side * side)``."""
        padded = F.pad(latents[None], (self.side // 2,) * 4, mode="replicate")[0]
        offsets = torch.arange(self.side)
        rows, columns = y[:, None, None] + offsets[:, None], x[:, None, None] + offsets
        squares = padded[:, rows.to(latents.device), columns.to(latents.device)]
        return squares.movedim(1, 0).flatten(1).cpu().double().numpy()

    def _squares(
        self, pixels: Tensor, height: int, width: int, y: Tensor, x: Tensor
    ) -> NDArray[np.float64]:
        """``(positions, 3 * factor * factor)``: the mean colours, from 0 to 1, in the order that
        ``pixel_shuffle`` takes.
        """
        scale = len(pixels) // height
        blocks = pixels.reshape(height, scale, width, scale, 3)
        squares = blocks[y.to(pixels.device), :, x.to(pixels.device)].cpu().numpy() / 255
        factor, part = self.factor, scale // self.factor
        means: NDArray[np.float64] = squares.reshape(-1, factor, part, factor, part, 3).mean((2, 4))
        return means.transpose(0, 3, 1, 2).reshape(len(means), -1)


class LearnedPreview(Previewer):
    """Ready after the first finished picture, and better after 2, 4, 8, 16 and 32.

    Args:
        device: Where the latents are that it will render.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._fit: PreviewFit | None = None
        self._preview: LatentPreview | None = None
        self._pictures = 0

    @property
    def ready(self) -> bool:
        return self._preview is not None

    @property
    def learning(self) -> bool:
        return self._pictures < PICTURES

    def render(self, latents: Tensor) -> Tensor:
        """As :meth:`Previewer.render`.

        Raises:
            RuntimeError: It isn't ready.
        """
        if self._preview is None:
            raise RuntimeError("there is no preview before the first finished picture")
        return self._preview.render(latents)

    def observe(self, latents: Tensor, pixels: Tensor) -> None:
        """As :meth:`Previewer.observe`. Latents that aren't finite are passed over."""
        for picture, colours in zip(latents, pixels, strict=True):
            with self._lock:
                if self.learning and bool(picture.isfinite().all()):
                    self._learn(picture, colours)

    def _learn(self, latents: Tensor, pixels: Tensor) -> None:
        channels, height, width = latents.shape
        if self._fit is None:
            halves = len(pixels) // height % FACTOR == 0
            self._fit = PreviewFit(channels, factor=FACTOR if halves else 1)
        # Drawn by the picture's number, so that the same pictures give the same previews.
        rng = np.random.default_rng(self._pictures)
        positions = rng.permutation(height * width)[:SAMPLES]
        self._fit.observe(latents, pixels, positions)
        self._pictures += 1
        if self._pictures.bit_count() == 1:  # A power of two.
            self._preview = self._fit.solve(self._device)
