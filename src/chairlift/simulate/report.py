"""What came out: figures, a table, JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from chairlift.errors import ConfigurationError
from chairlift.simulate.simulation import Simulation

FACTORS = (1.5, 2.0, 3.0)
"""Objectives: so many times what the job takes alone."""
GOOD = 3.0
"""A job within this one counts for the goodput."""
LATENCIES = ("mean_s", "p50_s", "p95_s", "p99_s", "slowdown")
FIGURES = ("throughput", "goodput", *LATENCIES, "utilisation", "replica_hours")
COUNTS = ("starts", "failures", "removals", "replayed", "refused", "lost")
HOUR = 3600.0
FLEET_COLUMNS = ("replica-h", "starts", "gone", "replayed", "refused", "lost")


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The figures of one simulation, or their means over several."""

    policy: str
    load: float | None
    """Share of the capacity; None where the workload was given."""
    requests: int
    throughput: float
    """Jobs a second, from the first arrival to the last finish."""
    goodput: float
    """Those within :data:`GOOD` times their time alone, a second."""
    mean_s: float
    """Latencies, from the arrival to the finish."""
    p50_s: float
    p95_s: float
    p99_s: float
    slowdown: float
    """Mean of latency over the time alone."""
    attainment: Mapping[float, float]
    """Share of the jobs within each of :data:`FACTORS` times their time alone; one that was
    refused is not.
    """
    on_time: float | None
    """Share of the jobs with a deadline that met it; None where nobody had one."""
    utilisation: float
    """Busy share of all replicas' time."""
    ticks: Mapping[int, float]
    """How many there were, by their number of rows."""
    replica_hours: float
    """From when each replica began to start until it was gone."""
    starts: float
    """Replicas that were started, those of the beginning not among them."""
    failures: float
    """Replicas that died."""
    removals: float
    """Replicas that were taken away."""
    replayed: float
    """How often a job was played again, because its replica was gone."""
    refused: float
    """Jobs for which there was no replica for too long."""
    lost: float
    """Jobs that have neither an outcome nor a refusal."""

    @property
    def rows(self) -> float:
        """Mean number of rows in a tick."""
        return sum(rows * count for rows, count in self.ticks.items()) / sum(self.ticks.values())

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"rows": self.rows}


def create_report(policy: str, load: float | None, simulation: Simulation) -> Report:
    """The figures of one simulation.

    Raises:
        ConfigurationError: No job was served.
    """
    outcomes, statistics = simulation.outcomes, simulation.statistics
    if not outcomes:
        raise ConfigurationError(f"no job was served, and {simulation.refused} were refused")
    requests = len(outcomes) + simulation.refused + simulation.lost
    latency = np.array([outcome.latency_s for outcome in outcomes])
    slowdown = latency / np.array([outcome.alone_s for outcome in outcomes])
    first = min(outcome.job.arrival_s for outcome in outcomes)
    duration = max(outcome.finish_s for outcome in outcomes) - first
    met = [
        outcome.latency_s <= outcome.job.deadline_s
        for outcome in outcomes
        if outcome.job.deadline_s is not None
    ]
    p50, p95, p99 = (float(value) for value in np.percentile(latency, [50, 95, 99]))
    present = sum(one.present_s for one in statistics)
    ticks: Counter[int] = Counter()
    for one in statistics:
        ticks.update(one.ticks)
    return Report(
        policy=policy,
        load=load,
        requests=requests,
        throughput=len(outcomes) / duration,
        goodput=int((slowdown <= GOOD).sum()) / duration,
        mean_s=float(latency.mean()),
        p50_s=p50,
        p95_s=p95,
        p99_s=p99,
        slowdown=float(slowdown.mean()),
        attainment={factor: int((slowdown <= factor).sum()) / requests for factor in FACTORS},
        on_time=fmean(met) if met else None,
        utilisation=sum(one.busy_s for one in statistics) / present,
        ticks=dict(sorted(ticks.items())),
        replica_hours=present / HOUR,
        **{name: float(getattr(simulation, name)) for name in COUNTS},
    )


def mean_report(reports: Sequence[Report]) -> Report:
    """The mean of every figure, over several seeds of the same."""
    first = reports[0]
    means: dict[str, Any] = {
        name: fmean(getattr(report, name) for report in reports) for name in (*FIGURES, *COUNTS)
    }
    on_time = [report.on_time for report in reports if report.on_time is not None]
    sizes = sorted({rows for report in reports for rows in report.ticks})
    return Report(
        policy=first.policy,
        load=first.load,
        requests=first.requests,
        attainment={
            factor: fmean(report.attainment[factor] for report in reports) for factor in FACTORS
        },
        on_time=fmean(on_time) if on_time else None,
        ticks={rows: fmean(report.ticks.get(rows, 0) for report in reports) for rows in sizes},
        **means,
    )


def create_table(reports: Iterable[Report], fleet: bool = False) -> Table:
    """A row for each report.

    Args:
        reports: Their figures.
        fleet: Whether replicas come and go; then there are columns for that.
    """
    reports = list(reports)
    due = any(report.on_time is not None for report in reports)
    table = Table(box=box.MARKDOWN)
    table.add_column("policy", no_wrap=True)
    names = ("load", "req/s", "good/s", "mean s", "p50 s", "p95 s", "p99 s", "slowdown")
    within = tuple(f"≤{factor:g}x" for factor in FACTORS)
    for name in (
        *names,
        *within,
        *(["on time"] if due else []),
        "busy",
        "rows",
        *(FLEET_COLUMNS if fleet else ()),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for report in reports:
        table.add_row(
            report.policy,
            "-" if report.load is None else f"{report.load:g}",
            f"{report.throughput:.3f}",
            f"{report.goodput:.3f}",
            *(f"{value:.1f}" for value in (report.mean_s, report.p50_s, report.p95_s)),
            f"{report.p99_s:.1f}",
            f"{report.slowdown:.2f}",
            *(f"{report.attainment[factor]:.3f}" for factor in FACTORS),
            *([_share(report.on_time)] if due else []),
            f"{report.utilisation:.3f}",
            f"{report.rows:.2f}",
            *(_fleet_cells(report) if fleet else ()),
        )
    return table


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _fleet_cells(report: Report) -> list[str]:
    gone = report.failures + report.removals
    counts = (report.starts, gone, report.replayed, report.refused, report.lost)
    return [f"{report.replica_hours:.1f}", *(f"{count:g}" for count in counts)]
