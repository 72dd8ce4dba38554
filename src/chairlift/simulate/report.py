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

from chairlift.simulate.simulation import Simulation

FACTORS = (1.5, 2.0, 3.0)
"""Objectives: so many times what the job takes alone."""
GOOD = 3.0
"""A job within this one counts for the goodput."""


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
    """Share of the jobs within each of :data:`FACTORS` times their time alone."""
    on_time: float | None
    """Share of the jobs with a deadline that met it; None where nobody had one."""
    utilisation: float
    """Busy share of all replicas' time."""
    ticks: Mapping[int, float]
    """How many there were, by their number of rows."""

    @property
    def rows(self) -> float:
        """Mean number of rows in a tick."""
        return sum(rows * count for rows, count in self.ticks.items()) / sum(self.ticks.values())

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"rows": self.rows}


def create_report(policy: str, load: float | None, simulation: Simulation) -> Report:
    """The figures of one simulation of at least one job."""
    outcomes, statistics = simulation.outcomes, simulation.statistics
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
    ticks: Counter[int] = Counter()
    for one in statistics:
        ticks.update(one.ticks)
    return Report(
        policy=policy,
        load=load,
        requests=len(outcomes),
        throughput=len(outcomes) / duration,
        goodput=int((slowdown <= GOOD).sum()) / duration,
        mean_s=float(latency.mean()),
        p50_s=p50,
        p95_s=p95,
        p99_s=p99,
        slowdown=float(slowdown.mean()),
        attainment={factor: float((slowdown <= factor).mean()) for factor in FACTORS},
        on_time=fmean(met) if met else None,
        utilisation=sum(one.busy_s for one in statistics) / (duration * len(statistics)),
        ticks=dict(sorted(ticks.items())),
    )


def mean_report(reports: Sequence[Report]) -> Report:
    """The mean of every figure, over several seeds of the same."""
    first = reports[0]
    means: dict[str, Any] = {
        name: fmean(getattr(report, name) for report in reports)
        for name in ("throughput", "goodput", "mean_s", "p50_s", "p95_s", "p99_s", "slowdown")
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
        utilisation=fmean(report.utilisation for report in reports),
        ticks={rows: fmean(report.ticks.get(rows, 0) for report in reports) for rows in sizes},
        **means,
    )


def create_table(reports: Iterable[Report]) -> Table:
    """A row for each report."""
    table = Table(box=box.MARKDOWN)
    table.add_column("policy", no_wrap=True)
    names = ("load", "req/s", "good/s", "mean s", "p50 s", "p95 s", "p99 s", "slowdown")
    within = tuple(f"≤{factor:g}x" for factor in FACTORS)
    for name in (*names, *within, "busy", "rows"):
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
            f"{report.utilisation:.3f}",
            f"{report.rows:.2f}",
        )
    return table
