"""Figures of hand-made outcomes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from chairlift.errors import ConfigurationError
from chairlift.simulate.replica import BatchStatistics, Outcome
from chairlift.simulate.report import Report, create_report, create_table, mean_report
from chairlift.simulate.simulation import Sample, Simulation
from tests.simulate.builders import a_job


def a_report(load: float | None = 0.5, policy: str = "fcfs", refused: int = 0) -> Report:
    """Latencies of 1, 2, 4 and 13 s, each of 2 s alone."""
    finishes = [(0.0, 1.0), (2.0, 4.0), (3.0, 7.0), (7.0, 20.0)]
    outcomes = [
        Outcome(a_job(arrival, deadline_s=3.0), arrival, finish, 2.0, 0)
        for arrival, finish in finishes
    ]
    statistics = [BatchStatistics({1: 6, 4: 2}, 10.0, 20.0), BatchStatistics({1: 4}, 5.0, 20.0)]
    simulation = Simulation(outcomes=outcomes, statistics=statistics, refused=refused)
    return create_report(policy, load, simulation)


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
    assert report.replica_hours == pytest.approx(40 / 3600)
    assert report.ticks == {1: 10, 4: 2}
    assert report.rows == pytest.approx(18 / 12)


def test_who_was_refused_counts_among_those_who_had_to_wait_too_long() -> None:
    report = a_report(refused=4)
    assert (report.requests, report.refused) == (8, 4)
    assert report.attainment == {1.5: 0.25, 2.0: 0.375, 3.0: 0.375}
    assert report.mean_s == a_report().mean_s


def test_without_anybody_served_there_are_no_figures() -> None:
    with pytest.raises(ConfigurationError, match="no job was served, and 3 were refused"):
        create_report("fcfs", None, Simulation(outcomes=[], statistics=[], refused=3))


def test_the_mean_of_equal_reports_is_the_same() -> None:
    assert mean_report([a_report(), a_report()]) == a_report()


def test_the_share_that_met_its_deadline_is_in_the_table_if_somebody_had_one() -> None:
    report = a_report()
    tables = [
        create_table([report, replace(report, on_time=None)]),
        create_table([replace(report, on_time=None)]),
    ]
    columns = [{column.header: list(column.cells) for column in table.columns} for table in tables]
    assert columns[0]["on time"] == ["0.500", "-"]
    assert "on time" not in columns[1]


def test_a_table_has_a_row_for_each_report() -> None:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(create_table([a_report(), a_report(None)]))
    lines = [line for line in capture.get().splitlines() if "fcfs" in line]
    assert [line.split("|")[2].strip() for line in lines] == ["0.5", "-"]


def test_a_table_of_a_fleet_says_what_became_of_it() -> None:
    console = Console(width=250)
    with console.capture() as capture:
        console.print(create_table([a_report(refused=4)], fleet=True))
    rows = [line.split("|") for line in capture.get().splitlines() if "|" in line]
    cells = dict(zip(*([cell.strip() for cell in row] for row in rows[::2]), strict=True))
    names = ("starts", "gone", "replayed", "refused", "lost")
    assert [cells[name] for name in names] == ["0", "0", "0", "4", "0"]


def test_a_plot_of_a_fleet_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from chairlift.simulate.plot import plot_fleet

    plot_fleet([Sample(0.0, 1, 0, 0.0, 2), Sample(10.0, 2, 1, 5.0, 0)], tmp_path / "fleet.png")
    assert (tmp_path / "fleet.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("loads", [[0.5, 0.9], [0.5], [0.5, None]])
def test_a_plot_is_a_picture(tmp_path: Path, loads: list[float | None]) -> None:
    pytest.importorskip("matplotlib")
    from chairlift.simulate.plot import plot

    reports = [a_report(load, policy) for load in loads for policy in ("fcfs", "srpt")]
    plot(reports, tmp_path / "load.png")
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")
