"""The peers are measured alike, and what is concluded follows from what was measured."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from diffusers import StableDiffusionPipeline
from PIL import Image

from benchmarks.peers.__main__ import take_sweep, write
from benchmarks.peers.api import PATH, Body
from benchmarks.peers.contestants import CONTESTANTS, Contestant
from benchmarks.peers.process import running
from benchmarks.peers.report import Report
from benchmarks.peers.results import Measurement, Results
from benchmarks.peers.settings import Place, Settings
from benchmarks.peers.step_loop import StepLoop
from benchmarks.peers.stock import draw, load_pipeline
from benchmarks.peers.sweep import Choices, Trial, best, sweep
from benchmarks.peers.targets import verdicts
from chairlift.bench.report import create_summary
from chairlift.errors import ConfigurationError
from tests.bench.builders import a_record
from tests.builders import save_tiny_stable_diffusion


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionPipeline:
    folder = save_tiny_stable_diffusion(tmp_path_factory.mktemp("tiny"), steps_offset=1)
    return load_pipeline(str(folder), Settings(threads=1))


def a_body(seed: int, steps: int = 3, guidance_scale: float = 2.0, side: int = 64) -> Body:
    return Body(
        prompt=f"boat {seed}",
        seed=seed,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        size=f"{side}x{side}",
    )


UNEQUAL = (
    a_body(1),
    a_body(2, steps=5),
    a_body(3, guidance_scale=1.0),
    a_body(4),
    a_body(5, guidance_scale=7.0),
    a_body(6, side=32),
)


def assert_same_picture(made: Image.Image, expected: Image.Image) -> None:
    difference = np.abs(np.asarray(made, dtype=int) - np.asarray(expected, dtype=int))
    assert difference.max() <= 1


def test_a_batch_of_unequal_requests_has_the_pictures_of_lone_ones(
    pipeline: StableDiffusionPipeline,
) -> None:
    for body, picture in zip(UNEQUAL, draw(pipeline, UNEQUAL), strict=True):
        assert_same_picture(picture, draw(pipeline, [body])[0])


def test_the_step_loop_draws_what_the_stock_pipeline_draws(
    pipeline: StableDiffusionPipeline,
) -> None:
    async def ride() -> list[Image.Image]:
        loop = StepLoop(pipeline, max_batch_size=4)  # Two have to wait.
        turning = asyncio.create_task(loop.run())
        answers = await asyncio.gather(*(loop.generate(body) for body in UNEQUAL))
        turning.cancel()
        files = [base64.b64decode(answer["data"][0]["b64_json"]) for answer in answers]
        return [Image.open(io.BytesIO(file)) for file in files]

    for body, picture in zip(UNEQUAL, asyncio.run(ride()), strict=True):
        assert_same_picture(picture, draw(pipeline, [body])[0])


def a_trial(throughput: float, mean_s: float = 1.0, **settings: float) -> Trial:
    chosen = replace(Settings(), **settings)  # type: ignore[arg-type]
    return Trial(contestant="ray", settings=chosen, throughput=throughput, mean_s=mean_s)


def test_the_sweep_goes_on_from_the_best_of_each_setting() -> None:
    def attempt(contestant: Contestant, settings: Settings) -> Trial:
        throughput = 10.0 * (settings.max_batch_size == 8) + 5.0 * (settings.processes == 2)
        mean_s = 1.0 + settings.batch_timeout + settings.channels_last
        return Trial(
            contestant=contestant.name, settings=settings, throughput=throughput, mean_s=mean_s
        )

    choices = Choices(
        processes=((1, 2), (2, 1)),
        batch_sizes=(16, 8),
        memory_formats=(True, False),
        batch_timeouts=(0.05, 0.01),
    )
    trials = list(sweep(CONTESTANTS["ray"], choices, attempt))
    assert len(trials) == 5
    assert best(trials).settings == Settings(
        processes=2, threads=1, max_batch_size=8, channels_last=False, batch_timeout=0.01
    )
    tried = {name: len(list(sweep(one, choices, attempt))) for name, one in CONTESTANTS.items()}
    assert tried["lock"] == 3
    assert tried["steps"] == 4
    assert tried["continuous"] == 2


@pytest.mark.parametrize(
    ("throughputs", "chosen"),
    [([10.0, 8.0, 9.0, 11.0], 1), ([10.0, 8.0, 9.0, 7.0], 2), ([10.0, 4.0], 2)],
    ids=["the second is better", "the first is better", "it's clear at once"],
)
def test_numbers_of_processes_that_fare_alike_are_tried_twice(
    throughputs: list[float], chosen: int
) -> None:
    coming = iter(throughputs)

    def attempt(contestant: Contestant, settings: Settings) -> Trial:
        return replace(a_trial(next(coming)), settings=settings)

    choices = Choices(
        processes=((2, 1), (1, 2)), batch_sizes=(16,), memory_formats=(True,), batch_timeouts=(0.1,)
    )
    trials = list(sweep(CONTESTANTS["continuous"], choices, attempt))
    assert [trial.throughput for trial in trials] == throughputs
    assert best(trials).settings.processes == chosen


def test_of_settings_that_serve_as_much_the_lower_latency_is_better() -> None:
    trials = [a_trial(10.0, 2.0), a_trial(9.8, 1.0), a_trial(9.0, 0.1)]
    assert best(trials) is trials[1]


def measurements(workload: str, **seconds: Sequence[float]) -> Results:
    """Four requests at once, which take a contestant so many seconds in each round."""
    return Results(
        [
            Measurement(
                round=number,
                contestant=contestant,
                workload=workload,
                summary=create_summary([a_record(0, finish_s=value)] * 4, planned=4),
            )
            for contestant, values in seconds.items()
            for number, value in enumerate(values)
        ]
    )


def test_ratios_are_taken_within_rounds() -> None:
    results = measurements("at-once", lock=[3.0, 30.0, 6.0], continuous=[1.0, 10.0, 3.0])
    ratio = results.ratio("at-once", "continuous", "lock", "throughput")
    assert ratio is not None
    assert (ratio.median, ratio.least, ratio.greatest) == pytest.approx((3.0, 2.0, 3.0))


@pytest.mark.parametrize(
    ("workload", "seconds", "missed"),
    [
        ("at-once", 1.0, []),
        ("at-once", 2.0, [("lock", 2.2)]),
        ("at-once", 2.5, [("lock", 2.2), ("ray", 1.0), ("ray", 0.97)]),
        ("steps", 1.0, []),
        ("steps", 1.9, [("ray", 1.5)]),
        ("poisson-0.7", 1.0, []),
        ("poisson-0.7", 1.4, [("ray", 0.6), ("ray", 0.6)]),
        ("poisson-0.7", 2.1, [("ray", 0.6), ("ray", 0.6), ("ray", 1.03), ("ray", 1.03)]),
    ],
)
def test_targets_are_judged_beside_the_peer_that_is_hardest_to_beat(
    workload: str, seconds: float, missed: list[tuple[str, float]]
) -> None:
    results = measurements(workload, lock=[4.0], ray=[2.0], continuous=[seconds])
    found = list(verdicts(results, ["lock", "ray"]))
    assert len(found) >= 2
    titles = [(CONTESTANTS[name].title, bound) for name, bound in missed]
    assert [(one.against, one.bound) for one in found if not one.is_hit] == titles


@pytest.mark.parametrize("processes", [1, 2])
def test_a_contestant_that_does_not_start_is_told_with_what_it_said(processes: int) -> None:
    broken = Contestant(
        name="broken", title="", module="benchmarks.peers.missing", is_balanced=True
    )
    with (
        pytest.raises(RuntimeError, match=r"broken is not ready.*(\n.*)*No module named"),
        running(broken, Settings(processes=processes), folder="", python=Path()),
    ):
        pass


def test_a_balancer_gives_requests_to_all_processes_in_turn_once_all_are_ready() -> None:
    peer = Contestant(
        name="names", title="", module="tests.benchmarks.name_server", is_balanced=True
    )
    with running(peer, Settings(processes=2), folder="", python=Path()) as url:
        names = [httpx.post(url + PATH, content=b"{}").text for _ in range(6)]
    assert len(set(names)) == 2
    assert names == 3 * names[:2]
    assert not any(psutil.pid_exists(int(name)) for name in names)


def test_chairlift_has_as_many_workers_as_processes_and_chooses_its_threads() -> None:
    place = Place(port=1, folder="model", temporary="own")
    command = CONTESTANTS["continuous"].command(place, Settings(processes=2), Path())
    assert command[command.index("--workers") + 1] == "2"
    assert not any("threads" in word for word in command)


def a_report() -> Report:
    report = Report(machine="a machine", versions={})
    report.add_trial(a_trial(10.0, processes=1))
    report.add_trial(a_trial(13.0, processes=2))
    report.add_trial(replace(a_trial(20.0, processes=2), contestant="continuous"))
    return report


def test_capacity_is_what_the_best_peer_serves_and_not_chairlift() -> None:
    report = a_report()
    assert report.capacity == 13.0
    assert {name: one.processes for name, one in report.settings.items()} == {
        "ray": 2,
        "continuous": 2,
    }
    assert "| chairlift continuous | 2 | – | – | – | – | **20.00** | 1.00 |" in report.lines()


def test_a_run_can_take_the_sweep_of_one_that_was_cut_off(tmp_path: Path) -> None:
    swept, report = a_report(), Report(machine="a machine", versions={})
    write(swept, tmp_path)
    take_sweep(report, tmp_path / "results.json", ["ray"])
    assert report.trials == swept.trials[:2]
    assert report.settings == {"ray": swept.settings["ray"]}
    assert report.capacity == 13.0
    with pytest.raises(ConfigurationError, match=r"results.json has no settings of lock, steps"):
        take_sweep(report, tmp_path / "results.json", ["lock", "ray", "steps"])
