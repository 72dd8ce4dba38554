"""What callers got, beside what they would have got from a server that nobody breaks."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np
from PIL import Image

from benchmarks.chaos.audit import Audit
from benchmarks.chaos.callers import Kind, Outcome
from benchmarks.chaos.disturbances import Outage


class Verdict(StrEnum):
    """On what one caller got."""

    SAME = "same to the byte"
    CLOSE = "within 1/255"
    WRONG = "wrong"
    CUT_OFF = "cut off by a server kill"
    FAILED = "failed otherwise"


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What one run of all requests has left."""

    outcomes: Sequence[Outcome]
    outages: Sequence[Outage]
    audit: Audit
    restarts: int
    """How many workers were replaced."""
    exit_status: int
    """Of the server, when it was told to end."""
    leftovers: Sequence[str]


def compare(expected: bytes, picture: bytes) -> Verdict:
    """How far a picture's file is from the one that is expected."""
    if picture == expected:
        return Verdict.SAME
    one, other = (
        np.asarray(Image.open(io.BytesIO(file)), np.int16) for file in (expected, picture)
    )
    if one.shape != other.shape or np.abs(one - other).max() > 1:
        return Verdict.WRONG
    return Verdict.CLOSE


def judge(outcome: Outcome, expected: bytes, outages: Sequence[Outage]) -> Verdict:
    """A connection may break only while there is no server; a job's caller comes again."""
    if outcome.picture is not None:
        return compare(expected, outcome.picture)
    meanwhile = any(
        outcome.sent <= outage.end and outage.start <= outcome.ended for outage in outages
    )
    is_excused = outcome.kind is not Kind.JOB and outcome.lost_connection and meanwhile
    return Verdict.CUT_OFF if is_excused else Verdict.FAILED


def longest_gap(outcomes: Sequence[Outcome]) -> float:
    """Seconds between two pictures, at most."""
    times = sorted(outcome.ended for outcome in outcomes if outcome.picture is not None)
    return max((later - earlier for earlier, later in pairwise(times)), default=0.0)


def acknowledged(run: Run) -> int:
    """How many jobs were accepted."""
    return sum(outcome.job_id is not None for outcome in run.outcomes)


@dataclass(frozen=True, slots=True)
class Report:
    """The disturbed run beside the undisturbed one."""

    calm: Run
    disturbed: Run

    @property
    def verdicts(self) -> list[Verdict]:
        """On each request, in order."""
        pairs = zip(self.calm.outcomes, self.disturbed.outcomes, strict=True)
        return [
            judge(outcome, expected.picture or b"", self.disturbed.outages)
            for expected, outcome in pairs
        ]

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, doubled or wrong, nothing failed, and nothing is left."""
        run = self.disturbed
        bad = {Verdict.WRONG, Verdict.FAILED}.intersection(self.verdicts)
        books = run.audit.lost | run.audit.doubled
        return not (bad or books or run.leftovers or run.exit_status)

    def lines(self) -> Iterator[str]:
        """Two tables of Markdown, and what has failed."""
        run, verdicts = self.disturbed, self.verdicts
        counts = Counter((o.kind, v) for o, v in zip(run.outcomes, verdicts, strict=True))
        yield "| requests | " + " | ".join(Verdict) + " |"
        yield "| --- |" + " --- |" * len(Verdict)
        for kind in Kind:
            cells = " | ".join(str(counts[kind, verdict]) for verdict in Verdict)
            yield f"| {kind} | {cells} |"
        repeated = sum(outcome.posts > 1 for outcome in run.outcomes)
        yield "\n| | undisturbed | disturbed |\n| --- | --- | --- |"
        jobs = [acknowledged(either) for either in (self.calm, run)]
        yield f"| jobs acknowledged | {jobs[0]} | {jobs[1]} |"
        yield f"| … after their connection broke | 0 | {repeated} |"
        yield f"| … lost | {len(self.calm.audit.lost)} | {len(run.audit.lost)} |"
        yield f"| … doubled | {len(self.calm.audit.doubled)} | {len(run.audit.doubled)} |"
        yield f"| workers replaced, by the log | {self.calm.restarts} | {run.restarts} |"
        gaps = [longest_gap(either.outcomes) for either in (self.calm, run)]
        yield f"| longest time without a picture, s | {gaps[0]:.1f} | {gaps[1]:.1f} |"
        slowest = [max(o.ended - o.sent for o in either.outcomes) for either in (self.calm, run)]
        yield f"| slowest answer, s | {slowest[0]:.1f} | {slowest[1]:.1f} |"
        left = [len(either.leftovers) for either in (self.calm, run)]
        yield f"| processes and temporary files left | {left[0]} | {left[1]} |"
        yield ""
        for outcome, verdict in zip(run.outcomes, verdicts, strict=True):
            if verdict in (Verdict.WRONG, Verdict.FAILED):
                yield f"request {outcome.number} ({outcome.kind}): {verdict}, {outcome.error}"
        yield from (f"left: {leftover}" for leftover in run.leftovers)
