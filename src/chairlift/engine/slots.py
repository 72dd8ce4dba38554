"""The batch tensors of one group, and who sits where.

A row keeps its slot from the step after it joins to its last; at a tick nothing is gathered,
concatenated or scattered. Joining writes one slot, leaving moves one row at most.

The rows of the next forward are kept at the front, those with guidance first::

    slots   0 … guided-1 | guided … running-1 | running … rows-1
            guided rows  | other rows         | resting rows

What the denoiser reads has two sides around a centre: the positive side of slot ``i`` lies at
``capacity + i`` and its negative side at ``capacity - 1 - i``. The guided rows being in front,
every forward is one contiguous view, from ``capacity - guided`` to ``capacity + running``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from chairlift.models.adapter import Conditioning, ForwardBatch
from chairlift.request import RowId
from chairlift.sampling.advance import HISTORY, Coefficients, advance
from chairlift.sampling.samplers import COLUMNS, StepTable


@dataclass(kw_only=True, slots=True)
class Row:
    """The host's side of a row that has a slot."""

    id: RowId
    guidance_scale: float
    guided: bool
    table: StepTable
    generator: torch.Generator
    """The row's own source of noise, as the stock pipeline would use it."""
    page: int = -1
    """Where its step table lies; it doesn't move with the row."""
    step: int = 0
    """Evaluations made."""

    @property
    def takes_noise(self) -> bool:
        """Whether the coming update adds fresh noise."""
        return bool(self.table.next_z[self.step] != 0)


class Slots:
    """The tensors of one group.

    Args:
        capacity: The most rows.
        latent_shape: Shape of one row's latents.
        max_evaluations: The longest step table.
        device: Where the tensors live.
        dtype: The denoiser's type. Latents and history are float32 in any case.
    """

    def __init__(
        self,
        *,
        capacity: int,
        latent_shape: tuple[int, ...],
        max_evaluations: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.rows: list[Row] = []
        """The row of each slot in use."""
        self.capacity = capacity
        self.latent_shape = latent_shape
        self._running = 0
        self._guided = 0
        self._max_evaluations = max_evaluations
        self._free_pages = list(reversed(range(capacity)))
        self._latents = torch.zeros(capacity, *latent_shape, device=device)
        self._history = torch.zeros(capacity, HISTORY, *latent_shape, device=device)
        self._noise = torch.zeros_like(self._latents)
        self._tables = torch.zeros(capacity * max_evaluations, len(COLUMNS), device=device)
        self._cursors = torch.zeros(capacity, dtype=torch.long, device=device)
        """Where each slot's row reads ``tables`` next."""
        ones = (1,) * len(latent_shape)
        self._guidance_scales = torch.ones(capacity, *ones, device=device)
        self._inputs = torch.zeros(2 * capacity, *latent_shape, device=device, dtype=dtype)
        self._timesteps = torch.zeros(2 * capacity, device=device)
        self._conditioning: dict[str, Tensor] = {}
        self._coefficients = Coefficients(self._tables[:0], self._latents.dim())

    def __len__(self) -> int:
        return len(self.rows)

    def join(
        self, row: Row, noise: Tensor, positive: Conditioning, negative: Conditioning | None
    ) -> None:
        """Give ``row`` the next free slot.

        Args:
            noise: Its initial unit noise, ``latent_shape``, times its schedule's initial scale.
            positive: What its prompt gives the denoiser.
            negative: What its negative prompt gives, if it is guided.

        Raises:
            IndexError: Every slot is taken.
        """
        page = self._free_pages.pop()
        slot = len(self.rows)
        row.page = page
        self.rows.append(row)
        table = torch.from_numpy(row.table.stack())
        start = page * self._max_evaluations
        self._tables[start : start + len(table)] = table.to(self._tables.device)
        self._cursors[slot] = start
        self._latents[slot] = noise.to(self._latents.device)
        # Not only unused: whatever a failed row has left here would spread as 0 * NaN.
        self._history[slot] = 0
        self._noise[slot] = 0
        self._guidance_scales[slot] = row.guidance_scale
        self._write_conditioning(self.capacity + slot, positive)
        if negative is not None:
            self._write_conditioning(self.capacity - 1 - slot, negative)

    def leave(self, ids: Collection[RowId]) -> None:
        """Free the slots of these rows; the last row moves into each hole."""
        for slot in reversed(range(len(self.rows))):
            if self.rows[slot].id in ids:
                self._free_pages.append(self.rows[slot].page)
                self._copy(len(self.rows) - 1, slot)
                self.rows.pop()

    def latents(self, id: RowId) -> Tensor:
        """A copy of one row's latents."""
        slot = next(slot for slot, row in enumerate(self.rows) if row.id == id)
        return self._latents[slot].clone()

    def arrange(self, ids: Collection[RowId]) -> list[Row]:
        """Bring these rows to the front, the guided ones first; the rows, in their new order."""
        wanted = set(ids)
        regions = [0 if row.guided else 1 for row in self.rows]
        regions = [
            region if row.id in wanted else 2
            for region, row in zip(regions, self.rows, strict=True)
        ]
        for slot, region in enumerate(sorted(regions)):
            if regions[slot] != region:
                other = regions.index(region, slot + 1)
                self._swap(slot, other)
                regions[slot], regions[other] = regions[other], regions[slot]
        self._guided, self._running = regions.count(0), len(wanted)
        return self.rows[: self._running]

    def forward_batch(self) -> ForwardBatch:
        """The denoiser's input for the rows in front."""
        running, guided, centre = self._running, self._guided, self.capacity
        columns = self._tables.index_select(0, self._cursors[:running])
        self._coefficients = Coefficients(columns, self._latents.dim())
        positive = slice(centre, centre + running)
        both = slice(centre - guided, centre + running)
        scaled = self._latents[:running] * self._coefficients.input_scale
        self._inputs[positive] = scaled
        self._timesteps[positive] = self._coefficients.timestep
        if guided:
            negative = slice(centre - guided, centre)
            self._inputs[negative] = scaled[:guided].flip(0)
            self._timesteps[negative] = self._coefficients.timestep[:guided].flip(0)
        return ForwardBatch(
            latents=self._inputs[both],
            timesteps=self._timesteps[both],
            conditioning={name: values[both] for name, values in self._conditioning.items()},
            guided=guided,
            guidance_scales=self._guidance_scales[:guided],
        )

    def advance(self, prediction: Tensor, noise: dict[int, Tensor]) -> None:
        """Take the step for which :meth:`forward_batch` made the input.

        Args:
            prediction: ``(running, …)``, the denoiser's output with guidance combined.
            noise: Fresh unit noise for the slots whose rows take some.
        """
        running = self._running
        for slot, values in noise.items():
            self._noise[slot] = values.to(self._noise.device)
        advance(
            self._latents[:running],
            self._history[:running],
            prediction,
            self._noise[:running] if noise else None,
            self._coefficients,
        )
        self._cursors[:running] += 1
        for row in self.rows[:running]:
            row.step += 1

    def _write_conditioning(self, position: int, conditioning: Conditioning) -> None:
        for name, values in conditioning.tensors.items():
            if name not in self._conditioning:
                shape = (2 * self.capacity, *values.shape)
                self._conditioning[name] = values.new_zeros(shape)
            self._conditioning[name][position] = values

    def _moving(self) -> list[Tensor]:
        """What moves with a row from slot to slot."""
        return [self._latents, self._history, self._noise, self._cursors, self._guidance_scales]

    def _copy(self, source: int, target: int) -> None:
        if source == target:
            return
        self.rows[target] = self.rows[source]
        for values in self._moving():
            values[target] = values[source]
        for values in self._conditioning.values():
            values[self.capacity + target] = values[self.capacity + source]
            values[self.capacity - 1 - target] = values[self.capacity - 1 - source]

    def _swap(self, a: int, b: int) -> None:
        self.rows[a], self.rows[b] = self.rows[b], self.rows[a]
        for values in self._moving():
            values[[a, b]] = values[[b, a]]
        centre = self.capacity
        for values in self._conditioning.values():
            values[[centre + a, centre + b]] = values[[centre + b, centre + a]]
            left, right = centre - 1 - a, centre - 1 - b
            values[[left, right]] = values[[right, left]]
