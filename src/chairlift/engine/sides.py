"""The two sides of a group's conditioning: what each row's prompt, and what its negative prompt,
gives the denoiser.

The positive side of slot ``i`` lies at ``capacity + i``, its negative side at ``capacity - 1 - i``
(:mod:`chairlift.engine.slots` says why).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from chairlift.models.adapter import Conditioning, Padded


def swap(values: Tensor, a: int, b: int) -> None:
    """Two entries change places. By copies, since a list of indices would have to be brought to the
    device, for which the host would wait.
    """
    other = values[a].clone()
    values[a] = values[b]
    values[b] = other


class HasSides(Protocol):
    """A row, as far as it matters here."""

    @property
    def positive(self) -> Conditioning: ...

    @property
    def negative(self) -> Conditioning | None: ...


class Sides:
    """The tensors. Which there are, the first row decides; all rows of a group have the same.

    Args:
        capacity: The most rows.
        device: Where the tensors live.
    """

    def __init__(self, capacity: int, device: torch.device) -> None:
        self._capacity = capacity
        self._device = device
        self._tensors: dict[str, Tensor] = {}
        """Each ``(2 * capacity, …)``."""
        self._sequences: dict[str, Tensor] = {}
        """Each ``(2 * capacity, longest, …)``, zero past the end of each."""
        self._lengths: dict[str, Tensor] = {}
        """Of the sequences: ``(2 * capacity,)``."""

    def write(
        self,
        slot: int,
        positive: Conditioning,
        negative: Conditioning | None,
        added: Mapping[str, Tensor],
    ) -> None:
        """Fill in both sides of a slot; the negative one is left as it is if there is none."""
        self._write(self._capacity + slot, positive, added)
        if negative is not None:
            self._write(self._capacity - 1 - slot, negative, added)

    def tensors(self, guided: int, running: int) -> dict[str, Tensor]:
        """What a forward of the first ``running`` rows reads, of which ``guided`` are guided."""
        both = slice(self._capacity - guided, self._capacity + running)
        return {name: values[both] for name, values in self._tensors.items()}

    def sequences(
        self, guided: Sequence[HasSides], running: Sequence[HasSides]
    ) -> dict[str, Padded]:
        """The same for sequences, cut to the longest of them."""
        entries = [row.negative for row in reversed(guided)] + [row.positive for row in running]
        both = slice(self._capacity - len(guided), self._capacity + len(running))
        padded = {}
        for name, values in self._sequences.items():
            lengths = tuple(len(entry.sequences[name]) for entry in entries if entry is not None)
            view = values[both, : max(lengths)]
            padded[name] = Padded(view, lengths, self._lengths[name][both])
        return padded

    def copy(self, source: int, target: int) -> None:
        """Both sides of a slot move to another."""
        for values in self._all():
            values[self._capacity + target] = values[self._capacity + source]
            values[self._capacity - 1 - target] = values[self._capacity - 1 - source]

    def swap(self, a: int, b: int) -> None:
        """Two slots change places."""
        centre = self._capacity
        for values in self._all():
            swap(values, centre + a, centre + b)
            swap(values, centre - 1 - a, centre - 1 - b)

    def _all(self) -> list[Tensor]:
        return [*self._tensors.values(), *self._sequences.values(), *self._lengths.values()]

    def _write(
        self, position: int, conditioning: Conditioning, added: Mapping[str, Tensor]
    ) -> None:
        for name, values in (*conditioning.tensors.items(), *added.items()):
            if name not in self._tensors:
                self._tensors[name] = self._zeros(values.shape, values.dtype)
            self._tensors[name][position].copy_(values, non_blocking=True)
        for name, values in conditioning.sequences.items():
            self._reserve(name, values)
            self._sequences[name][position, : len(values)] = values
            self._sequences[name][position, len(values) :] = 0
            self._lengths[name][position] = len(values)

    def _reserve(self, name: str, values: Tensor) -> None:
        """Room for a sequence: what is there becomes longer if it must."""
        if name not in self._sequences:
            self._sequences[name] = self._zeros(values.shape, values.dtype)
            self._lengths[name] = self._zeros((), torch.long)
        held = self._sequences[name]
        if len(values) > held.shape[1]:
            self._sequences[name] = self._zeros(values.shape, values.dtype)
            self._sequences[name][:, : held.shape[1]] = held

    def _zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.zeros(2 * self._capacity, *shape, dtype=dtype, device=self._device)
