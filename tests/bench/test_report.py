"""Figures of records made by hand."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from chairlift.bench.records import Record
from chairlift.bench.report import MEASURES, Distribution, Summary, create_summary
from chairlift.bench.tables import MEASURES as SHOWN
from chairlift.bench.tables import create_tables, warnings
from tests.bench.builders import a_record


def summary_of(*records: Record, **settings: float) -> Summary:
    return create_summary(records, **({"planned": len(records)} | settings))  # type: ignore[arg-type]


def failed(number: int, error: str = "timeout", message: str = "too slow") -> Record:
    return a_record(number, error=error, message=message, status=None, images=0)


def shown(summary: Summary) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        for table in create_tables(summary):
            console.print(table)
    return capture.get()


def test_rates_are_over_the_time_from_the_first_arrival_to_the_last_end() -> None:
    # Arrivals at 1, 2, 3 s, the last end at 6 s.
    summary = summary_of(a_record(1), a_record(2, images=3), a_record(3, finish_s=6.0))
    assert summary.duration_s == 5.0
    assert summary.throughput == pytest.approx(3 / 5)
    assert summary.images_per_s == pytest.approx(5 / 5)
    assert summary.arrivals_per_s == pytest.approx(1.0)
    assert (summary.mean_in_flight, summary.most_in_flight) == (pytest.approx(5 / 5), 1)


def test_percentiles_are_of_what_was_completed() -> None:
    latencies = [float(number) for number in range(1, 102)]  # 1 to 101 s
    records = [a_record(i, arrival_s=0.0, finish_s=s) for i, s in enumerate(latencies)]
    records.append(a_record(200, arrival_s=0.0, finish_s=1000.0, error="timeout"))
    assert summary_of(*records).seconds["latency"] == Distribution(
        mean=51.0, p50=51.0, p90=91.0, p95=96.0, p99=100.0, max=101.0
    )


def test_the_wait_in_the_client_is_part_of_the_latency_and_apart() -> None:
    record = a_record(
        0, late_s=0.5, held_s=2.0, sent_s=2.5, finish_s=4.0, queue_s=0.25, total_s=1.0
    )
    seconds = summary_of(record).seconds
    means = {name: one.mean for name, one in seconds.items() if one}
    assert means == {
        "latency": 4.0,
        "held": 2.0,
        "response": 1.5,
        "queue": 0.25,
        "service": 0.75,
        "outside": 0.5,
    }
    assert summary_of(record).largest_late_s == 0.5


def test_objectives_count_failures_as_missed_and_goodput_meets_all() -> None:
    records = [
        a_record(0, alone_s=1.0),  # meets both
        a_record(1, alone_s=0.1),  # meets the first
        a_record(2, finish_s=5.0, alone_s=2.0),  # 3 s: meets the second
        failed(3),
    ]
    summary = summary_of(*records, goodput_s=2.0, slo_scale=3.0)
    # From 0 to 5 s.
    assert [(one.name, one.requests, one.attainment) for one in summary.objectives] == [
        ("e2el 2000 ms", 4, 0.5),
        ("3 x the time alone", 3, pytest.approx(2 / 3)),
    ]
    assert [one.goodput for one in summary.objectives] == [pytest.approx(2 / 5)] * 2
    assert summary.goodput == pytest.approx(1 / 5)
    assert summary.slowdown == pytest.approx((1 + 10 + 1.5) / 3)


def test_deadlines_are_objectives_of_those_who_have_one() -> None:
    summary = summary_of(a_record(0, deadline_s=2.0), a_record(1, deadline_s=0.5), a_record(2))
    [objective] = summary.objectives
    assert (objective.name, objective.requests, objective.attainment) == ("deadline", 2, 0.5)
    assert summary.goodput == pytest.approx(2 / 3)


def test_without_objectives_there_is_no_goodput() -> None:
    summary = summary_of(a_record(0))
    assert (summary.goodput, summary.objectives, summary.slowdown) == (None, [], None)


def test_errors_are_counted_by_kind_with_what_the_first_says() -> None:
    summary = summary_of(
        a_record(0), failed(1, message="[red]first"), failed(2), failed(3, "http 500", "oh")
    )
    assert (summary.completed, summary.failed) == (1, 3)
    assert summary.errors == {"timeout": 2, "http 500": 1}
    assert summary.messages == {"timeout": "[red]first", "http 500": "oh"}
    assert "[red]first" in shown(summary)
    assert json.loads(json.dumps(summary.to_json()))["errors"] == {"timeout": 2, "http 500": 1}


def test_who_was_under_way_at_an_early_end_is_neither_completed_nor_failed() -> None:
    summary = summary_of(a_record(0), a_record(1, finish_s=None), planned=5)
    assert (summary.sent, summary.completed, summary.failed, summary.unfinished) == (2, 1, 0, 1)
    [warning] = warnings(summary)
    assert warning == "ended early: 1 under way are left out, and 3 were not sent"


def test_nothing_at_all_is_a_report_too() -> None:
    summary = summary_of(planned=5)
    assert (summary.throughput, summary.duration_s, summary.arrivals_per_s) == (0.0, 0.0, None)
    assert "0 of 5" in shown(summary)


def test_who_ends_as_another_is_sent_makes_room() -> None:
    together = [a_record(number, arrival_s=0.0) for number in range(3)]
    assert summary_of(*together).most_in_flight == 3
    assert summary_of(*together, a_record(3, arrival_s=1.0)).most_in_flight == 3


def test_groups_are_apart() -> None:
    summary = summary_of(
        a_record(0, group="small", alone_s=0.5),
        a_record(1, group="large", finish_s=4.0),
        a_record(2, group="large", error="timeout"),
    )
    small, large = summary.groups
    assert (small.name, small.ended, small.failed, small.slowdown) == ("small", 1, 0, 2.0)
    assert (large.name, large.ended, large.failed, large.slowdown) == ("large", 2, 1, None)
    assert large.latency is not None
    assert large.latency.mean == 3.0
    assert "large" in shown(summary)


def test_a_client_that_is_too_slow_is_seen() -> None:
    assert list(warnings(summary_of(a_record(0, late_s=0.01)))) == []
    [warning] = warnings(summary_of(a_record(0, late_s=0.2)))
    assert warning.startswith("a request was sent 200 ms too late")


def test_every_measure_is_shown() -> None:
    assert list(SHOWN) == list(MEASURES)
    names = ("queue_s", "encode_s", "denoise_s", "decode_s", "total_s", "held_s")
    text = shown(summary_of(a_record(0, **dict.fromkeys(names, 0.125))))
    assert all(title in text for title in SHOWN.values())
