"""Figures of hand-made outcomes."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from chairlift.simulate.replica import BatchStatistics, Outcome
from chairlift.simulate.report import Report, create_report, create_table, mean_report
from chairlift.simulate.simulation import Simulation
from tests.simulate.builders import a_job


def a_report(load: float | None = 0.5, policy: str = "fcfs") -> Report:
    """Latencies of 1, 2, 4 and 13 s, each of 2 s alone."""
    finishes = [(0.0, 1.0), (2.0, 4.0), (3.0, 7.0), (7.0, 20.0)]
    outcomes = [
        Outcome(a_job(arrival, deadline_s=3.0), arrival, finish, 2.0, 0)
        for arrival, finish in finishes
    ]
    statistics = [BatchStatistics({1: 6, 4: 2}, 10.0), BatchStatistics({1: 4}, 5.0)]
    return create_report(policy, load, Simulation(outcomes, statistics))


def test_the_figures() -> None:
    report = a_report()
    assert report.throughput == pytest.approx(4 / 20)
    assert report.mean_s == pytest.approx(5.0)
    assert report.p50_s == pytest.approx(3.0)
    assert report.slowdown == pytest.approx(2.5)
    assert report.attainment == {1.5: 0.5, 2.0: 0.75, 3.0: 0.75}
    assert report.goodput == pytest.approx(3 / 20)
    assert report.on_time == 0.5
    assert report.utilisation == pytest.approx(15 / 40)
    assert report.ticks == {1: 10, 4: 2}
    assert report.rows == pytest.approx(18 / 12)


def test_the_mean_of_equal_reports_is_the_same() -> None:
    assert mean_report([a_report(), a_report()]) == a_report()


def test_a_table_has_a_row_for_each_report() -> None:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(create_table([a_report(), a_report(None)]))
    lines = [line for line in capture.get().splitlines() if "fcfs" in line]
    assert [line.split("|")[2].strip() for line in lines] == ["0.5", "-"]


@pytest.mark.parametrize("loads", [[0.5, 0.9], [0.5], [None]])
def test_a_plot_is_a_picture(tmp_path: Path, loads: list[float | None]) -> None:
    pytest.importorskip("matplotlib")
    from chairlift.simulate.plot import plot

    reports = [a_report(load, policy) for load in loads for policy in ("fcfs", "srpt")]
    plot(reports, tmp_path / "load.png")
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")
