"""What is sent, and when."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chairlift.bench.kinds import Kind, named_mix, read_mix
from chairlift.bench.prompts import draw_prompts, read_prompts
from chairlift.bench.requests import replay_requests
from chairlift.errors import ConfigurationError
from chairlift.simulate.arrivals import create_source
from chairlift.simulate.workload import MIXES, Job
from tests.bench.builders import planned

TWO_KINDS = (Kind(weight=3, steps=(10, 20)), Kind(weight=1, width=64, height=32))


def test_a_seed_says_all() -> None:
    plan = planned(50, *TWO_KINDS, rate=2.0, seed=7)
    assert planned(50, *TWO_KINDS, rate=2.0, seed=7) == plan
    other = planned(50, *TWO_KINDS, rate=2.0, seed=8)
    assert [one.arrival_s for one in other] != [one.arrival_s for one in plan]
    assert [one.kind for one in other] != [one.kind for one in plan]


def test_the_rate_changes_when_and_not_what() -> None:
    slow, fast = planned(50, *TWO_KINDS, rate=1.0), planned(50, *TWO_KINDS, rate=4.0)
    assert [one.body for one in slow] == [one.body for one in fast]
    arrivals = np.array([one.arrival_s for one in fast])
    assert np.allclose([one.arrival_s for one in slow], 4 * arrivals)


def test_without_a_rate_all_come_at_once() -> None:
    assert {one.arrival_s for one in planned(20)} == {0.0}


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_burstiness_is_the_shape_of_the_times_between(burstiness: float) -> None:
    plan = planned(20_000, rate=5.0, burstiness=burstiness)
    between = np.diff([one.arrival_s for one in plan])
    assert between.mean() == pytest.approx(1 / 5, rel=0.05)
    variation = between.std() / between.mean()
    assert variation == pytest.approx(1 / math.sqrt(burstiness), rel=0.1)


def test_mixes_keep_their_shares_and_steps_their_bounds() -> None:
    plan = planned(4000, *TWO_KINDS)
    first = [one for one in plan if one.kind == TWO_KINDS[0]]
    assert len(first) / len(plan) == pytest.approx(0.75, abs=0.03)
    assert {one.steps for one in first} == set(range(10, 21))
    assert {one.steps for one in plan if one.kind == TWO_KINDS[1]} == {None}


def test_the_simulators_mixes_are_its_very_jobs() -> None:
    source = create_source("poisson", MIXES["C"], rate=2.0, requests=30, seed=5)
    jobs = [source.pop() for _ in range(30)]
    plan = planned(30, *named_mix("C", Kind()), rate=2.0, seed=5)
    assert [(one.arrival_s, one.kind.width, one.steps) for one in plan] == [
        (job.arrival_s, job.width, job.steps) for job in jobs
    ]


def test_a_body_has_what_was_given_and_nothing_else() -> None:
    [bare] = planned(1)
    assert list(bare.body) == ["prompt"]
    kind = Kind(
        width=64, height=32, steps=(5, 5), n=2, guidance_scale=0.0, negative_prompt="fog",
        deadline_s=1.5, priority=0, caller="me", model="m", extra_body={"sampler": "ddim"},
    )  # fmt: skip
    assert kind.body("a boat", 5) == {
        "prompt": "a boat",
        "model": "m",
        "n": 2,
        "size": "64x32",
        "num_inference_steps": 5,
        "guidance_scale": 0.0,
        "negative_prompt": "fog",
        "deadline_ms": 1500.0,
        "priority": 0,
        "user": "me",
        "sampler": "ddim",
    }


def test_an_extra_field_that_is_set_already_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'size' is in the extra body, and set already"):
        Kind(width=64, height=64, extra_body={"size": "32x32"})


def test_kinds_that_differ_have_names_that_differ() -> None:
    kinds = [
        Kind(),
        Kind(width=64, height=64),
        Kind(width=64, height=64, steps=(5, 5)),
        Kind(width=64, height=64, steps=(5, 9)),
        Kind(width=64, height=64, n=2),
        Kind(width=64, height=64, guidance_scale=1.0),
        Kind(width=64, height=64, negative_prompt="fog"),
        Kind(width=64, height=64, deadline_s=2.0),
        Kind(width=64, height=64, priority=1),
        Kind(width=64, height=64, extra_body={"sampler": "ddim"}),
    ]
    assert len({kind.name for kind in kinds}) == len(kinds)


# ---------------------------------------------------------------------- a workload


def test_a_workload_is_sent_as_it_is() -> None:
    jobs = [
        Job(arrival_s=0.5, width=64, height=64, steps=5, caller="me"),
        Job(arrival_s=2.0, width=64, height=32, steps=9, n=2, deadline_s=3.0, priority=1),
    ]
    plan = replay_requests(jobs, Kind(guidance_scale=2.0), draw_prompts(1))
    assert [one.arrival_s for one in plan] == [0.5, 2.0]
    assert [one.group for one in plan] == ["64x64, guidance 2", "64x32, n 2, guidance 2"]
    bodies = [{name: one.body[name] for name in one.body.keys() - {"prompt"}} for one in plan]
    assert bodies == [
        {"size": "64x64", "num_inference_steps": 5, "guidance_scale": 2.0, "user": "me"},
        {
            "size": "64x32",
            "num_inference_steps": 9,
            "guidance_scale": 2.0,
            "n": 2,
            "deadline_ms": 3000.0,
            "priority": 1,
        },
    ]


def test_a_workload_of_videos_is_refused() -> None:
    job = Job(arrival_s=0.0, width=64, height=64, frames=9, steps=5)
    with pytest.raises(ConfigurationError, match="frames is 9 in the workload; it must be 1"):
        replay_requests([job], Kind(), draw_prompts(1))


# ---------------------------------------------------------------------- a mix


def test_a_mix_takes_what_it_leaves_out_from_the_flags(tmp_path: Path) -> None:
    path = tmp_path / "mix"
    lines = [
        {"weight": 3, "width": 64, "height": 64, "steps": [5, 9]},
        {"steps": 7, "extra_body": {"sampler": "ddim"}},
    ]
    path.write_text("\n\n".join(json.dumps(line) for line in lines))
    default = Kind(width=32, height=32, guidance_scale=1.0, extra_body={"seed": 1})
    assert read_mix(path, default) == [
        Kind(
            weight=3, width=64, height=64, steps=(5, 9), guidance_scale=1.0, extra_body={"seed": 1}
        ),
        Kind(
            width=32,
            height=32,
            steps=(7, 7),
            guidance_scale=1.0,
            extra_body={"seed": 1, "sampler": "ddim"},
        ),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], "it is not a JSON object"),
        ({"size": 5}, "there is no field 'size'; the fields are"),
        ({"weight": 0}, "weight is 0; it must be a number above 0"),
        ({"steps": 0}, "steps is 0; it must be a whole number from 1 on, or"),
        ({"steps": [9, 5]}, r"steps is \[9, 5\]; it must be a whole number from 1 on, or"),
        ({"steps": [1, 2, 3]}, "it must be a whole number from 1 on, or"),
        ({"steps": True}, "steps is True; it must be a whole number"),
        ({"width": 1.5, "height": 2}, "width is 1.5; it must be a whole number from 1 on"),
        ({"width": 64}, "width is 64 and height None; both must be given, or neither"),
        ({"guidance_scale": "2"}, "guidance_scale is '2'; it must be 0 or more"),
        ({"negative_prompt": 5}, "negative_prompt is 5; it must be a string"),
        ({"extra_body": 5}, "extra_body is 5; it must be an object"),
        ({"extra_body": {"prompt": "a"}}, "'prompt' is in the extra body, and set already"),
        ({"priority": 0.5}, "priority is 0.5; it must be a whole number"),
    ],
)
def test_a_wrong_line_of_a_mix_is_refused(tmp_path: Path, line: Any, message: str) -> None:
    path = tmp_path / "mix"
    path.write_text(json.dumps(line))
    with pytest.raises(ConfigurationError, match=f"^{re.escape(str(path))}, line 1: .*{message}"):
        read_mix(path, Kind())


# ---------------------------------------------------------------------- prompts


def test_no_prompt_comes_twice() -> None:
    prompt = draw_prompts(1)
    assert len({prompt(number) for number in range(5000)}) == 5000
    assert prompt(0) != draw_prompts(2)(0)


def test_prompts_of_a_file_come_in_order_and_again(tmp_path: Path) -> None:
    path = tmp_path / "prompts"
    path.write_text("\ufeffa boat\n\n  a tent \n")
    prompt = read_prompts(path)
    assert [prompt(number) for number in range(3)] == ["a boat", "a tent", "a boat"]


def test_a_file_without_prompts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts"
    path.write_text("\n")
    with pytest.raises(ConfigurationError, match="has no prompts"):
        read_prompts(path)
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_prompts(tmp_path / "nothing")
