"""A run as a picture. Needs the extra ``plots``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chairlift.bench.records import Record
from chairlift.bench.report import MEASURES
from chairlift.errors import ConfigurationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_COLOURS = 8
"""Kinds that have a colour and a line of their own in the legend."""

DISTRIBUTIONS = {
    "latency": "arrival to answer",
    "queue": "server: queue",
    "service": "server: service",
}
"""Of what, and how it is called."""


def plot(
    records: Sequence[Record], path: Path, *, title: str, goodput_s: float | None = None
) -> None:
    """Write a PNG file: how latencies are distributed, how they grow, and how many requests come
    and go.

    Args:
        records: Of all requests that were sent.
        path: The file.
        title: What stands above.
        goodput_s: An objective: seconds of latency, which are drawn as a line.

    Raises:
        ConfigurationError: matplotlib isn't installed, or the file can't be written.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.5), layout="constrained")
    figure.suptitle(title)
    distribution, latencies, rates = figure.subplots(1, 3)
    _draw_distribution(distribution, records)
    _draw_latencies(latencies, records)
    _draw_rates(rates, records)
    if goodput_s is not None:
        objective = {"color": "green", "linestyle": "dashed", "linewidth": 1, "label": "objective"}
        distribution.axvline(goodput_s, **objective)
        latencies.axhline(goodput_s, **objective)
        latencies.set_ylim(top=max(latencies.get_ylim()[1], 1.05 * goodput_s))
    for axes in (distribution, latencies, rates):
        axes.grid(alpha=0.3)
        axes.set_xlim(left=0)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    try:
        figure.savefig(path, dpi=120, format="png")
    except OSError as error:
        raise ConfigurationError(f"{path} can't be written: {error.strerror}") from None


def require_matplotlib() -> None:
    """Check that plots are possible.

    Raises:
        ConfigurationError: matplotlib isn't installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ConfigurationError("plots need matplotlib: pip install 'chairlift[plots]'") from None


def _draw_distribution(axes: Axes, records: Sequence[Record]) -> None:
    completed = [record for record in records if record.is_completed]
    for name, label in DISTRIBUTIONS.items():
        values = [value for one in completed if (value := MEASURES[name](one)) is not None]
        if values:
            axes.ecdf(values, label=label)
    for share, above in ((0.5, True), (0.95, False), (0.99, True)):
        axes.axhline(share, color="grey", linewidth=0.6, linestyle="dotted")
        axes.text(
            0.005,
            share,
            f"p{100 * share:g}",
            transform=axes.get_yaxis_transform(),
            verticalalignment="bottom" if above else "top",
            color="grey",
            fontsize="x-small",
        )
    axes.set(title="How long requests took", xlabel="seconds", ylabel="share of requests within")
    axes.set_ylim(0, 1.04)


def _draw_latencies(axes: Axes, records: Sequence[Record]) -> None:
    names = list(dict.fromkeys(record.group for record in records))
    if len(names) > MOST_COLOURS:
        names = [""]
    for name in names:
        own = [one for one in records if one.is_completed and name in ("", one.group)]
        axes.plot(*_points(own), "o", markersize=4, alpha=0.7, label=name or "completed")
    failed = [one for one in records if one.error is not None]
    if failed:
        axes.plot(*_points(failed), "kx", label="failed")
    axes.set(title="Each by its arrival", xlabel="arrival, s", ylabel="arrival to answer, s")
    axes.set_ylim(bottom=0)


def _points(records: Sequence[Record]) -> tuple[list[float], list[float]]:
    """Arrivals and latencies of those that ended."""
    ended = [(one.arrival_s, one.latency_s) for one in records if one.latency_s is not None]
    return [arrival for arrival, _ in ended], [latency for _, latency in ended]


def _draw_rates(axes: Axes, records: Sequence[Record]) -> None:
    """Of equal stretches of the run."""
    arrivals = [one.arrival_s for one in records]
    ends = [(one.finish_s, one.is_completed) for one in records if one.finish_s is not None]
    answers = [moment for moment, completed in ends if completed]
    failures = [moment for moment, completed in ends if not completed]
    end = max([*arrivals, *answers, *failures], default=0.0)
    edges = np.linspace(0.0, end or 1.0, min(max(len(records) // 5, 10), 40) + 1)
    series = {"arrivals": (arrivals, "C0"), "answers": (answers, "C1")}
    if failures:
        series["failures"] = (failures, "black")
    for name, (moments, colour) in series.items():
        counts, _ = np.histogram(moments, edges)
        axes.stairs(counts / np.diff(edges), edges, label=name, color=colour, linewidth=1.5)
    axes.set(title="How they came and went", xlabel="time, s", ylabel="requests a second")
    axes.set_ylim(bottom=0)
