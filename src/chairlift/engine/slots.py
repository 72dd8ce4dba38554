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

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chairlift.engine.sides import Sides, swap
from chairlift.models.adapter import Conditioning, ForwardBatch
from chairlift.request import RowId
from chairlift.sampling.advance import HISTORY, Coefficients, advance
from chairlift.sampling.samplers import COLUMNS, StepTable
from chairlift.scheduling.batch_key import BatchKey


@dataclass(kw_only=True, slots=True)
class Row:
    """The host's side of a row that has a slot."""

    id: RowId
    table: StepTable
    cfg_scales: NDArray[np.float32]
    """Weight of classifier-free guidance at each evaluation."""
    generator: torch.Generator
    """The row's own source of noise, as the stock pipeline would use it."""
    positive: Conditioning
    """What its prompt gives the denoiser."""
    negative: Conditioning | None
    """What its negative prompt gives, if any evaluation is guided."""
    added: Mapping[str, Tensor]
    """What both sides are told besides."""
    preview_at: frozenset[int] = frozenset()
    """The numbers of evaluations after which it is shown."""
    loras: frozenset[str] = frozenset()
    """The names of those that it uses."""
    page: int = -1
    """Where its step table lies; it doesn't move with the row."""
    step: int = 0
    """Evaluations made."""

    @property
    def guided(self) -> bool:
        """Whether the coming evaluation uses classifier-free guidance."""
        return bool(self.cfg_scales[self.step] > 1)

    @property
    def takes_noise(self) -> bool:
        """Whether the coming update adds fresh noise."""
        return bool(self.table.next_z[self.step] != 0)


class Slots:
    """The tensors of one group.

    Args:
        key: What its rows have in common.
        capacity: The most rows.
        max_evaluations: The longest step table.
        device: Where the tensors live.
        dtype: The denoiser's type. Latents and history are float32 in any case.
    """

    def __init__(
        self,
        key: BatchKey,
        *,
        capacity: int,
        max_evaluations: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.key = key
        self.capacity = capacity
        self.rows: list[Row] = []
        """The row of each slot in use."""
        self._running = 0
        self._guided = 0
        self._max_evaluations = max_evaluations
        self._free_pages = list(reversed(range(capacity)))
        shape = key.latent_shape
        self._latents = torch.zeros(capacity, *shape, device=device)
        self._history = torch.zeros(capacity, HISTORY, *shape, device=device)
        self._noise = torch.zeros_like(self._latents)
        # The sampler's coefficients, and the weight of guidance as one column more.
        self._tables = torch.zeros(capacity * max_evaluations, len(COLUMNS) + 1, device=device)
        self._cursors = torch.zeros(capacity, dtype=torch.long, device=device)
        """Where each slot's row reads ``tables`` next."""
        self._inputs = torch.zeros(2 * capacity, *shape, device=device, dtype=dtype)
        self._timesteps = torch.zeros(2 * capacity, device=device)
        self._sides = Sides(capacity, device)
        self._coefficients = Coefficients(self._tables[:0, :-1], self._latents.dim())

    def __len__(self) -> int:
        return len(self.rows)

    def join(self, row: Row, latents: Tensor, history: Tensor | None = None) -> None:
        """Give ``row`` the next free slot.

        Args:
            latents: Where it starts: ``latent_shape``, float32.
            history: What it remembers, if it comes from another group: ``(HISTORY,
                *latent_shape)``.

        Raises:
            IndexError: Every slot is taken.
        """
        row.page = self._free_pages.pop()
        slot = len(self.rows)
        self.rows.append(row)
        table = torch.from_numpy(np.column_stack([row.table.stack(), row.cfg_scales]))
        start = row.page * self._max_evaluations
        self._tables[start : start + len(table)].copy_(table, non_blocking=True)
        self._cursors[slot] = start + row.step
        self._latents[slot].copy_(latents, non_blocking=True)
        # Not only unused: whatever a failed row has left here would spread as 0 * NaN.
        self._history[slot] = 0 if history is None else history
        self._noise[slot] = 0
        self._sides.write(slot, row.positive, row.negative, row.added)

    def leave(self, ids: Collection[RowId]) -> None:
        """Free the slots of these rows; the last row moves into each hole."""
        for slot in reversed(range(len(self.rows))):
            if self.rows[slot].id in ids:
                self._free_pages.append(self.rows[slot].page)
                self._copy(len(self.rows) - 1, slot)
                self.rows.pop()

    def state(self, id: RowId) -> tuple[Row, Tensor, Tensor]:
        """One row, with copies of its latents and of what it remembers."""
        slot = next(slot for slot, row in enumerate(self.rows) if row.id == id)
        return self.rows[slot], self._latents[slot].clone(), self._history[slot].clone()

    def arrange(self, ids: Collection[RowId]) -> list[Row]:
        """Bring these rows to the front, the guided ones first; the rows, in their new order."""
        wanted = set(ids)
        regions = [(0 if row.guided else 1) if row.id in wanted else 2 for row in self.rows]
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
        self._coefficients = Coefficients(columns[:, :-1], self._latents.dim())
        positive = slice(centre, centre + running)
        both = slice(centre - guided, centre + running)
        scaled = self._latents[:running] * self._coefficients.input_scale
        self._inputs[positive] = scaled
        self._timesteps[positive] = self._coefficients.timestep
        if guided:
            negative = slice(centre - guided, centre)
            self._inputs[negative] = scaled[:guided].flip(0)
            self._timesteps[negative] = self._coefficients.timestep[:guided].flip(0)
        ones = (1,) * len(self.key.latent_shape)
        return ForwardBatch(
            key=self.key,
            latents=self._inputs[both],
            timesteps=self._timesteps[both],
            conditioning=self._sides.tensors(guided, running),
            sequences=self._sides.sequences(self.rows[:guided], self.rows[:running]),
            guided=guided,
            loras=frozenset().union(*(row.loras for row in self.rows[:running])),
            cfg_scales=columns[:guided, -1].view(-1, *ones),
        )

    def advance(self, prediction: Tensor, noise: dict[int, Tensor]) -> Tensor:
        """Take the step for which :meth:`forward_batch` made the input. Returns the predicted clean
        latents of the running rows, ``(running, …)``, float32.

        Args:
            prediction: ``(running, …)``, the denoiser's output with guidance combined.
            noise: Fresh unit noise for the slots whose rows take some.
        """
        running = self._running
        for slot, values in noise.items():
            self._noise[slot].copy_(values, non_blocking=True)
        denoised = advance(
            self._latents[:running],
            self._history[:running],
            prediction,
            self._noise[:running] if noise else None,
            self._coefficients,
        )
        self._cursors[:running] += 1
        for row in self.rows[:running]:
            row.step += 1
        return denoised

    def _moving(self) -> list[Tensor]:
        """What moves with a row from slot to slot."""
        return [self._latents, self._history, self._noise, self._cursors]

    def _copy(self, source: int, target: int) -> None:
        if source == target:
            return
        self.rows[target] = self.rows[source]
        for values in self._moving():
            values[target] = values[source]
        self._sides.copy(source, target)

    def _swap(self, a: int, b: int) -> None:
        self.rows[a], self.rows[b] = self.rows[b], self.rows[a]
        for values in self._moving():
            swap(values, a, b)
        self._sides.swap(a, b)
