"""What came out, as figures: of the records, and of nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from chairlift.bench.records import Record

MEASURES: Mapping[str, Callable[[Record], float | None]] = {
    "latency": lambda record: record.latency_s,
    "held": lambda record: record.held_s,
    "response": lambda record: record.response_s,
    "queue": lambda record: record.queue_s,
    "service": lambda record: record.service_s,
    "encode": lambda record: record.encode_s,
    "denoise": lambda record: record.denoise_s,
    "decode": lambda record: record.decode_s,
    "outside": lambda record: record.outside_s,
}
"""Seconds of a completed request, by their names in the report."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """Of seconds; percentiles between two values are interpolated."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """How far a bound on latency was met. Who failed has missed it."""

    name: str
    requests: int
    """That ended and have the bound."""
    attainment: float
    """Share of them that met it."""
    goodput: float
    """Requests a second that met it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Requests of one kind."""

    name: str
    ended: int
    failed: int
    latency: Distribution | None
    """None where none was completed."""
    alone_s: float | None
    """Mean; None where it isn't known."""
    slowdown: float | None
    """Mean of latency over the time alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The figures of one run."""

    planned: int
    sent: int
    completed: int
    failed: int
    unfinished: int
    """That were under way when the run was ended early."""
    duration_s: float
    """From the first arrival to the last end."""
    arrivals_per_s: float | None
    """As sent; None where all came at once."""
    throughput: float
    """Completed requests a second."""
    images_per_s: float
    goodput: float | None
    """Requests a second that met all objectives that they have; None where there is none."""
    objectives: Sequence[Objective]
    slowdown: float | None
    """Mean of latency over the time alone."""
    seconds: Mapping[str, Distribution | None]
    """By the names of :data:`MEASURES`; None where the server doesn't say it."""
    errors: Mapping[str, int]
    """By their kinds."""
    messages: Mapping[str, str]
    """The first of each kind of error."""
    most_in_flight: int
    """Requests under way at a time."""
    mean_in_flight: float
    largest_late_s: float
    """By how much this program sent a request too late, at most."""
    groups: Sequence[Group]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def create_summary(
    records: Iterable[Record],
    *,
    planned: int,
    goodput_s: float | None = None,
    slo_scale: float | None = None,
) -> Summary:
    """The figures of a run.

    Args:
        records: Of all requests that were sent; there may be none.
        planned: How many requests there would have been.
        goodput_s: An objective: seconds of latency.
        slo_scale: An objective: so many times the time alone. Records without that have no such
            objective.
    """
    records = sorted(records, key=lambda record: record.number)
    ended = [record for record in records if record.finish_s is not None]
    completed = [record for record in ended if record.is_completed]
    errors = [record for record in ended if record.error is not None]
    duration = _duration(ended)
    bounds = _bounds(goodput_s, slo_scale)
    return Summary(
        planned=planned,
        sent=len(records),
        completed=len(completed),
        failed=len(errors),
        unfinished=len(records) - len(ended),
        duration_s=duration,
        arrivals_per_s=_arrival_rate(records),
        throughput=_per_second(len(completed), duration),
        images_per_s=_per_second(sum(record.images for record in completed), duration),
        goodput=_goodput(ended, bounds.values(), duration),
        objectives=_objectives(ended, bounds, duration),
        slowdown=_slowdown(completed),
        seconds={
            name: _distribution(measure(record) for record in completed)
            for name, measure in MEASURES.items()
        },
        errors=dict(Counter(str(record.error) for record in errors)),
        messages={str(record.error): record.message or "" for record in reversed(errors)},
        most_in_flight=_most_in_flight(records),
        mean_in_flight=_per_second(sum(record.response_s or 0.0 for record in ended), duration),
        largest_late_s=max((record.late_s for record in records), default=0.0),
        groups=[
            _group(name, [record for record in ended if record.group == name])
            for name in dict.fromkeys(record.group for record in records)
        ],
    )


# ---------------------------------------------------------------------- objectives

Bound = Callable[[Record], float | None]
"""Seconds of latency that a request may take; None if it has no such objective."""


def _bounds(goodput_s: float | None, slo_scale: float | None) -> dict[str, Bound]:
    bounds: dict[str, Bound] = {}
    if goodput_s is not None:
        bounds[f"e2el {1000 * goodput_s:g} ms"] = lambda record: goodput_s
    if slo_scale is not None:
        bounds[f"{slo_scale:g} x the time alone"] = lambda record: (
            None if record.alone_s is None else slo_scale * record.alone_s
        )
    bounds["deadline"] = lambda record: record.deadline_s
    return bounds


def _is_met(record: Record, bound: Bound) -> bool | None:
    """None if it has no such objective."""
    seconds = bound(record)
    if seconds is None:
        return None
    return record.is_completed and record.latency_s is not None and record.latency_s <= seconds


def _objectives(
    ended: Sequence[Record], bounds: Mapping[str, Bound], duration: float
) -> list[Objective]:
    objectives = []
    for name, bound in bounds.items():
        met = [one for record in ended if (one := _is_met(record, bound)) is not None]
        if met:
            objective = Objective(
                name=name,
                requests=len(met),
                attainment=fmean(met),
                goodput=_per_second(sum(met), duration),
            )
            objectives.append(objective)
    return objectives


def _goodput(ended: Sequence[Record], bounds: Iterable[Bound], duration: float) -> float | None:
    known = tuple(bounds)
    verdicts = [{_is_met(record, bound) for bound in known} - {None} for record in ended]
    if not any(verdicts):
        return None
    good = sum(
        record.is_completed and False not in verdict
        for record, verdict in zip(ended, verdicts, strict=True)
    )
    return _per_second(good, duration)


# ---------------------------------------------------------------------- figures


def _distribution(values: Iterable[float | None]) -> Distribution | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    p50, p90, p95, p99 = (float(value) for value in np.percentile(known, [50, 90, 95, 99]))
    return Distribution(mean=fmean(known), p50=p50, p90=p90, p95=p95, p99=p99, max=max(known))


def _slowdown(completed: Iterable[Record]) -> float | None:
    ratios = [
        record.latency_s / record.alone_s
        for record in completed
        if record.alone_s and record.latency_s is not None
    ]
    return fmean(ratios) if ratios else None


def _group(name: str, ended: Sequence[Record]) -> Group:
    completed = [record for record in ended if record.is_completed]
    alone = [record.alone_s for record in ended if record.alone_s is not None]
    return Group(
        name=name,
        ended=len(ended),
        failed=len(ended) - len(completed),
        latency=_distribution(record.latency_s for record in completed),
        alone_s=fmean(alone) if alone else None,
        slowdown=_slowdown(completed),
    )


def _duration(ended: Sequence[Record]) -> float:
    if not ended:
        return 0.0
    last = max(record.finish_s for record in ended if record.finish_s is not None)
    return last - min(record.arrival_s for record in ended)


def _per_second(amount: float, duration: float) -> float:
    return amount / duration if duration else 0.0


def _arrival_rate(records: Sequence[Record]) -> float | None:
    arrivals = [record.arrival_s for record in records]
    span = max(arrivals) - min(arrivals) if arrivals else 0.0
    return (len(arrivals) - 1) / span if span else None


def _most_in_flight(records: Iterable[Record]) -> int:
    """A request that ends when another is sent makes room for it."""
    moments = [(record.sent_s, 1) for record in records]
    moments += [(record.finish_s, -1) for record in records if record.finish_s is not None]
    now = most = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return most
