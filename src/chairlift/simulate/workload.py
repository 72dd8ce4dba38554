"""What callers ask for: jobs, read from a file or drawn from a mix."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from chairlift.errors import ConfigurationError
from chairlift.scheduling.costs import Costs, Shape
from chairlift.scheduling.scheduler import MAX_BATCH_SIZE
from chairlift.validation import MAX_PRIORITY

CALLERS = 4
"""A drawn job is of one of so many callers, of whom the second asks half as often as the first, the
third a third as often, and so on."""

MOST_SECONDS = 1e9
"""Of a time in a file; beyond that a clock of floats would be too coarse."""

Entry = TypeVar("Entry")


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A request, as far as it costs anything."""

    arrival_s: float
    width: int
    """Pixels."""
    height: int
    frames: int = 1
    steps: int
    """Denoiser evaluations."""
    n: int = 1
    """Rows."""
    deadline_s: float | None = None
    """Counts from the arrival."""
    priority: int = 0
    """Higher goes first."""
    caller: str = ""

    @property
    def shape(self) -> Shape:
        return Shape(self.width, self.height, self.frames)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of job in a mix."""

    weight: float
    """Its share of the jobs."""
    side: int
    """Pixels; pictures are square."""
    least_steps: int
    most_steps: int
    """Steps are uniform between the two, which belong to it."""


Mix = Sequence[Kind]
MIXES: dict[str, Mix] = {
    "qwen": (Kind(0.5, 512, 20, 50), Kind(0.5, 1024, 20, 50)),
    "A": (Kind(1.0, 512, 20, 20),),
    "B": (Kind(1.0, 1536, 35, 35),),
    "C": (
        Kind(0.15, 512, 20, 20),
        Kind(0.25, 768, 20, 20),
        Kind(0.45, 1024, 25, 25),
        Kind(0.15, 1536, 35, 35),
    ),
}
"""By the names of :data:`~chairlift.simulate.names.MIX_NAMES`."""


def capacity(costs: Costs, mix: Mix) -> float:
    """Jobs a second whose steps one replica can do, if every forward is filled to the knee.
    Encoding and decoding aren't counted.
    """
    seconds = 0.0
    for kind in mix:
        curve = costs.step(Shape(kind.side, kind.side))
        full = max(curve.knee(MAX_BATCH_SIZE * costs.row_entries), costs.row_entries)
        steps = (kind.least_steps + kind.most_steps) / 2
        seconds += kind.weight * steps * costs.row_entries * curve.seconds(full) / full
    return 1 / (seconds / sum(kind.weight for kind in mix))


def alone(costs: Costs, job: Job) -> float:
    """Seconds of a job that has a replica to itself: its rows are encoded one by one, share
    forwards of whatever number makes that the shortest, and are decoded one by one.
    """
    curve, entries = costs.step(job.shape), costs.row_entries

    def step(rows: int) -> float:
        full, rest = divmod(job.n, rows)
        seconds = full * curve.seconds(rows * entries)
        return seconds + (curve.seconds(rest * entries) if rest else 0.0)

    each = costs.encode(job.shape) + costs.decode(job.shape)
    return job.n * each + job.steps * min(step(rows) for rows in range(1, job.n + 1))


def draw_kinds(
    weights: Sequence[float], count: int, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """For each of ``count`` jobs the number of its kind, and its place, from 0 to below 1, between
    the least and the most steps of that kind.
    """
    shares = np.array(weights) / sum(weights)
    return rng.choice(len(shares), size=count, p=shares), rng.random(count)


def steps_at(place: float, least: int, most: int) -> int:
    """The steps at a place from 0 to below 1; every number has the same chance."""
    return least + int(place * (most - least + 1))


def draw_jobs(mix: Mix, arrivals: Sequence[float], rng: np.random.Generator) -> list[Job]:
    """A job for each arrival."""
    count = len(arrivals)
    kinds, places = draw_kinds([kind.weight for kind in mix], count, rng)
    shares = 1 / np.arange(1, CALLERS + 1)
    callers = rng.choice(CALLERS, size=count, p=shares / shares.sum())
    names = [f"caller {number}" for number in range(CALLERS)]
    jobs = []
    for arrival, number, place, caller in zip(arrivals, kinds, places, callers, strict=True):
        kind = mix[number]
        steps = steps_at(float(place), kind.least_steps, kind.most_steps)
        jobs.append(
            Job(
                arrival_s=float(arrival),
                width=kind.side,
                height=kind.side,
                steps=steps,
                caller=names[caller],
            )
        )
    return jobs


# ---------------------------------------------------------------------- files


def read_jobs(path: str | Path) -> list[Job]:
    """The jobs of a JSON Lines file, in order of arrival; empty lines are passed over.

    Raises:
        ConfigurationError: The file can't be read, has no jobs, or a line is wrong.
    """
    return sorted(read_lines(path, _job, "workload", "jobs"), key=lambda job: job.arrival_s)


def read_lines(
    path: str | Path, parse: Callable[[Any], Entry], what: str, entries: str
) -> list[Entry]:
    """What the lines of a JSON Lines file say; empty lines are passed over.

    Args:
        path: Of the file.
        parse: Makes the value of a line an entry; a ValueError of it says what is wrong.
        what: The file is, for messages.
        entries: What its lines are, for messages.

    Raises:
        ConfigurationError: The file can't be read, has no entries, or a line is wrong.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the {what} {path} can't be read: {error}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(parse(json.loads(line)))
            except ValueError as error:
                raise ConfigurationError(f"{path}, line {number}: {error}") from None
    if not found:
        raise ConfigurationError(f"the {what} {path} has no {entries}")
    return found


def _job(entry: Any) -> Job:
    """The job of one line.

    Raises:
        ValueError: It is none.
    """
    check_names(entry, Job)
    for name in ("arrival_s", "width", "height", "steps"):
        if name not in entry:
            raise ValueError(f"{name} is missing")
    for name, value in entry.items():
        check_field(name, value)
    return Job(**entry)


def check_names(entry: Any, kind: type[Any]) -> None:
    """Check that a line's value is an object with no other fields than a dataclass has.

    Raises:
        ValueError: It isn't.
    """
    if not isinstance(entry, dict):
        raise ValueError("it is not a JSON object")
    names = {field.name for field in fields(kind)}
    if unknown := sorted(entry.keys() - names):
        raise ValueError(f"there is no field {unknown[0]!r}; the fields are {sorted(names)}")


def check_field(name: str, value: Any) -> None:
    """Check the value of a job's field.

    Raises:
        ValueError: It can't be.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    whole = number and isinstance(value, int)
    if name == "caller":
        good, bound = isinstance(value, str), "a string"
    elif name == "priority":
        good = whole and -MAX_PRIORITY <= value <= MAX_PRIORITY
        bound = f"a whole number from {-MAX_PRIORITY} to {MAX_PRIORITY}"
    elif name in ("arrival_s", "deadline_s"):
        good, bound = number and 0 <= value <= MOST_SECONDS, f"from 0 to {MOST_SECONDS:.0e}"
        good = good or (name == "deadline_s" and value is None)
    else:
        good, bound = whole and value >= 1, "a whole number from 1 on"
    if not good:
        raise ValueError(f"{name} is {value!r}; it must be {bound}")
