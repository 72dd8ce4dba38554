"""What steps cost: seconds of a tick by the picture's shape and the entries of its forward.

An *entry* is a place in a forward: a row takes one, or two where it has classifier-free guidance.
A table comes from a file (``chairlift profile`` writes it) or is empty; what really ran refines it.
Plain arithmetic, like everything in this package.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

from chairlift.errors import ConfigurationError
from chairlift.request import GenerationRequest

UNKNOWN_SECONDS = 0.1
"""Of anything before it was measured. Only its ratios matter, and not for long."""
NEAR_THE_BEST = 0.03
"""At the knee, an entry costs at most this share more than it could in any larger forward."""
NEW_WEIGHT = 0.1
"""Of a tick beside what was known."""
KNEE_EVERY = 32
"""Measurements after which the knee is looked for again."""
EVIDENCE = 3
"""Ticks of a size before the cheapest of them counts: the first ones allocate and compile."""
COUNTS = ("rows", "forward_rows")
"""What a table may count: rows, guidance inside, or entries."""


class Shape(NamedTuple):
    """What a step's cost depends on, besides the number of entries."""

    width: int
    """Pixels."""
    height: int
    frames: int = 1

    @classmethod
    def of(cls, request: GenerationRequest) -> Shape:
        """That of a request."""
        return cls(request.width, request.height, request.frames)

    @property
    def pixels(self) -> int:
        return self.width * self.height * self.frames


class Curve:
    """Seconds by number of entries, from a table or from measurements: linear between two numbers
    that are known, and past the last one with the last slope.

    Args:
        points: By number of entries; may be empty.
        guessed: They were measured of another shape: what is right of them is the form of the
            curve, and the first measurement says how high it is.
    """

    def __init__(self, points: Mapping[int, float] | None = None, guessed: bool = False) -> None:
        self._points = dict(sorted((points or {}).items()))
        self._guessed = guessed
        self._sizes = list(self._points)
        self._early: dict[int, list[float]] = {}
        self._knees: dict[int, int] = {}
        self._observations = 0

    @property
    def points(self) -> Mapping[int, float]:
        return self._points

    def seconds(self, entries: float) -> float:
        """Of ``entries`` (at least 1) together."""
        if (known := self._points.get(entries)) is not None:  # type: ignore[call-overload]
            return float(known)
        if not self._sizes:
            return UNKNOWN_SECONDS * entries
        if len(self._sizes) == 1:
            return self._points[self._sizes[0]] * entries / self._sizes[0]
        right = min(max(bisect_left(self._sizes, entries), 1), len(self._sizes) - 1)
        a, b = self._sizes[right - 1], self._sizes[right]
        slope = (self._points[b] - self._points[a]) / (b - a)
        # Of fewer entries than ever measured, noise may have made the line come out below zero.
        return max(self._points[b] + slope * (entries - b), 0.1 * self._points[self._sizes[0]])

    def knee(self, most: int) -> int:
        """The number of entries, of at most ``most``, past which another one hardly makes an entry
        cheaper. Numbers past the last one that was measured are held to be worth trying.
        """
        if most not in self._knees:
            self._knees[most] = self._find_knee(most)
        return self._knees[most]

    def _find_knee(self, most: int) -> int:
        if len(self._sizes) < 2:
            return most
        sizes = range(1, min(most, self._sizes[-1]) + 1)
        each = [self.seconds(entries) / entries for entries in sizes]
        good_enough = min(each) * (1 + NEAR_THE_BEST)
        knee = next(entries for entries, seconds in enumerate(each, 1) if seconds <= good_enough)
        return most if knee == self._sizes[-1] else knee

    def knows(self, entries: int) -> bool:
        """Whether so many were measured, and often enough."""
        return entries in self._points and entries not in self._early and not self._guessed

    def observe(self, entries: int, seconds: float) -> None:
        """Learn from one measurement."""
        self._observations += 1
        if self._observations % KNEE_EVERY == 0:
            self._knees.clear()
        if self.knows(entries):
            self._points[entries] += NEW_WEIGHT * (seconds - self._points[entries])
            return
        early = self._early.setdefault(entries, [])
        early.append(seconds)
        if len(early) == EVIDENCE:
            del self._early[entries]
            self._learn(entries, min(early))
        elif self._sizes in ([], [entries]) and not self._guessed:
            self._learn(entries, min(early))  # Better than nothing.

    def _learn(self, entries: int, seconds: float) -> None:
        """Take in a size that wasn't measured before."""
        guess = self.seconds(entries)
        factor = seconds / guess if self._guessed and guess else 1.0
        points = {known: value * factor for known, value in self._points.items()}
        self._points = dict(sorted((points | {entries: seconds}).items()))
        self._sizes = list(self._points)
        self._guessed = False
        self._knees.clear()


class Costs:
    """The curves of every shape of one model.

    Args:
        table: As ``chairlift profile`` writes it; None starts with nothing.
        row_entries: Entries of the rows that the table counts, where it counts rows; None is what
            the table itself says, or else 1.

    Raises:
        ConfigurationError: It is no cost table.
    """

    def __init__(
        self, table: Mapping[str, Any] | None = None, row_entries: int | None = None
    ) -> None:
        self.row_entries = _row_entries(table or {}) if row_entries is None else row_entries
        """Entries of a row that asks for nothing special; what rows are in the simulator."""
        entries = self.row_entries if (table or {}).get("counts", "rows") == "rows" else 1
        self._step: dict[Shape, Curve] = {}
        self._encode: dict[Shape, Curve] = {}
        self._decode: dict[Shape, Curve] = {}
        for number, entry in enumerate(_shapes(table) if table is not None else ()):
            try:
                shape = Shape(entry["width"], entry["height"], entry.get("frames", 1))
                _check_shape(shape, self._step)
                self._step[shape] = _curve(_steps(entry), entries)
                self._encode[shape] = _curve(entry.get("encode_seconds", {}))
                self._decode[shape] = _curve(entry.get("decode_seconds", {}))
            except ValueError as error:
                raise ConfigurationError(f"cost table: shape {number}: {error}") from None
            except (AttributeError, KeyError, TypeError) as error:
                raise ConfigurationError(f"cost table: shape {number}: {error!r}") from None

    @property
    def shapes(self) -> list[Shape]:
        return list(self._step)

    def step(self, shape: Shape) -> Curve:
        """Seconds of a step, by entries. A shape that isn't known yet costs what the nearest one
        costs a pixel.
        """
        return self._find(self._step, shape)

    def encode(self, shape: Shape) -> float:
        """Seconds until one newcomer has its slot."""
        return self._once(self._encode, shape)

    def decode(self, shape: Shape) -> float:
        """Seconds to decode one row."""
        return self._once(self._decode, shape)

    def observe_encode(self, shape: Shape, seconds: float) -> None:
        """Learn what one newcomer took."""
        self._find(self._encode, shape).observe(1, seconds)

    def observe_decode(self, shape: Shape, seconds: float) -> None:
        """Learn what decoding one row took."""
        self._find(self._decode, shape).observe(1, seconds)

    def _once(self, curves: dict[Shape, Curve], shape: Shape) -> float:
        curve = self._find(curves, shape)
        return curve.seconds(1) if curve.points else 0.0

    def _find(self, curves: dict[Shape, Curve], shape: Shape) -> Curve:
        if shape not in curves:
            curves[shape] = self._guess(curves, shape)
        return curves[shape]

    def _guess(self, curves: Mapping[Shape, Curve], shape: Shape) -> Curve:
        known = [other for other, curve in curves.items() if curve.points]
        if not known:
            return Curve()
        nearest = min(known, key=lambda other: abs(other.pixels - shape.pixels))
        factor = shape.pixels / nearest.pixels
        points = {rows: s * factor for rows, s in curves[nearest].points.items()}
        return Curve(points, guessed=True)


def _shapes(table: Mapping[str, Any]) -> Sequence[Any]:
    shapes = table.get("shapes")
    if not isinstance(shapes, list) or not shapes:
        raise ConfigurationError("cost table: it has no shapes")
    return shapes


def _check_shape(shape: Shape, known: Container[Shape]) -> None:
    """Check that a shape can be, and that it isn't there yet.

    Raises:
        ValueError: It can't, or it is.
    """
    for name, value in zip(Shape._fields, shape, strict=True):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}; it must be a whole number from 1 on")
    if shape in known:
        raise ValueError(f"{shape.width}x{shape.height}, frames {shape.frames}, is there twice")


def _steps(entry: Mapping[str, Any]) -> Mapping[str, float]:
    """The seconds of steps.

    Raises:
        ValueError: There are none, or there is one that takes no time.
    """
    seconds: Mapping[str, float] = entry["step_seconds"]
    if not seconds or any(float(value) == 0 for value in seconds.values()):
        raise ValueError(f"step_seconds is {seconds!r}; it must have numbers, all above 0")
    return seconds


def _row_entries(table: Mapping[str, Any]) -> int:
    counts = table.get("counts", "rows")
    if counts not in COUNTS:
        raise ConfigurationError(
            f"cost table: counts is {counts!r}; it must be one of {', '.join(COUNTS)}"
        )
    entries = table.get("row_entries", 1)
    if entries not in (1, 2):
        raise ConfigurationError(f"cost table: row_entries is {entries!r}; it must be 1 or 2")
    return int(entries)


def _curve(points: Mapping[str, float], entries: int = 1) -> Curve:
    """A curve by entries.

    Args:
        points: Seconds, by numbers of what takes so many entries.
        entries: Of each.
    """
    curve = {int(number) * entries: float(seconds) for number, seconds in points.items()}
    if any(number < 1 or not 0 <= seconds < float("inf") for number, seconds in curve.items()):
        raise ValueError(f"{dict(points)} has a number that can't be")
    return Curve(curve)
