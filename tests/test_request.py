"""The life of a row, and what a request may say."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from chairlift.errors import IllegalTransition, InvalidRequest
from chairlift.request import TRANSITIONS, RowId, Status, transition
from chairlift.validation import MAX_SEED, create_request
from tests.builders import a_request, create_card, create_video_card

PATH = [Status.WAITING, Status.ENCODING, Status.DENOISING, Status.DECODING, Status.FINISHED]


def test_a_row_goes_from_waiting_to_finished() -> None:
    for old, new in pairwise(PATH):
        assert transition(old, new) is new


@pytest.mark.parametrize("end", [Status.CANCELLED, Status.FAILED])
@pytest.mark.parametrize("status", PATH[:-1])
def test_a_row_may_be_cancelled_or_fail_in_every_phase(status: Status, end: Status) -> None:
    assert transition(status, end) is end


@pytest.mark.parametrize("old", Status)
@pytest.mark.parametrize("new", Status)
def test_every_other_move_raises(old: Status, new: Status) -> None:
    forward = old in PATH[:-1] and new is PATH[PATH.index(old) + 1]
    ending = not old.is_terminal and new in (Status.CANCELLED, Status.FAILED)
    if forward or ending:
        assert new in TRANSITIONS[old]
    else:
        with pytest.raises(IllegalTransition, match=f"from {old.name} to {new.name}"):
            transition(old, new)


def test_terminal_statuses_come_last() -> None:
    assert [status for status in Status if status.is_terminal] == list(Status)[4:]


def test_defaults_are_the_models() -> None:
    request, defaults = a_request(), create_card().defaults
    assert (request.width, request.height) == (defaults.width, defaults.height)
    assert (request.steps, request.sampler) == (defaults.steps, defaults.sampler)
    assert request.guidance_scale == defaults.guidance_scale


def test_image_i_has_seed_plus_i() -> None:
    request = a_request("x", seed=40, n=3)
    assert request.seeds == (40, 41, 42)
    assert request.row_ids == (RowId("x", 0), RowId("x", 1), RowId("x", 2))


@pytest.mark.parametrize("seed", [None, -1])
def test_no_seed_is_a_random_one(seed: int | None) -> None:
    assert len({a_request(seed=seed).seed for _ in range(20)}) > 15


@pytest.mark.parametrize(
    ("settings", "param", "message"),
    [
        ({"n": 0}, "n", "n is 0; it must be from 1 to 10"),
        ({"n": 11}, "n", "n is 11; it must be from 1 to 10"),
        (
            {"width": 65},
            "size",
            "size is 65x64; each side must be a multiple of 8, the nearest is 64x64",
        ),
        ({"width": 0}, "size", "the nearest is 8x64"),
        ({"height": -8}, "size", "size is 64x-8"),
        ({"width": 65536, "height": 65536}, "size", "at most 262144 are allowed"),
        ({"steps": 0}, "num_inference_steps", "is 0; it must be from 1 to 200"),
        ({"steps": 10_000}, "num_inference_steps", "is 10000; it must be from 1 to 200"),
        ({"guidance_scale": float("nan")}, "guidance_scale", "is nan; it must be a finite number"),
        ({"guidance_scale": float("inf")}, "guidance_scale", "is inf; it must be a finite number"),
        ({"guidance_scale": 1e9}, "guidance_scale", "it must be from 0.0 to 100.0"),
        ({"guidance_scale": -0.1}, "guidance_scale", "is -0.1"),
        ({"seed": -2}, "seed", "seed is -2"),
        ({"seed": 2**70}, "seed", f"it must be from 0 to {MAX_SEED}"),
        ({"seed": MAX_SEED, "n": 2}, "seed", f"it must be from 0 to {MAX_SEED - 1}"),
        ({"sampler": "magic"}, "sampler", "sampler is 'magic'; it must be one of euler"),
        ({"output_format": "gif"}, "output_format", "it must be one of png, jpeg, webp"),
        ({"output_compression": 101}, "output_compression", "it must be from 0 to 100"),
        ({"prompt": "x" * 32_001}, "prompt", "has 32001 characters; at most 32000"),
        ({"prompt": "\ud800"}, "prompt", "lone surrogate at character 0"),
        ({"negative_prompt": "ab\udfff"}, "negative_prompt", "lone surrogate at character 2"),
    ],
)
def test_a_value_out_of_bounds_is_refused(
    settings: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        a_request(**settings)
    assert caught.value.param == param
    assert message in caught.value.message
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "settings",
    [
        {"n": 10},
        {"width": 512, "height": 512},
        {"width": 8, "height": 8},
        {"steps": 200},
        {"guidance_scale": 0.0},
        {"guidance_scale": 100.0},
        {"seed": 0},
        {"seed": MAX_SEED},
        {"prompt": ""},
        {"prompt": "x" * 32_000},
    ],
)
def test_the_bounds_themselves_are_allowed(settings: dict[str, Any]) -> None:
    request = a_request(**settings)
    assert all(getattr(request, name) == value for name, value in settings.items())


def test_a_video_model_whose_default_is_one_frame_makes_videos() -> None:
    card = create_video_card()
    card = replace(card, defaults=replace(card.defaults, frames=1))
    request = create_request(card, id="a", prompt="")
    assert (request.frames, request.output_format) == (1, "mp4")
