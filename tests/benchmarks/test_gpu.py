"""The benchmark of a GPU runs from start to end on small models, and judges what it measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.__main__ import main
from benchmarks.gpu.figures import Figures, Outcome, steady_part
from benchmarks.gpu.loads import poisson_times
from benchmarks.gpu.results import Load, Measurement, Size, closed_load, poisson_load
from benchmarks.gpu.settings import CONTINUOUS, OFF, Mode
from benchmarks.gpu.targets import verdicts
from chairlift.models.dummy import WORDS
from tests.builders import save_tiny_stable_diffusion
from tests.tiny.flux import save_tiny_flux
from tests.tiny.qwen_image import save_tiny_qwen_image
from tests.tiny.z_image import save_tiny_z_image

BATCHING = ("off", "dynamic", "continuous")
SMALL = [
    *("--steps", "2", "--rows", "1", "2", "--repeats", "1", "--seconds", "0", "--pictures", "3"),
    *("--clients", "3", "--at-once", "4", "--loads", "0.7", "0.9", "--batch-sizes", "2"),
]
FIGURES = {"pictures", "throughput", "mean_s", "p50_s", "p99_s", "slowdown", "tick_rows"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    made = [
        save_tiny_flux(folder / "flux"),
        save_tiny_qwen_image(folder / "qwen"),
        save_tiny_z_image(folder / "z-image-turbo"),
        save_tiny_stable_diffusion(folder / "sd", steps_offset=1),
    ]
    keep_only_configs(made[0])
    return [str(one) for one in made]


def keep_only_configs(folder: Path) -> None:
    """As if its weights weren't at hand; with a vocabulary for the tokenizers' stand-ins."""
    for weights in folder.glob("*/*.safetensors"):
        weights.unlink()
    for encoder in ("text_encoder", "text_encoder_2"):
        path = folder / encoder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": WORDS}))


def figures_by_load(size: dict[str, Any], batching: str) -> dict[str, dict[str, float]]:
    """Of a size in the JSON."""
    return {
        one["load"]["name"]: one["figures"]
        for one in size["measurements"]
        if one["mode"]["batching"] == batching
    }


def test_it_runs_from_start_to_end_on_small_models(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--models", *models, "--sizes", "32", "64", "--large", "64", "-o", str(tmp_path)]
    assert main([*where, *SMALL]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["is_whole"]
    assert [model["model"] for model in results["models"]] == models
    assert [model["guided"] for model in results["models"]] == [False, True, False, True]
    for model in results["models"]:
        assert [size["width"] for size in model["sizes"]] == [32, 64]
        for size in model["sizes"]:
            check_size(size)
    report = (tmp_path / "results.md").read_text()
    assert report.count("of the bare loop at the knee: at least 0.95; it is") == len(models)
    assert report.count("p99, of that of the best dynamic: at most 0.50; it is") == len(models)
    assert report.count("mean latency, of that of off: at most 1.00; it is") == len(models)
    printed = capsys.readouterr().out
    assert report in printed
    assert "dynamic, 2 rows, 0 ms, Poisson 0.7: " in printed


def check_size(size: dict[str, Any]) -> None:
    """Everything was measured, and everything is a number that can be."""
    assert size["step_seconds"].keys() == {"1", "2"}
    assert size["knee"] in (1, 2)
    assert min(size["bare_pictures_per_s"], size["alone_s"], size["gain"]) > 0
    assert size["error"] is None
    loads = {"3 clients", "Poisson 0.7", "Poisson 0.9"}
    loads |= set() if size["is_large"] else {"4 at once"}
    for batching in BATCHING:
        figures = figures_by_load(size, batching)
        assert figures.keys() == loads
        for one in figures.values():
            assert one.keys() == FIGURES
            assert min(one.values()) > 0
            assert one["p50_s"] <= one["p99_s"]
    assert all(one["failed"] == 0 for one in size["measurements"])
    assert {one["load"]["rate"] for one in size["measurements"]} == {
        None,
        0.7 * size["bare_pictures_per_s"],
        0.9 * size["bare_pictures_per_s"],
    }
    assert len(size["targets"]) == (1 if size["is_large"] else 2)
    assert all(isinstance(one["is_met"], bool) for one in size["targets"])


def test_without_a_gpu_it_refuses_models_of_full_size(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--models", "flux.1-dev", "-o", str(tmp_path)]) == 2
    assert "no CUDA device for flux.1-dev at full size" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_goes_wrong_with_one_model_or_size_is_written_down(
    models: list[str], tmp_path: Path
) -> None:
    where = ["--models", "missing", models[3], "--sizes", "31", "-o", str(tmp_path)]
    assert main([*where, *SMALL]) == 1
    results = json.loads((tmp_path / "results.json").read_text())
    missing, present = results["models"]
    assert "neither a folder nor a hub id" in missing["error"]
    assert "31x31" in present["sizes"][0]["error"]
    assert not results["is_whole"]
    assert "Not all of it worked" in (tmp_path / "results.md").read_text()


# ---------------------------------------------------------------------- figures


def test_figures_are_of_all_pictures_from_the_first_arrival_to_the_last_end() -> None:
    rides = [(10.0 + number, 12.0 + 2 * number) for number in range(4)]  # 2, 3, 4 and 5 seconds.
    figures = Outcome(rides=rides, failures=[], tick_rows=[1, 3]).figures(alone_s=2.0)
    assert figures == Figures(
        pictures=4,
        throughput=0.5,
        mean_s=3.5,
        p50_s=4.0,
        p99_s=5.0,
        slowdown=1.75,
        tick_rows=2.0,
    )
    assert Outcome(rides=[], failures=["broken"], tick_rows=[]).figures(alone_s=2.0) is None


def test_a_closed_loop_counts_from_the_end_of_a_batch_to_the_end_of_another() -> None:
    # Batches of four, of ten seconds each, whose files come one after the other.
    ends = [10.0 * batch + 0.1 * file for batch in range(1, 7) for file in range(4)]
    assert steady_part(ends, clients=6) == (7, 19)
    rides = [(end - 20.0, end) for end in ends]
    figures = Outcome(rides=rides, failures=[], tick_rows=[4]).steady_figures(6, alone_s=5.0)
    assert figures is not None
    assert figures.throughput == pytest.approx(0.4)
    assert figures.pictures == 12


def test_a_closed_loop_that_makes_one_picture_after_the_other_counts_all_but_two_rounds() -> None:
    ends = [2.0 * number + 0.1 * (number % 3) for number in range(12)]
    assert steady_part(ends, clients=4) == (3, 10)


def test_arrivals_are_the_same_for_the_same_seed_and_as_many_as_the_rate_says() -> None:
    times = poisson_times(rate=4.0, count=4000, seed=1)
    assert times == sorted(times)
    assert times[-1] == pytest.approx(1000, rel=0.1)
    assert poisson_times(8.0, 4000, 1) == pytest.approx([moment / 2 for moment in times])
    assert poisson_times(4.0, 4000, 2) != times


# ---------------------------------------------------------------------- targets

DYNAMIC = Mode(batching="dynamic", max_batch_size=4)
CLOSED, LOADED = closed_load(12), poisson_load(0.7, 7.0)


def a_measurement(mode: Mode, load: Load, **figures: float) -> Measurement:
    usual = Figures(
        pictures=20,
        throughput=10.0,
        mean_s=2.0,
        p50_s=2.0,
        p99_s=4.0,
        slowdown=2.0,
        tick_rows=4.0,
    )
    return Measurement(
        mode=mode,
        load=load,
        outcome=Outcome(rides=[], failures=[], tick_rows=[]),
        figures=replace(usual, **figures),  # type: ignore[arg-type]
    )


def a_size(*measurements: Measurement, is_large: bool = False) -> Size:
    return Size(
        side=512,
        is_large=is_large,
        bare=10.0,
        alone_s=1.0,
        measurements=list(measurements),
        chosen={"saturation": DYNAMIC, "load": DYNAMIC},
        judged=LOADED,
    )


@pytest.mark.parametrize(
    ("throughput", "p99_s", "met"),
    [(9.5, 2.0, [True, True]), (9.4, 2.0, [False, True]), (9.9, 2.1, [True, False])],
)
def test_small_pictures_are_judged_by_throughput_and_by_the_tail(
    throughput: float, p99_s: float, met: list[bool]
) -> None:
    size = a_size(
        a_measurement(CONTINUOUS, CLOSED, throughput=throughput),
        a_measurement(replace(DYNAMIC, max_batch_size=2), LOADED, p99_s=100.0),
        a_measurement(DYNAMIC, LOADED, p99_s=4.0),
        a_measurement(CONTINUOUS, LOADED, p99_s=p99_s, throughput=7.0),
    )
    found = list(verdicts(size))
    assert [one.is_met for one in found] == met
    assert [str(one).split(":")[0] for one in found] == ["met" if one else "missed" for one in met]
    assert f"it is **{throughput / 10:.3f}** (12 clients)" in str(found[0])
    assert f"it is **{p99_s / 4:.3f}** (Poisson 0.7)" in str(found[1])


@pytest.mark.parametrize(("mean_s", "met"), [(2.0, True), (2.01, True), (2.1, False)])
def test_large_pictures_are_judged_by_the_mean_where_it_looks_worst(
    mean_s: float, met: bool
) -> None:
    size = a_size(
        a_measurement(OFF, CLOSED, mean_s=3.0),
        a_measurement(OFF, LOADED, mean_s=2.0),
        a_measurement(CONTINUOUS, CLOSED, mean_s=1.0),
        a_measurement(CONTINUOUS, LOADED, mean_s=mean_s),
        is_large=True,
    )
    [found] = verdicts(size)
    assert found.is_met is met
    assert f"it is **{mean_s / 2:.3f}** (Poisson 0.7)" in str(found)


def test_a_target_that_was_not_measured_is_neither_met_nor_missed() -> None:
    found = list(verdicts(a_size(a_measurement(OFF, CLOSED))))
    assert [one.is_met for one in found] == [None, None]
    assert all(str(one).startswith("not measured: ") for one in found)
