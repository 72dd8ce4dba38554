"""The limit: what a model makes if nothing runs but its denoiser, the sampler and the decoder."""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from chairlift.bench.prompts import draw_prompts
from chairlift.models.adapter import Adapter, Conditioning, ForwardBatch, Padded
from chairlift.request import Prompt
from chairlift.sampling.samplers import step_table
from chairlift.validation import create_request


class BareLoop:
    """A batch of equal requests, as plainly as it can be computed: Euler.

    Args:
        adapter: The model.
        rows: Of the batch.
        steps: Of each row.
        side: Width and height in pixels; None is the model's default size.
    """

    @torch.inference_mode()
    def __init__(self, adapter: Adapter, rows: int, steps: int, side: int | None = None) -> None:
        self.rows = rows
        self._adapter = adapter
        request = create_request(
            adapter.card,
            id="bare",
            prompt="",
            steps=steps,
            width=side,
            height=side,
            sampler="euler",
        )
        self._table = step_table(adapter.schedule(request))
        self._guided = rows if request.cfg_scale > 1 else 0
        self._key = adapter.batch_key(request)
        draw = draw_prompts(0)
        positives = adapter.encode([Prompt(draw(row)) for row in range(rows)])
        entries = adapter.encode([request.negative]) * self._guided + positives
        added = adapter.added_conditioning(request)
        self._conditioning = {
            name: torch.stack([entry.tensors[name] for entry in entries])
            for name in entries[0].tensors
        } | {
            name: torch.stack([values] * len(entries)).to(adapter.device)
            for name, values in added.items()
        }
        self._sequences = {name: _pad(entries, name) for name in entries[0].sequences}
        ones = (1,) * len(self._key.latent_shape)
        self._scales = torch.full((self._guided, *ones), request.cfg_scale, device=adapter.device)

    @torch.inference_mode()
    def run(self) -> None:
        """Make the pictures; they are on the host at the end."""
        table, guided, device = self._table, self._guided, self._adapter.device
        noise = torch.randn(self.rows, *self._key.latent_shape, device=device)
        latents = noise * table.initial_scale
        for step in range(len(table.timestep)):
            scaled = latents * float(table.input_scale[step])
            timestep = float(table.timestep[step])
            batch = ForwardBatch(
                key=self._key,
                latents=torch.cat([scaled[:guided], scaled]).to(self._adapter.dtype),
                timesteps=torch.full((guided + self.rows,), timestep, device=device),
                conditioning=self._conditioning,
                sequences=self._sequences,
                guided=guided,
                loras=frozenset(),
                cfg_scales=self._scales,
            )
            prediction = self._adapter.predict(batch)
            denoised = _mix(table.denoised_x[step], latents, table.denoised_p[step], prediction)
            latents = _mix(table.next_x[step], latents, table.next_denoised[step], denoised)
        chunk = self._adapter.max_decode_rows
        for first in range(0, self.rows, chunk):
            self._adapter.decode(latents[first : first + chunk]).cpu()

    def pictures_per_second(self, seconds: float) -> float:
        """Over at least so long, and one batch."""
        start, batches = time.perf_counter(), 0
        while not batches or time.perf_counter() - start < seconds:
            self.run()
            batches += 1
        return batches * self.rows / (time.perf_counter() - start)


def _pad(entries: list[Conditioning], name: str) -> Padded:
    """The sequences of that name in one tensor."""
    sequences = [entry.sequences[name] for entry in entries]
    lengths = tuple(len(sequence) for sequence in sequences)
    values = pad_sequence(sequences, batch_first=True)
    return Padded(values, lengths, torch.tensor(lengths, device=values.device))


def _mix(a: float, x: Tensor, b: float, y: Tensor) -> Tensor:
    return float(a) * x + float(b) * y
