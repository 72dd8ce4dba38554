"""The report as pictures. Needs the extra ``plots``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers.contestants import CONTESTANTS
from benchmarks.peers.results import Results
from benchmarks.peers.workloads import EQUAL, WORKLOADS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_latencies(results: Results, path: Path) -> None:
    """Latency over load, of Poisson arrivals: mean and p99, medians over the rounds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("mean", "p99"), strict=True):
        _draw_latency(axes, results, name)
    figure.savefig(path, dpi=120)


def _draw_latency(axes: Axes, results: Results, name: str) -> None:
    poisson = [one for one in WORKLOADS.values() if one.kinds is EQUAL and one.burstiness == 1.0]
    for contestant in CONTESTANTS.values():
        points = [
            (workload.load, value.median, value.least, value.greatest)
            for workload in poisson
            if workload.load and (value := results.figure(workload.name, contestant.name, name))
        ]
        if points:
            loads, medians, least, greatest = zip(*points, strict=True)
            style = "--" if contestant.is_peer else "-"
            [line] = axes.plot(loads, medians, style, marker="o", label=contestant.title)
            axes.fill_between(loads, least, greatest, color=line.get_color(), alpha=0.12)
    axes.set(xlabel="load, of the best peer's capacity", ylabel=f"{name} latency, s")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")


def plot_throughputs(results: Results, path: Path) -> None:
    """Bars of what each contestant serves at most, medians over the rounds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    axes = figure.subplots()
    saturating = [
        one
        for one in WORKLOADS.values()
        if one.is_saturating and any(results.has(one.name, name) for name in CONTESTANTS)
    ]
    width = 0.8 / len(CONTESTANTS)
    for number, contestant in enumerate(CONTESTANTS.values()):
        for place, workload in enumerate(saturating):
            value = results.figure(workload.name, contestant.name, "throughput")
            if value is not None:
                axes.bar(
                    place + number * width,
                    value.median,
                    width,
                    yerr=[[value.median - value.least], [value.greatest - value.median]],
                    color=f"C{number}",
                    hatch="//" if contestant.is_peer else None,
                    label=contestant.title if place == 0 else None,
                )
    axes.set_xticks([place + 0.4 for place in range(len(saturating))])
    axes.set_xticklabels([one.title for one in saturating])
    axes.set_ylabel("requests/s")
    axes.grid(alpha=0.3, axis="y")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
