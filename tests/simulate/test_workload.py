"""Jobs: files, mixes, patterns of arrival, and the capacity that loads are shares of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from chairlift.errors import ConfigurationError
from chairlift.scheduling.costs import Costs, Shape
from chairlift.simulate.arrivals import DAY, create_source
from chairlift.simulate.names import MIX_NAMES
from chairlift.simulate.workload import MIXES, Job, alone, capacity, read_jobs
from tests.simulate.builders import QWEN, TABLE, a_job

GOOD = {"arrival_s": 1.5, "width": 512, "height": 256, "steps": 20}


def drawn(
    pattern: str, rate: float = 2.0, count: int = 4000, seed: int = 1, mix: str = "C"
) -> list[Job]:
    source = create_source(pattern, MIXES[mix], rate, count, seed)
    return [source.pop() for _ in range(count)]


def test_the_capacity_is_that_of_forwards_filled_to_the_knee() -> None:
    costs = Costs(QWEN)
    knees = [costs.step(Shape(side, side)).knee(32) for side in (512, 1024)]
    assert knees == [8, 1]
    small, large = 35 * 0.425 / 8, 35 * 0.243
    assert capacity(costs, MIXES["qwen"]) == pytest.approx(2 / (small + large))
    assert capacity(costs, MIXES["qwen"]) == pytest.approx(0.193, abs=0.0005)


def test_alone_is_the_best_way_to_batch_a_jobs_rows() -> None:
    assert alone(Costs(TABLE), a_job(steps=3)) == pytest.approx(0.5 + 3 * 1.0 + 1.0)
    assert alone(Costs(TABLE), a_job(steps=3, n=3)) == pytest.approx(1.5 + 3 * 1.4 + 3.0)
    job = a_job(steps=35, side=1024, n=3)
    assert alone(Costs(QWEN), job) == pytest.approx(3 * 0.18 + 35 * 0.711)


@pytest.mark.parametrize("pattern", ["poisson", "gamma", "on-off"])
def test_patterns_have_the_rate_that_was_asked_for(pattern: str) -> None:
    jobs = drawn(pattern, rate=2.0, count=40_000)
    assert 40_000 / jobs[-1].arrival_s == pytest.approx(2.0, rel=0.05)
    times = [job.arrival_s for job in jobs]
    assert times == sorted(times)


def test_a_day_is_quiet_at_its_beginning_and_busy_in_its_middle() -> None:
    days = 20
    jobs = drawn("day", rate=2000 / DAY, count=2000 * days)
    assert jobs[-1].arrival_s / DAY == pytest.approx(days, rel=0.05)
    quarters = np.array([job.arrival_s for job in jobs]) % DAY // (DAY / 4)
    night, morning, evening, late = np.bincount(quarters.astype(int))
    assert night == pytest.approx(late, rel=0.15)
    assert morning == pytest.approx(evening, rel=0.15)
    assert 1.8 < (morning + evening) / (night + late) < 2.8


def test_a_day_has_floods() -> None:
    times = np.array([job.arrival_s for job in drawn("day", rate=0.5, count=40_000)])
    minutes = np.bincount((times // 60).astype(int))
    hours = minutes[: len(minutes) // 60 * 60].reshape(-1, 60)
    assert (hours.max(axis=1) > 2.2 * np.median(hours, axis=1)).mean() > 0.25


@pytest.mark.parametrize(
    ("pattern", "least", "most"), [("poisson", 0.95, 1.05), ("gamma", 1.9, 2.1), ("on-off", 1.5, 5)]
)
def test_patterns_differ_in_how_bursty_they_are(pattern: str, least: float, most: float) -> None:
    gaps = np.diff([job.arrival_s for job in drawn(pattern, count=40_000)])
    assert least <= gaps.std() / gaps.mean() <= most


def test_a_seed_draws_the_same_jobs_at_every_rate() -> None:
    def things(jobs: list[Job]) -> list[tuple[object, ...]]:
        return [(job.shape, job.steps, job.caller) for job in jobs]

    assert drawn("poisson") == drawn("poisson")
    assert drawn("poisson", seed=2) != drawn("poisson")
    assert things(drawn("gamma", rate=5.0)) == things(drawn("poisson"))


@pytest.mark.parametrize("mix", MIX_NAMES)
def test_mixes_have_their_shares(mix: str) -> None:
    jobs = drawn("poisson", count=8000, mix=mix)
    for kind in MIXES[mix]:
        own = [job for job in jobs if job.width == kind.side]
        assert len(own) / len(jobs) == pytest.approx(kind.weight, abs=0.02)
        assert {job.steps for job in own} == set(range(kind.least_steps, kind.most_steps + 1))


def test_an_unknown_pattern_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="must be one of poisson, gamma, on-off, day"):
        drawn("sometimes")


# ---------------------------------------------------------------------- files


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_file_is_read_in_order_of_arrival(tmp_path: Path) -> None:
    full = GOOD | {"arrival_s": 0, "frames": 9, "n": 2, "deadline_s": None, "priority": -1}
    path = write(tmp_path / "jobs", json.dumps(GOOD), "", json.dumps(full | {"caller": "me"}))
    first, second = read_jobs(path)
    assert first == Job(
        arrival_s=0, width=512, height=256, frames=9, steps=20, n=2, priority=-1, caller="me"
    )
    assert second == Job(arrival_s=1.5, width=512, height=256, steps=20)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Expecting property name"),
        ("[]", "it is not a JSON object"),
        (json.dumps(GOOD | {"colour": 1}), "there is no field 'colour'; the fields are"),
        (json.dumps({"arrival_s": 0, "width": 8, "height": 8}), "steps is missing"),
        (json.dumps(GOOD | {"steps": 0}), "steps is 0; it must be a whole number from 1 on"),
        (json.dumps(GOOD | {"width": 1.5}), "width is 1.5; it must be a whole number"),
        (json.dumps(GOOD | {"n": True}), "n is True; it must be a whole number"),
        (json.dumps(GOOD | {"arrival_s": -1}), "arrival_s is -1; it must be from 0 to 1e+09"),
        (json.dumps(GOOD | {"arrival_s": None}), "arrival_s is None; it must be from 0 to 1e+09"),
        (
            json.dumps(GOOD | {"arrival_s": 1e300}),
            "arrival_s is 1e+300; it must be from 0 to 1e+09",
        ),
        (json.dumps(GOOD | {"deadline_s": float("nan")}), "deadline_s is nan; it must be from"),
        (json.dumps(GOOD | {"priority": "high"}), "priority is 'high'; it must be a whole number"),
        (json.dumps(GOOD | {"priority": 11}), "priority is 11; it must be a whole number from -10"),
        (json.dumps(GOOD | {"caller": 1}), "caller is 1; it must be a string"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "jobs", json.dumps(GOOD), line)
    with pytest.raises(ConfigurationError) as refusal:
        read_jobs(path)
    assert f"{path}, line 2: " in str(refusal.value)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_file_without_jobs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="has no jobs"):
        read_jobs(write(tmp_path / "jobs", ""))
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_jobs(tmp_path / "missing")
