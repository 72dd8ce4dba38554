"""Benchmarks run on small things too, and what they conclude follows from what they measured."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.chaos.__main__ import main as break_server
from benchmarks.chaos.audit import Audit
from benchmarks.chaos.callers import Kind, Outcome
from benchmarks.chaos.disturbances import Outage
from benchmarks.chaos.report import Report, Run, Verdict, compare
from benchmarks.steps import main
from tests.builders import save_tiny_stable_diffusion


def test_steps_writes_cost_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_tiny_stable_diffusion(tmp_path / "tiny", steps_offset=1)
    sizes, rows = ["32", "64"], ["1", "2", "4"]
    where = ["--models", str(folder), "-o", str(tmp_path / "costs")]
    main([*where, "--sizes", *sizes, "--rows", *rows, "--repeats", "2"])
    table = json.loads((tmp_path / "costs" / "tiny-eager.json").read_text())
    assert (table["model"], table["dtype"], table["counts"]) == ("tiny", "float32", "forward_rows")
    assert [shape["width"] for shape in table["shapes"]] == [32, 64]
    for shape in table["shapes"]:
        assert list(shape["step_seconds"]) == ["1", "2", "4", "8"]  # A row with guidance is two.
        assert min(shape["step_seconds"].values()) > 0
        assert shape["encode_seconds"].keys() == {"1"}
        assert shape["decode_seconds"].keys() == {"1", "2", "4"}
    printed = capsys.readouterr().out
    assert "| size | 1 | 2 | 4 |" in printed
    assert "| 64x64 | " in printed


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
