"""What the overload benchmark calls a miss."""

from __future__ import annotations

import argparse

import pytest

from benchmarks.overload import Answer, Phase, judge, table

OPTIONS = argparse.Namespace(times=5.0, max_queue=20)


def some(count: int, status: int, seconds: float, retry_after: int | None = None) -> list[Answer]:
    return [Answer(100.0, 100.0 + seconds, status, retry_after) for _ in range(count)]


def a_phase(answers: list[Answer], sent: int | None = None) -> Phase:
    """Ten seconds."""
    sent = len(answers) if sent is None else sent
    return Phase(
        name="it",
        start=100.0,
        end=110.0,
        due=500,
        sent=sent,
        answers=answers,
        health=[0.01],
        front_end=0.5,
    )


CAPACITY = a_phase(some(100, 200, 2.0))
REFUSED = some(400, 429, 0.01, retry_after=2)


@pytest.mark.parametrize(
    ("overload", "missed"),
    [
        (a_phase(some(96, 200, 2.5) + REFUSED, 500), None),
        (a_phase(some(94, 200, 2.5) + REFUSED, 500), "served 0.940 of the capacity"),
        (a_phase(some(100, 200, 4.5) + REFUSED, 500), "p99 of the served 4.50 s, at most 4.00"),
        (a_phase(REFUSED, 500), "p99 of the served"),
        (a_phase(some(100, 200, 2.5) + REFUSED, 450), "sent 0.900 of what was to be sent"),
        (a_phase(some(100, 200, 2.5) + REFUSED + some(1, 503, 0.1), 501), "{503: 1}"),
        (a_phase(some(100, 200, 2.5) + REFUSED + some(2, 0, 0.1), 502), "{0: 2}"),
        (a_phase(some(100, 200, 2.5) + REFUSED + some(1, 429, 0.1), 501), "{429: 1}"),
        (a_phase(some(100, 200, 2.5) + REFUSED + some(1, 429, 0.1, 121), 501), "{429: 1}"),
    ],
)
def test_what_was_not_kept_is_said(overload: Phase, missed: str | None) -> None:
    phases = [CAPACITY, overload, CAPACITY]
    misses = [words for is_kept, words in judge(phases, OPTIONS) if not is_kept]
    assert bool(misses) == (missed is not None)
    assert missed is None or any(missed in words for words in misses)


def test_the_table_has_a_column_for_each_phase() -> None:
    lines = list(table([CAPACITY, a_phase(some(100, 200, 2.5) + REFUSED, 500), CAPACITY]))
    assert "| sent, requests/s | 10.0 | 50.0 | 10.0 |" in lines
    assert "| refused with 429, requests/s | 0.0 | 40.0 | 0.0 |" in lines
    assert "| `Retry-After`, s | – | 2 to 2 | – |" in lines
    times = ["2000 / 2000 / 2000", "2500 / 2500 / 2500", "2000 / 2000 / 2000"]
    assert f"| served: p50 / p99 / slowest, ms | {' | '.join(times)} |" in lines
