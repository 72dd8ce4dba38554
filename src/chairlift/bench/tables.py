"""The report of a run on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from chairlift.bench.report import Distribution, Summary

LATE_SECONDS = 0.05
"""Sends that are later than this call for a warning."""
MEASURES = {
    "latency": "latency: arrival to answer",
    "held": "  held back in this client",
    "response": "  sent to answer",
    "queue": "    server: queue",
    "service": "    server: service",
    "encode": "      encode",
    "denoise": "      denoise",
    "decode": "      decode",
    "outside": "    network and HTTP",
}
"""What is shown, and how it is called."""


def create_tables(summary: Summary) -> Iterator[RenderableType]:
    """What is worth showing of the figures."""
    yield _figures(summary)
    if summary.seconds["latency"]:
        yield _seconds(summary)
    if len(summary.groups) > 1:
        yield _groups(summary)
    if summary.errors:
        yield _errors(summary)


def warnings(summary: Summary) -> Iterator[str]:
    """What makes the figures doubtful."""
    if summary.largest_late_s > LATE_SECONDS:
        yield (
            f"a request was sent {1000 * summary.largest_late_s:.0f} ms too late: this client was "
            "too busy, and latencies have its delay in them"
        )
    if summary.unfinished or summary.sent < summary.planned:
        yield (
            f"ended early: {summary.unfinished} under way are left out, and "
            f"{summary.planned - summary.sent} were not sent"
        )


def _figures(summary: Summary) -> Table:
    rows = {
        "requests completed": f"{summary.completed} of {summary.planned}",
        "requests failed": str(summary.failed),
        "duration": f"{summary.duration_s:.2f} s",
        "arrivals": "at once"
        if summary.arrivals_per_s is None
        else f"{summary.arrivals_per_s:.3f} requests/s",
        "throughput": f"{summary.throughput:.3f} requests/s, {summary.images_per_s:.3f} images/s",
        "under way": f"{summary.mean_in_flight:.1f} mean, {summary.most_in_flight} at most",
        "largest lateness of a send": f"{1000 * summary.largest_late_s:.1f} ms",
    }
    if summary.slowdown is not None:
        rows["slowdown"] = f"{summary.slowdown:.2f} x the time alone"
    for objective in summary.objectives:
        share = f"{objective.attainment:.1%} of {objective.requests}"
        rows[f"within {objective.name}"] = f"{share}, {objective.goodput:.3f} requests/s"
    if summary.goodput is not None:
        rows["goodput"] = f"{summary.goodput:.3f} requests/s"
    table = Table(box=box.MARKDOWN)
    table.add_column("figure", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _seconds(summary: Summary) -> Table:
    table = Table(box=box.MARKDOWN)
    table.add_column("seconds", no_wrap=True)
    for name in ("mean", "p50", "p90", "p95", "p99", "max"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, title in MEASURES.items():
        distribution = summary.seconds[name]
        if distribution and not (name == "held" and distribution.max < 0.001):
            table.add_row(title, *_cells(distribution))
    return table


def _cells(distribution: Distribution) -> list[str]:
    one = distribution
    return [f"{value:.3f}" for value in (one.mean, one.p50, one.p90, one.p95, one.p99, one.max)]


def _groups(summary: Summary) -> Table:
    table = Table(box=box.MARKDOWN)
    table.add_column("kind", overflow="fold")
    for name in ("ended", "failed", "mean s", "p50 s", "p99 s", "alone s", "slowdown"):
        table.add_column(name, justify="right", no_wrap=True)
    for group in summary.groups:
        latency = group.latency
        values = (latency.mean, latency.p50, latency.p99) if latency else (None, None, None)
        table.add_row(
            Text(group.name),
            str(group.ended),
            str(group.failed),
            *("-" if value is None else f"{value:.3f}" for value in (*values, group.alone_s)),
            "-" if group.slowdown is None else f"{group.slowdown:.2f}",
        )
    return table


def _errors(summary: Summary) -> Table:
    table = Table(box=box.MARKDOWN)
    table.add_column("error", no_wrap=True)
    table.add_column("requests", justify="right", no_wrap=True)
    table.add_column("the first says", overflow="fold")
    for kind, count in sorted(summary.errors.items(), key=lambda item: -item[1]):
        table.add_row(Text(kind), str(count), Text(summary.messages[kind]))
    return table
