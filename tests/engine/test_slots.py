"""The batch tensors follow their rows through joining, resting and leaving."""

from __future__ import annotations

import random

import torch

from chairlift.engine.slots import Row, Slots
from chairlift.models.adapter import Conditioning
from chairlift.request import RowId
from chairlift.sampling.samplers import step_table
from chairlift.sampling.schedule import diffusion_schedule

SHAPE = (2, 3, 3)


def create_slots(capacity: int = 6) -> Slots:
    return Slots(
        capacity=capacity,
        latent_shape=SHAPE,
        max_evaluations=20,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def join(slots: Slots, number: int, guided: bool = True, steps: int = 10) -> RowId:
    """A row whose every tensor holds its number, and its negative side minus that."""
    id = RowId(str(number), 0)
    row = Row(
        id=id,
        guidance_scale=float(number),
        guided=guided,
        table=step_table(diffusion_schedule("ddim", steps, {})),
        generator=torch.Generator(),
    )
    text = Conditioning({"text": torch.full((4,), float(number))})
    negative = Conditioning({"text": torch.full((4,), -float(number))}) if guided else None
    slots.join(row, torch.full(SHAPE, float(number)), text, negative)
    return id


def check(slots: Slots, running: list[RowId]) -> None:
    """The forward's input holds exactly these rows, each side in its place."""
    rows = slots.arrange(running)
    assert {row.id for row in rows} == set(running)
    batch = slots.forward_batch()
    numbers = [float(row.id.request_id) for row in rows]
    assert [row.guided for row in rows] == sorted((row.guided for row in rows), reverse=True)
    assert batch.guided == sum(row.guided for row in rows)
    assert len(batch.latents) == batch.guided + len(rows)
    assert batch.guidance_scales.flatten().tolist() == numbers[: batch.guided]
    for place, number in enumerate(numbers):
        positive, negative = batch.guided + place, batch.guided - 1 - place
        assert batch.conditioning["text"][positive].tolist() == [number] * 4
        assert bool((batch.latents[positive] == number).all())
        if place < batch.guided:
            assert batch.conditioning["text"][negative].tolist() == [-number] * 4
            assert bool((batch.latents[negative] == number).all())
            assert batch.timesteps[negative] == batch.timesteps[positive]


def test_guided_rows_are_in_front_and_mirrored() -> None:
    slots = create_slots()
    ids = [join(slots, number, guided=number % 2 == 0) for number in range(1, 6)]
    check(slots, ids)


def test_some_rows_may_rest() -> None:
    slots = create_slots()
    ids = [join(slots, number, guided=number % 2 == 0) for number in range(1, 7)]
    check(slots, [ids[5], ids[2]])
    check(slots, [ids[0]])
    check(slots, ids)


def test_a_leaving_row_takes_only_its_own_with_it() -> None:
    slots = create_slots()
    ids = [join(slots, number) for number in range(1, 6)]
    slots.leave({ids[0], ids[3]})
    assert len(slots) == 3
    check(slots, [ids[1], ids[2], ids[4]])


def test_a_row_keeps_its_own_step_while_others_come_and_go() -> None:
    slots = create_slots()
    first = join(slots, 1, guided=False)
    slots.arrange([first])
    start = slots.forward_batch().timesteps.tolist()
    slots.advance(torch.zeros(1, *SHAPE), {})
    second = join(slots, 2, guided=True, steps=5)
    rows = slots.arrange([first, second])
    batch = slots.forward_batch()
    by_row = dict(
        zip((row.id for row in rows), batch.timesteps[batch.guided :].tolist(), strict=True)
    )
    schedule = diffusion_schedule("ddim", 10, {})
    assert start == [schedule.timesteps[0]]
    assert by_row[first] == schedule.timesteps[1]
    assert by_row[second] == diffusion_schedule("ddim", 5, {}).timesteps[0]


def test_a_new_row_inherits_nothing_from_a_failed_one() -> None:
    slots = create_slots(capacity=1)
    bad = join(slots, 1, guided=False)
    slots.arrange([bad])
    slots.forward_batch()
    slots.advance(torch.full((1, *SHAPE), torch.nan), {0: torch.full(SHAPE, torch.nan)})
    slots.leave({bad})
    good = join(slots, 2, guided=False)
    slots.arrange([good])
    slots.forward_batch()
    slots.advance(torch.zeros(1, *SHAPE), {0: torch.zeros(SHAPE)})
    assert bool(slots.latents(good).isfinite().all())


def test_random_comings_and_goings() -> None:
    rng = random.Random(0)
    slots, aboard, number = create_slots(), list[RowId](), 0
    for _ in range(300):
        if len(aboard) < slots.capacity and rng.random() < 0.6:
            number += 1
            aboard.append(join(slots, number, guided=rng.random() < 0.5))
        elif aboard:
            leaving = rng.sample(aboard, rng.randint(1, len(aboard)))
            slots.leave(set(leaving))
            aboard = [row for row in aboard if row not in leaving]
        if aboard:
            check(slots, rng.sample(aboard, rng.randint(1, len(aboard))))
