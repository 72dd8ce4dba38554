"""The batch tensors follow their rows through joining, resting and leaving."""

from __future__ import annotations

import random

import numpy as np
import torch

from chairlift.engine.slots import Row, Slots
from chairlift.models.adapter import Conditioning
from chairlift.request import RowId
from chairlift.sampling.samplers import step_table
from chairlift.sampling.schedule import diffusion_schedule
from chairlift.scheduling.batch_key import BatchKey

SHAPE = (2, 3, 3)


def create_slots(capacity: int = 6) -> Slots:
    return Slots(
        BatchKey("model", SHAPE, "text"),
        capacity=capacity,
        max_evaluations=20,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def join(slots: Slots, number: int, guided: bool = True, steps: int = 10) -> RowId:
    """A row whose every tensor holds its number, and its negative side minus that."""
    id = RowId(str(number), 0)
    row = Row(
        id=id,
        table=step_table(diffusion_schedule("ddim", steps, {})),
        cfg_scales=np.full(steps, 1.0 + number if guided else 1.0, dtype=np.float32),
        generator=torch.Generator(),
        positive=conditioning(float(number), length=1 + number % 5),
        negative=conditioning(-float(number), length=1 + number % 3) if guided else None,
        added={"size": torch.tensor(float(number))},
    )
    slots.join(row, torch.full(SHAPE, float(number)))
    return id


def conditioning(value: float, length: int) -> Conditioning:
    return Conditioning(
        {"text": torch.full((4,), value)}, {"words": torch.full((length, 2), value)}
    )


def check(slots: Slots, running: list[RowId]) -> None:
    """The forward's input holds exactly these rows, each side in its place."""
    rows = slots.arrange(running)
    assert {row.id for row in rows} == set(running)
    batch = slots.forward_batch()
    numbers = [float(row.id.request_id) for row in rows]
    assert [row.guided for row in rows] == sorted((row.guided for row in rows), reverse=True)
    assert batch.guided == sum(row.guided for row in rows)
    assert len(batch.latents) == batch.guided + len(rows)
    assert (batch.cfg_scales.flatten() - 1).tolist() == numbers[: batch.guided]
    words = [unpadded.flatten().tolist() for unpadded in batch.sequences["words"].unpad()]
    for place, number in enumerate(numbers):
        positive, negative = batch.guided + place, batch.guided - 1 - place
        assert batch.conditioning["text"][positive].tolist() == [number] * 4
        assert batch.conditioning["size"][positive] == number
        assert words[positive] == [number] * 2 * (1 + int(number) % 5)
        assert bool((batch.latents[positive] == number).all())
        if place < batch.guided:
            assert batch.conditioning["text"][negative].tolist() == [-number] * 4
            assert batch.conditioning["size"][negative] == number
            assert words[negative] == [-number] * 2 * (1 + int(number) % 3)
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
    _, latents, history = slots.state(good)
    assert bool(latents.isfinite().all())
    assert bool(history.isfinite().all())


def test_sequences_are_cut_to_the_longest_aboard_and_zero_past_their_ends() -> None:
    slots = create_slots()
    ids = [join(slots, number, guided=False) for number in (4, 1)]
    slots.arrange(ids)
    words = slots.forward_batch().sequences["words"]
    assert words.lengths == (5, 2)
    assert words.mask is not None
    assert words.mask.tolist() == [[True] * 5, [True] * 2 + [False] * 3]
    assert words.values[1, 2:].abs().sum() == 0
    slots.leave({ids[0]})
    later = join(slots, 6, guided=False)  # In the slot of the longer one.
    slots.arrange([ids[1], later])
    words = slots.forward_batch().sequences["words"]
    assert words.values.shape[1] == 2
    assert words.mask is None


def test_a_row_takes_its_step_and_its_memory_to_another_group() -> None:
    first, second = create_slots(), create_slots()
    row = join(first, 1, guided=False)
    for _ in range(3):
        first.arrange([row])
        first.forward_batch()
        first.advance(torch.ones(1, *SHAPE), {})
    state = first.state(row)
    first.leave({row})
    neighbour = join(second, 2, guided=False)
    second.join(*state)
    second.arrange([row])
    assert second.forward_batch().timesteps.tolist() == [
        diffusion_schedule("ddim", 10, {}).timesteps[3]
    ]
    second.arrange([neighbour, row])
    batch = second.forward_batch()
    assert len(batch.latents) == 2
    assert torch.equal(second.state(row)[1], state[1])


def test_a_row_is_guided_only_in_the_steps_that_say_so() -> None:
    slots = create_slots()
    id = join(slots, 1, guided=True)
    slots.rows[0].cfg_scales[1:] = 1.0
    slots.arrange([id])
    assert slots.forward_batch().guided == 1
    slots.advance(torch.zeros(1, *SHAPE), {})
    slots.arrange([id])
    assert slots.forward_batch().guided == 0


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
