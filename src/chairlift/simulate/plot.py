"""Latency and attainment over load, and a fleet over time, as pictures. Need the extra
``plots``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chairlift.errors import ConfigurationError
from chairlift.scheduling.names import DEFAULT_POLICY
from chairlift.simulate.names import COMPARISON_NAMES
from chairlift.simulate.report import FACTORS, HOUR, Report
from chairlift.simulate.simulation import Sample

LATENCIES = (("mean latency, s", "mean_s"), ("median, s", "p50_s"), ("p99, s", "p99_s"))


def plot(reports: Sequence[Report], path: Path) -> None:
    """Write a PNG file: latencies above, attainment below.

    Args:
        reports: Of several policies and loads, at least one of them; those without a load
            aren't in the picture.
        path: Where to.

    Raises:
        ConfigurationError: matplotlib isn't installed.
    """
    figure = _create_figure(height=7.5)
    above, below = figure.subplots(2, len(FACTORS), sharex=True)
    policies = dict.fromkeys(report.policy for report in reports)
    for number, policy in enumerate(policies):
        of_policy = (report for report in reports if report.policy == policy)
        own = sorted((report.load, report) for report in of_policy if report.load is not None)
        loads, style = [load for load, _ in own], _style(policy, number)
        for axes, (_, name) in zip(above, LATENCIES, strict=True):
            axes.plot(loads, [getattr(one, name) for _, one in own], label=policy, **style)
        for axes, factor in zip(below, FACTORS, strict=True):
            axes.plot(loads, [one.attainment[factor] for _, one in own], **style)
    for axes, (title, _) in zip(above, LATENCIES, strict=True):
        axes.set(title=title, yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")
    for axes, factor in zip(below, FACTORS, strict=True):
        axes.set(title=f"share within {factor:g} x the time alone", ylim=(0, 1.02))
        axes.set_xlabel("load, share of the capacity at the knee")
    for axes in (*above, *below):
        axes.grid(alpha=0.3)
    figure.legend(*above[0].get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(path, dpi=100)


def _style(policy: str, number: int) -> dict[str, Any]:
    """The default stands out, and what isn't Chairlift's is grey."""
    if policy in COMPARISON_NAMES:
        dashes = ("dotted", "dashed", "dashdot")[COMPARISON_NAMES.index(policy)]
        return {"color": "0.45", "linestyle": dashes, "marker": "x"}
    wide = policy == DEFAULT_POLICY
    return {"color": f"C{number}", "marker": "o", "markersize": 4, "linewidth": 3 if wide else 1.5}


def plot_fleet(samples: Sequence[Sample], path: Path) -> None:
    """Write a PNG file: replicas, and seconds of work for each of them, over time.

    Args:
        samples: In order; at least one.
        path: Where to.

    Raises:
        ConfigurationError: matplotlib isn't installed.
    """
    figure = _create_figure(height=4.5)
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


def _create_figure(height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigurationError("plots need matplotlib: pip install 'chairlift[plots]'") from None
    return Figure(figsize=(12, height), layout="constrained")
