"""What steps cost: seconds of a tick by the picture's shape and the number of its rows.

A table comes from a file (``chairlift profile`` writes it) or is empty; the ticks that really run
refine it. Plain arithmetic, like everything in this package.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from chairlift.errors import ConfigurationError

UNKNOWN_SECONDS = 0.1
"""Of anything before it was measured. Only its ratios matter, and not for long."""
NEAR_THE_BEST = 0.03
"""At the knee, a row costs at most this share more than it could in any larger batch."""
NEW_WEIGHT = 0.1
"""Of a tick beside what was known."""
KNEE_EVERY = 32
"""Measurements after which the knee is looked for again."""
EVIDENCE = 3
"""Ticks of a size before the cheapest of them counts: the first ones allocate and compile."""


class Shape(NamedTuple):
    """What a step's cost depends on, besides the number of rows."""

    width: int
    """Pixels."""
    height: int
    frames: int = 1

    @property
    def pixels(self) -> int:
        return self.width * self.height * self.frames


class Curve:
    """Seconds by number of rows, from a table or from measurements: linear between two numbers
    that are known, and past the last one with the last slope.

    Args:
        points: By number of rows; may be empty.
        guessed: They were measured of another shape: what is right of them is the form of the
            curve, and the first measurement says how high it is.
    """

    def __init__(self, points: Mapping[int, float] | None = None, guessed: bool = False) -> None:
        self._points = dict(sorted((points or {}).items()))
        self._guessed = guessed
        self._rows = list(self._points)
        self._early: dict[int, list[float]] = {}
        self._knees: dict[int, int] = {}
        self._observations = 0

    @property
    def points(self) -> Mapping[int, float]:
        return self._points

    def seconds(self, rows: int) -> float:
        """Of ``rows`` (at least 1) together."""
        if rows in self._points:
            return self._points[rows]
        if not self._rows:
            return UNKNOWN_SECONDS * rows
        if len(self._rows) == 1:
            return self._points[self._rows[0]] * rows / self._rows[0]
        right = min(max(bisect_left(self._rows, rows), 1), len(self._rows) - 1)
        a, b = self._rows[right - 1], self._rows[right]
        slope = (self._points[b] - self._points[a]) / (b - a)
        # Of fewer rows than ever measured, noise may have made the line come out below zero.
        return max(self._points[b] + slope * (rows - b), 0.1 * self._points[self._rows[0]])

    def knee(self, most: int) -> int:
        """The number of rows, of at most ``most``, past which another one hardly makes a row
        cheaper. Numbers past the last one that was measured are held to be worth trying.
        """
        if most not in self._knees:
            self._knees[most] = self._find_knee(most)
        return self._knees[most]

    def _find_knee(self, most: int) -> int:
        if not self._rows or self._rows[-1] == 1:
            return most
        each = [self.seconds(rows) / rows for rows in range(1, min(most, self._rows[-1]) + 1)]
        good_enough = min(each) * (1 + NEAR_THE_BEST)
        knee = next(rows for rows, seconds in enumerate(each, 1) if seconds <= good_enough)
        return most if knee == self._rows[-1] else knee

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from one measurement."""
        self._observations += 1
        if self._observations % KNEE_EVERY == 0:
            self._knees.clear()
        if rows in self._points and not self._guessed:
            self._points[rows] += NEW_WEIGHT * (seconds - self._points[rows])
            return
        early = self._early.setdefault(rows, [])
        early.append(seconds)
        if len(early) == EVIDENCE or not self._rows:
            self._learn(rows, min(early))

    def _learn(self, rows: int, seconds: float) -> None:
        """Take in a size that wasn't measured before."""
        factor = seconds / self.seconds(rows) if self._guessed else 1.0
        points = {known: value * factor for known, value in self._points.items()}
        self._points = dict(sorted((points | {rows: seconds}).items()))
        self._rows = list(self._points)
        self._guessed = False
        self._knees.clear()


class Costs:
    """The curves of every shape of one model.

    Args:
        table: As ``chairlift profile`` writes it; None starts with nothing.

    Raises:
        ConfigurationError: It is no cost table.
    """

    def __init__(self, table: Mapping[str, Any] | None = None) -> None:
        self._step: dict[Shape, Curve] = {}
        self._encode: dict[Shape, Curve] = {}
        self._decode: dict[Shape, Curve] = {}
        for number, entry in enumerate(_shapes(table) if table is not None else ()):
            try:
                shape = Shape(
                    int(entry["width"]), int(entry["height"]), int(entry.get("frames", 1))
                )
                self._step[shape] = _curve(entry["step_seconds"])
                self._encode[shape] = _curve(entry.get("encode_seconds", {}))
                self._decode[shape] = _curve(entry.get("decode_seconds", {}))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise ConfigurationError(f"cost table: shape {number}: {error!r}") from None

    @property
    def shapes(self) -> list[Shape]:
        return list(self._step)

    def step(self, shape: Shape) -> Curve:
        """Seconds of a step. A shape that isn't known yet costs what the nearest one costs a
        pixel.
        """
        return self._find(self._step, shape)

    def encode(self, shape: Shape) -> float:
        """Seconds to encode one row's prompt."""
        return self._once(self._encode, shape)

    def decode(self, shape: Shape) -> float:
        """Seconds to decode one row."""
        return self._once(self._decode, shape)

    def alone(self, shape: Shape, evaluations: int) -> float:
        """Seconds of a row that has the machine to itself."""
        return self.encode(shape) + evaluations * self.step(shape).seconds(1) + self.decode(shape)

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


def _curve(points: Mapping[str, float]) -> Curve:
    curve = {int(rows): float(seconds) for rows, seconds in points.items()}
    if any(rows < 1 or not 0 <= seconds < float("inf") for rows, seconds in curve.items()):
        raise ValueError(f"{dict(points)} has a number that can't be")
    return Curve(curve)
