"""What was measured: models, their sizes, and every way to batch under every load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.gpu.figures import Figures, Outcome
from benchmarks.gpu.settings import Mode
from chairlift.profiler import ShapeCosts


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """How requests come: in one of three ways."""

    name: str
    clients: int | None = None
    """Of a closed loop."""
    at_once: int | None = None
    """Requests."""
    rate: float | None = None
    """Poisson arrivals a second."""

    @property
    def is_saturating(self) -> bool:
        return self.rate is None


def closed_load(clients: int) -> Load:
    return Load(name=f"{clients} clients", clients=clients)


def at_once_load(requests: int) -> Load:
    return Load(name=f"{requests} at once", at_once=requests)


def poisson_load(share: float, rate: float) -> Load:
    """At that share of the capacity."""
    return Load(name=f"Poisson {share:g}", rate=rate)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One way to batch under one load."""

    mode: Mode
    load: Load
    outcome: Outcome
    figures: Figures | None
    """None where no picture was made."""

    def to_json(self) -> dict[str, Any]:
        return {
            "mode": asdict(self.mode),
            "load": asdict(self.load),
            "failed": len(self.outcome.failures),
            "failures": sorted(set(self.outcome.failures)),
            "figures": self.figures and asdict(self.figures),
        }


@dataclass(kw_only=True, slots=True)
class Size:
    """One size of one model, as far as it was measured."""

    side: int
    """Pixels."""
    is_large: bool
    """Whether batching is held to gain nothing."""
    step_seconds: dict[int, float] = field(default_factory=dict)
    """By number of rows."""
    encode_seconds: float | None = None
    """Of a prompt."""
    decode_seconds: float | None = None
    """Of a picture."""
    bare: float | None = None
    """Pictures a second of the bare loop at the knee."""
    alone_s: float | None = None
    """What a picture takes alone."""
    measurements: list[Measurement] = field(default_factory=list)
    chosen: dict[str, Mode] = field(default_factory=dict)
    """The best ``dynamic``, by ``saturation`` and ``load``."""
    judged: Load | None = None
    """The load at which the tail is judged."""
    error: str | None = None
    """Why there is no more."""

    @property
    def knee(self) -> int:
        """The last number of rows that made a row cheaper."""
        shape = ShapeCosts(
            width=self.side, height=self.side, frames=1, step_seconds=self.step_seconds
        )
        return shape.knee

    @property
    def gain(self) -> float:
        """How many times as many steps a second there are in the best forward as in one of the
        fewest rows.
        """
        speeds = [rows / seconds for rows, seconds in self.step_seconds.items()]
        return max(speeds) / speeds[0]

    @property
    def loads(self) -> list[Load]:
        """Those that were measured, in order of the first time."""
        return list(dict.fromkeys(one.load for one in self.measurements))

    @property
    def failed(self) -> int:
        """Requests without a picture."""
        return sum(len(one.outcome.failures) for one in self.measurements)

    def find(self, batching: str, load: Load) -> Measurement | None:
        """The first of that kind; of ``dynamic`` the one that was chosen for that load."""
        chosen = self.chosen.get("saturation" if load.is_saturating else "load")
        for one in self.measurements:
            if (one.mode.batching, one.load) == (batching, load) and (
                batching != "dynamic" or one.mode == chosen
            ):
                return one
        return None

    def figures(self, batching: str, load: Load) -> Figures | None:
        """The same."""
        found = self.find(batching, load)
        return found.figures if found else None

    def to_json(self) -> dict[str, Any]:
        known = bool(self.step_seconds)
        return {
            "width": self.side,
            "height": self.side,
            "is_large": self.is_large,
            "step_seconds": {str(rows): value for rows, value in self.step_seconds.items()},
            "knee": self.knee if known else None,
            "gain": self.gain if known else None,
            "encode_seconds": self.encode_seconds,
            "decode_seconds": self.decode_seconds,
            "bare_pictures_per_s": self.bare,
            "alone_s": self.alone_s,
            "measurements": [one.to_json() for one in self.measurements],
            "judged_load": self.judged and self.judged.name,
            "chosen": {name: asdict(mode) for name, mode in self.chosen.items()},
            "error": self.error,
        }


@dataclass(kw_only=True, slots=True)
class ModelResults:
    """One model."""

    name: str
    """As it was named on the command line."""
    dtype: str = ""
    steps: int = 0
    """Of every request."""
    guided: bool = False
    """Whether each row is two in the forward."""
    parameters: Mapping[str, int] = field(default_factory=dict)
    """Of each network."""
    sizes: list[Size] = field(default_factory=list)
    error: str | None = None
    """Why it could not be loaded."""

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "dtype": self.dtype,
            "steps": self.steps,
            "guided": self.guided,
            "parameters": dict(self.parameters),
            "sizes": [size.to_json() for size in self.sizes],
            "error": self.error,
        }


@dataclass(kw_only=True, slots=True)
class Results:
    """All of them."""

    machine: str
    arguments: Sequence[str]
    """Of the command."""
    models: list[ModelResults] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether nothing failed."""
        sizes = [size for model in self.models for size in model.sizes]
        return not any(
            (
                *(model.error for model in self.models),
                *(size.error or size.failed for size in sizes),
            )
        )
