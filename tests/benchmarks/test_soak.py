"""What the soak calls a miss."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from benchmarks.soak import OTHER_FILES, Look, Usage, judge, table

USAGE = Usage(memory=100 * 2**20, files=20, threads=10)
LOOK = Look(requests=2000, seconds=10.0, front_end=USAGE, worker=USAGE, data_files=500)
RESTED = replace(LOOK, data_files=OTHER_FILES)


@pytest.mark.parametrize(
    ("last", "rested", "surprises", "missed"),
    [
        (LOOK, RESTED, {}, None),
        (
            replace(LOOK, worker=replace(USAGE, memory=106 * 2**20)),
            RESTED,
            {},
            "worker: memory has grown by 6.0%, less than 5 %",
        ),
        (
            replace(LOOK, front_end=replace(USAGE, files=21)),
            RESTED,
            {},
            "front end: 20 open files, then 21",
        ),
        (
            replace(LOOK, worker=replace(USAGE, threads=11)),
            RESTED,
            {},
            "worker: 10 threads, then 11",
        ),
        (LOOK, LOOK, {}, "500 files when all jobs are old, at most 8"),
        (LOOK, RESTED, {"a 500": 1}, "answers that shouldn't have come: {'a 500': 1}"),
    ],
    ids=["nothing", "memory", "files", "threads", "pictures", "answers"],
)
def test_what_was_not_kept_is_said(
    last: Look, rested: Look, surprises: dict[str, int], missed: str | None
) -> None:
    verdicts = judge([LOOK, last, rested], Counter(surprises))
    assert [words for is_kept, words in verdicts if not is_kept] == ([missed] if missed else [])


def test_the_table_has_a_line_for_each_look() -> None:
    lines = list(table([LOOK, RESTED]))
    assert lines[2:] == [
        "| 2,000 | 10 | 100.0 | 20 | 10 | 100.0 | 20 | 10 | 500 |",
        "| 2,000 | 10 | 100.0 | 20 | 10 | 100.0 | 20 | 10 | 8 |",
    ]
    assert len({line.count("|") for line in lines}) == 1
