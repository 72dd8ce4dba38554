"""The runner: has one plan carried out by the device.

It knows requests, slots and the model. It doesn't know why these rows were chosen, nor what
becomes of their pictures.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from chairlift.engine.encoder import Encoder
from chairlift.engine.marks import Mark, make_mark
from chairlift.engine.memory import free_cache, is_out_of_memory
from chairlift.engine.slots import Row, Slots
from chairlift.errors import EncodeFailed, RequestError, StepFailed
from chairlift.models.adapter import Adapter, Conditioning
from chairlift.request import GenerationRequest, Prompt, RowId
from chairlift.sampling.samplers import StepTable, step_table
from chairlift.sampling.schedule import Schedule
from chairlift.scheduling.batch_key import BatchKey
from chairlift.scheduling.plan import Plan
from chairlift.scheduling.work import Leg

logger = logging.getLogger(__name__)

FIRST_CAPACITY = 8
"""Slots of a group at the beginning."""
EVALUATIONS_PER_STEP = 2
"""The most denoiser evaluations that a sampler makes in a step (heun)."""


@dataclass(kw_only=True, slots=True)
class RunResult:
    """What becomes of a plan, with everything that the scheduler needn't know. On CUDA it is known
    before the device has come so far.
    """

    failed: dict[RowId, RequestError] = field(default_factory=dict)
    """Rows that have lost their slot to an error."""
    finished: dict[RowId, Tensor] = field(default_factory=dict)
    """Final latents, float32 on the device, of the rows whose last step this was."""
    previews: dict[RowId, Tensor] = field(default_factory=dict)
    """Predicted clean latents, float32 on the device, of the rows that are to be shown now."""
    entries: int = 0
    """Of the forward."""
    out_of_memory: int = 0
    """Rows of the smallest forward for which there was no memory; 0 if there was enough."""
    marks: list[Mark] = field(default_factory=list)
    """Where the tick began, where the newcomers had their slots, and where it ended."""

    def wait(self) -> None:
        """Let this thread sleep until the device has made the tick."""
        self.marks[-1].wait()

    @property
    def encode_seconds(self) -> float:
        """Time until the newcomers had their slots; after :meth:`wait`."""
        start, admitted, _ = self.marks
        return admitted.seconds_since(start)

    @property
    def seconds(self) -> float:
        """Time of the whole tick; after :meth:`wait`."""
        start, _, end = self.marks
        return end.seconds_since(start)


class Runner:
    """Owns the slots of every group.

    Args:
        adapter: The model.
    """

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._encoder = Encoder(adapter)
        self._groups: dict[BatchKey, Slots] = {}
        self._changing: dict[RowId, tuple[Row, Tensor, Tensor]] = {}
        """Rows between two groups, with their latents and what they remember."""
        self._schedules: dict[tuple[object, ...], tuple[Schedule, StepTable]] = {}

    def legs(self, request: GenerationRequest) -> tuple[Leg, ...]:
        """The groups through which a row of this request goes."""
        schedule = self._schedule(request)[0]
        guided = self._adapter.cfg_scales(request, schedule) > 1
        legs, start = [], 0
        for leg in self._adapter.legs(request, schedule):
            end = start + leg.evaluations
            legs.append(replace(leg, entries=2 if guided[start:end].any() else 1))
            start = end
        return tuple(legs)

    def slot_memory(self, request: GenerationRequest) -> int:
        """Bytes that a row of this request takes while it has a slot. Its texts count as much as
        the largest so far.
        """
        sides = 1 + (request.cfg_scale > 1)
        return self._adapter.slot_memory(request) + sides * self._encoder.largest_bytes

    @torch.inference_mode()
    def run(self, plan: Plan, requests: Mapping[str, GenerationRequest]) -> RunResult:
        """Take in the newcomers, run one forward, advance every row, let the finished go. The host
        waits for none of it.

        Args:
            plan: Not empty.
            requests: By id; those of the plan's rows are there.
        """
        if plan.key is None:
            raise ValueError("an empty plan can't be run")
        result = RunResult(marks=[self._mark()])
        changing = self._changing.keys() & set(plan.running)
        slots = self._slots(plan.key, len(plan.joining) + len(changing))
        for id in changing:
            slots.join(*self._changing.pop(id))
        self._admit(slots, plan.joining, requests, result)
        result.marks.append(self._mark())
        running = [row for row in plan.running if row not in result.failed]
        self._step(slots, running, result)
        for row in plan.finishing - result.failed.keys():
            _, result.finished[row], _ = slots.state(row)
        for row in plan.changing - result.failed.keys():
            self._changing[row] = slots.state(row)
        slots.leave(plan.finishing | plan.changing | result.failed.keys())
        if not len(slots):
            self._groups.pop(plan.key)
        result.marks.append(self._mark())
        return result

    def run_to_end(self, plan: Plan, requests: Mapping[str, GenerationRequest]) -> RunResult:
        """As :meth:`run`, for whoever has no use for half of a tick; the host waits for it.

        Raises:
            torch.OutOfMemoryError: There is no memory for these rows in one forward.
            RequestError: A row has failed.
        """
        result = self.run(plan, requests)
        result.wait()
        if result.out_of_memory:
            raise torch.OutOfMemoryError(f"{result.out_of_memory} rows don't fit into memory")
        for error in result.failed.values():
            raise error
        return result

    @torch.inference_mode()
    def release(self, rows: Collection[RowId]) -> None:
        """Free the slots of cancelled rows; rows without one are passed over."""
        for row in rows:
            self._changing.pop(row, None)
        for key, slots in list(self._groups.items()):
            slots.leave(rows)
            if not len(slots):
                del self._groups[key]

    def _mark(self) -> Mark:
        return make_mark(self._adapter.device)

    def _slots(self, key: BatchKey, newcomers: int) -> Slots:
        """The slots of a group, with room for so many more; twice as many if there is too little,
        so that memory follows the rows.
        """
        slots = self._groups.get(key)
        needed = newcomers + (len(slots) if slots else 0)
        if slots is not None and needed <= slots.capacity:
            return slots
        capacity = FIRST_CAPACITY if slots is None else slots.capacity
        while capacity < needed:
            capacity *= 2
        larger = self._groups[key] = Slots(
            key,
            capacity=capacity,
            max_evaluations=self._adapter.card.limits.max_steps * EVALUATIONS_PER_STEP,
            device=self._adapter.device,
            dtype=self._adapter.dtype,
        )
        if slots is not None:
            for row in slots.rows:
                larger.join(*slots.state(row.id))
        return larger

    def _admit(
        self,
        slots: Slots,
        joining: Sequence[RowId],
        requests: Mapping[str, GenerationRequest],
        result: RunResult,
    ) -> None:
        newcomers = [requests[row.request_id] for row in joining]
        conditionings = self._encode(newcomers)
        for row, request in zip(joining, newcomers, strict=True):
            try:
                self._join(slots, row, request, conditionings)
            except Exception:
                logger.exception("a row could not be encoded")
                result.failed[row] = EncodeFailed("the prompt could not be encoded")

    def _encode(self, requests: Sequence[GenerationRequest]) -> dict[Prompt, Conditioning]:
        """All prompts of the newcomers together; if that fails, each row tries alone."""
        prompts = [request.positive for request in requests]
        prompts += [request.negative for request in requests if request.cfg_scale > 1]
        try:
            return self._encoder.encode(prompts)
        except Exception:
            logger.exception("prompts could not be encoded together")
            return {}

    def _join(
        self,
        slots: Slots,
        id: RowId,
        request: GenerationRequest,
        conditionings: Mapping[Prompt, Conditioning],
    ) -> None:
        def conditioning(prompt: Prompt) -> Conditioning:
            return conditionings.get(prompt) or self._encoder.encode([prompt])[prompt]

        schedule, table = self._schedule(request)
        cfg_scales = self._adapter.cfg_scales(request, schedule)
        generator = torch.Generator().manual_seed(request.seeds[id.image])
        noise = self._adapter.initial_noise(slots.key.latent_shape, generator)
        row = Row(
            id=id,
            table=table,
            cfg_scales=cfg_scales,
            generator=generator,
            positive=conditioning(request.positive),
            negative=conditioning(request.negative) if (cfg_scales > 1).any() else None,
            added=self._adapter.added_conditioning(request),
            preview_at=_preview_at(request, schedule.evaluations),
            loras=frozenset(lora.name for lora in request.loras),
        )
        slots.join(row, noise * table.initial_scale)

    def _step(self, slots: Slots, ids: Sequence[RowId], result: RunResult) -> None:
        """One forward and one update. If the forward fails, each half of the rows tries for
        itself, down to the row that is to blame.
        """
        if not ids:
            return
        rows = slots.arrange(ids)
        try:
            batch = slots.forward_batch()
            result.entries += len(batch.latents)
            prediction = self._adapter.predict(batch)
        except Exception as error:
            short = is_out_of_memory(error)
            if len(ids) == 1:
                logger.exception("a denoising step failed")
                reason = (
                    "there is no memory for a denoising step"
                    if short
                    else "a denoising step failed"
                )
                result.failed[ids[0]] = StepFailed(reason)
                return
            logger.warning("a forward of %d rows failed; trying halves: %s", len(ids), error)
            if short:
                result.out_of_memory = len(ids)
                free_cache(self._adapter.device)
            middle = len(ids) // 2
            self._step(slots, ids[:middle], result)
            self._step(slots, ids[middle:], result)
            return
        denoised = slots.advance(prediction, self._fresh_noise(slots, rows))
        for row, latents in zip(rows, denoised, strict=True):
            if row.step in row.preview_at:
                result.previews[row.id] = latents

    def _fresh_noise(self, slots: Slots, rows: Sequence[Row]) -> dict[int, Tensor]:
        shape = slots.key.latent_shape
        return {
            slot: self._adapter.initial_noise(shape, row.generator)
            for slot, row in enumerate(rows)
            if row.takes_noise
        }

    def _schedule(self, request: GenerationRequest) -> tuple[Schedule, StepTable]:
        """Kept for the last requests that differ, since making one takes as long as a small
        model's tick.
        """
        key = (request.sampler, request.steps, request.width, request.height, request.frames)
        if key not in self._schedules:
            if len(self._schedules) >= 256:
                self._schedules.pop(next(iter(self._schedules)))
            schedule = self._adapter.schedule(request)
            self._schedules[key] = schedule, step_table(schedule)
        return self._schedules[key]


def _preview_at(request: GenerationRequest, evaluations: int) -> frozenset[int]:
    """The numbers of evaluations behind the request's preview steps; a second-order sampler has
    two for a step, but for the last.
    """
    return frozenset(
        math.ceil(evaluations * step / request.steps) for step in request.preview_steps
    )
