"""Latency and attainment over load, and a fleet over time, as pictures. Need the extra
``plots``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chairlift.errors import ConfigurationError
from chairlift.simulate.report import GOOD, HOUR, Report
from chairlift.simulate.simulation import Sample


def plot(reports: Sequence[Report], path: Path) -> None:
    """Write a PNG file.

    Args:
        reports: Of several policies and loads; those without a load aren't in the picture.
        path: Where to.

    Raises:
        ConfigurationError: matplotlib isn't installed.
    """
    figure = _create_figure()
    latency, attainment = figure.subplots(1, 2)
    policies = dict.fromkeys(report.policy for report in reports)
    for number, policy in enumerate(policies):
        of_policy = (report for report in reports if report.policy == policy)
        own = sorted((report.load, report) for report in of_policy if report.load is not None)
        loads, color = [load for load, _ in own], f"C{number}"
        p50, p99 = [one.p50_s for _, one in own], [one.p99_s for _, one in own]
        within = [one.attainment[GOOD] for _, one in own]
        latency.plot(loads, p99, marker="o", color=color, label=policy)
        latency.plot(loads, p50, marker=".", color=color, linestyle="dotted")
        attainment.plot(loads, within, marker="o", color=color, label=policy)
    latency.set(ylabel="latency, s: p99 (lines), p50 (dots)", yscale="log")
    attainment.set(ylabel=f"share within {GOOD:g} x the time alone", ylim=(0, 1.02))
    for axes in (latency, attainment):
        axes.set_xlabel("load, share of the capacity at the knee")
        axes.grid(alpha=0.3)
    attainment.legend()
    figure.savefig(path, dpi=120)


def plot_fleet(samples: Sequence[Sample], path: Path) -> None:
    """Write a PNG file: replicas, and seconds of work for each of them, over time.

    Args:
        samples: In order; at least one.
        path: Where to.

    Raises:
        ConfigurationError: matplotlib isn't installed.
    """
    figure = _create_figure()
    replicas, backlog = figure.subplots(2, 1, sharex=True)
    hours = [(sample.now - samples[0].now) / HOUR for sample in samples]
    replicas.plot(hours, [sample.target for sample in samples], label="should be", color="C1")
    replicas.plot(hours, [sample.replicas for sample in samples], label="take requests", color="C0")
    each = [sample.backlog_s / max(1, sample.replicas) for sample in samples]
    backlog.plot(hours, each, color="C0")
    replicas.set(ylabel="replicas", ylim=(0, None))
    replicas.legend()
    backlog.set(ylabel="seconds of work a replica", ylim=(0, None), xlabel="hours")
    for axes in (replicas, backlog):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def _create_figure() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigurationError("plots need matplotlib: pip install 'chairlift[plots]'") from None
    return Figure(figsize=(12, 4.5), layout="constrained")
