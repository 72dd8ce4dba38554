"""Benchmarks run on small things too, and what they conclude follows from what they measured."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline
from PIL import Image

from benchmarks.chaos.__main__ import main as break_server
from benchmarks.chaos.audit import Audit
from benchmarks.chaos.callers import Kind, Outcome
from benchmarks.chaos.disturbances import Outage
from benchmarks.chaos.report import Report, Run, Verdict, compare
from benchmarks.peers.api import Body
from benchmarks.peers.contestants import CONTESTANTS, Contestant
from benchmarks.peers.process import running
from benchmarks.peers.results import Measurement, Results
from benchmarks.peers.settings import PeerSettings
from benchmarks.peers.step_loop import StepLoop
from benchmarks.peers.stock import draw, load_pipeline
from benchmarks.peers.sweep import Choices, Trial, best, sweep
from benchmarks.peers.targets import verdicts
from benchmarks.steps import main
from chairlift.bench.report import create_summary
from chairlift.profiler import ShapeCosts
from tests.bench.builders import a_record
from tests.builders import save_tiny_stable_diffusion


def test_steps_writes_cost_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_tiny_stable_diffusion(tmp_path / "tiny", steps_offset=1)
    sizes, rows = ["32", "64"], ["1", "2", "4"]
    where = ["--models", str(folder), "-o", str(tmp_path / "costs")]
    main([*where, "--sizes", *sizes, "--rows", *rows, "--repeats", "2"])
    table = json.loads((tmp_path / "costs" / "tiny-eager.json").read_text())
    assert (table["model"], table["dtype"], table["counts"]) == ("tiny", "float32", "rows")
    assert [shape["width"] for shape in table["shapes"]] == [32, 64]
    for shape in table["shapes"]:
        assert list(shape["step_seconds"]) == rows
        assert min(shape["step_seconds"].values()) > 0
        assert shape["encode_seconds"].keys() == {"1"}
        assert shape["decode_seconds"].keys() == {"1", "2", "4"}
    printed = capsys.readouterr().out
    assert "| size | 1 | 2 | 4 |" in printed
    assert "| 64x64 | " in printed


@pytest.mark.parametrize(
    ("seconds", "knee"),
    [
        ({1: 0.167, 2: 0.183, 3: 0.186, 4: 0.240, 8: 0.425, 16: 0.832}, 8),
        ({1: 0.243, 2: 0.474, 3: 0.711}, 1),
        ({1: 1.0, 2: 1.0, 4: 1.0}, 4),
        ({1: 1.0}, 1),
    ],
)
def test_the_knee_is_the_last_count_that_made_a_row_cheaper(
    seconds: dict[int, float], knee: int
) -> None:
    assert ShapeCosts(width=512, height=512, frames=1, step_seconds=seconds).knee == knee


# ---------------------------------------------------------------------- chaos

SYNC, STREAM, JOB = range(len(Kind))
"""Numbers of requests of each kind."""


def a_file(level: int, side: int = 8, compress_level: int = 6) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), (level, 0, 0)).save(file, "PNG", compress_level=compress_level)
    return file.getvalue()


PICTURE = a_file(100)


def an_outcome(number: int, picture: bytes | None = PICTURE, **fields: object) -> Outcome:
    """Sent at 10 s and ended at 12 s."""
    job_id = "job_1" if number == JOB else None
    given = {"number": number, "sent": 10.0, "ended": 12.0, "picture": picture, "job_id": job_id}
    return Outcome(**(given | fields))  # type: ignore[arg-type]


def a_run(
    outcomes: Sequence[Outcome],
    outages: Sequence[Outage] = (),
    lost: Sequence[int] = (),
    doubled: Sequence[int] = (),
    leftovers: Sequence[str] = (),
    exit_status: int = 0,
) -> Run:
    return Run(
        outcomes=outcomes,
        outages=outages,
        audit=Audit(lost=frozenset(lost), doubled=frozenset(doubled)),
        restarts=0,
        exit_status=exit_status,
        leftovers=leftovers,
    )


CALM = a_run([an_outcome(number) for number in (SYNC, STREAM, JOB)])


def test_nothing_is_lost_when_worker_and_server_are_killed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = ["--model", "fake:0.002", "--requests", "9", "--rate", "6", "--seed", "1"]
    few = ["--worker-kills", "1", "--worker-stops", "0", "--server-kills", "1"]
    status = break_server([*small, *few])
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert "worker SIGKILL" in printed
    assert "server SIGKILL" in printed
    assert "| job | 3 | 0 | 0 | 0 | 0 |" in printed
    assert "| jobs acknowledged | 3 | 3 |" in printed
    assert "| processes and temporary files left | 0 | 0 |" in printed


@pytest.mark.parametrize(
    ("picture", "verdict"),
    [
        (PICTURE, Verdict.SAME),
        (a_file(100, compress_level=0), Verdict.CLOSE),
        (a_file(99), Verdict.CLOSE),
        (a_file(102), Verdict.WRONG),
        (a_file(100, side=16), Verdict.WRONG),
    ],
    ids=["the same file", "the same pixels", "one level", "two levels", "another size"],
)
def test_pictures_are_compared_by_bytes_and_then_by_levels(
    picture: bytes, verdict: Verdict
) -> None:
    assert compare(PICTURE, picture) is verdict


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (an_outcome(SYNC, None, error="reset", lost_connection=True), Verdict.CUT_OFF),
        (an_outcome(SYNC, None, error="500 internal_error"), Verdict.FAILED),
        (
            an_outcome(STREAM, None, error="reset", lost_connection=True, sent=16.0, ended=17.0),
            Verdict.FAILED,
        ),
        (an_outcome(JOB, None, error="reset", lost_connection=True), Verdict.FAILED),
    ],
    ids=["while there was no server", "by the server", "afterwards", "of a job"],
)
def test_only_a_killed_server_excuses_a_broken_connection(
    outcome: Outcome, verdict: Verdict
) -> None:
    outcomes = [an_outcome(number) for number in (SYNC, STREAM, JOB)]
    outcomes[outcome.number] = outcome
    report = Report(CALM, a_run(outcomes, outages=[Outage(11.0, 15.0)]))
    assert report.verdicts[outcome.number] is verdict
    assert report.is_good == (verdict is Verdict.CUT_OFF)


@pytest.mark.parametrize(
    "run",
    [
        a_run(CALM.outcomes, lost=[JOB]),
        a_run(CALM.outcomes, doubled=[JOB]),
        a_run(CALM.outcomes, leftovers=["process 1"]),
        a_run(CALM.outcomes, exit_status=1),
        a_run([an_outcome(SYNC, a_file(0)), *CALM.outcomes[1:]]),
    ],
    ids=["lost", "doubled", "left behind", "exit status", "wrong"],
)
def test_what_must_not_happen_is_told(run: Run) -> None:
    assert Report(CALM, CALM).is_good
    assert not Report(CALM, run).is_good


# ---------------------------------------------------------------------- peers


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionPipeline:
    folder = save_tiny_stable_diffusion(tmp_path_factory.mktemp("tiny"), steps_offset=1)
    return load_pipeline(str(folder), PeerSettings(threads=1))


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
    chosen = replace(PeerSettings(), **settings)  # type: ignore[arg-type]
    return Trial(contestant="ray", settings=chosen, throughput=throughput, mean_s=mean_s)


def test_the_sweep_goes_on_from_the_best_of_each_setting() -> None:
    def attempt(contestant: Contestant, settings: PeerSettings) -> Trial:
        throughput = 10.0 * (settings.max_batch_size == 8) + 5.0 * (settings.threads == 1)
        mean_s = 1.0 + settings.batch_timeout
        return Trial(
            contestant=contestant.name, settings=settings, throughput=throughput, mean_s=mean_s
        )

    choices = Choices(
        networks=((2, True), (1, True)), batch_sizes=(16, 8), batch_timeouts=(0.05, 0.01)
    )
    trials = sweep(CONTESTANTS["ray"], choices, attempt)
    assert len(trials) == 4
    assert best(trials).settings == PeerSettings(threads=1, max_batch_size=8, batch_timeout=0.01)
    assert len(sweep(CONTESTANTS["lock"], choices, attempt)) == 2


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


def test_a_contestant_that_does_not_start_is_told_with_what_it_said() -> None:
    broken = Contestant(name="broken", title="", module="benchmarks.peers.missing")
    with (
        pytest.raises(RuntimeError, match=r"broken is not ready.*(\n.*)*No module named"),
        running(broken, PeerSettings(), folder="", python=Path()),
    ):
        pass
