"""What a fleet goes through: how many replicas there are, how they come and how they go."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from chairlift.cluster.autoscaling import AutoscalingOptions
from chairlift.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """Replicas that are there for ever, unless it says otherwise.

    Raises:
        ConfigurationError: A value is out of bounds.
    """

    replicas: int = 1
    """How many there are; with ``autoscaling`` how many there are at the beginning."""
    autoscaling: AutoscalingOptions | None = None
    """How many there should be; None is always as many."""
    target_requests: float | None = None
    """Autoscale on requests and not on seconds: so many for each replica."""
    evaluation_s: float = 10.0
    """Seconds between two decisions of the autoscaler."""
    start_up_s: float = 60.0
    """Seconds from the decision for a replica until it takes requests. Those of the beginning are
    there."""
    failure_hours: float | None = None
    """Mean of the time, which is exponential, until a replica dies without notice; None is never.
    What was aboard is played again elsewhere, and a new one starts."""
    removal_hours: float | None = None
    """Mean of the time, which is exponential, until a replica gets notice that it is taken away, as
    machines of a spot market are. It takes no more requests, and a new one starts."""
    notice_s: float = 120.0
    """Seconds from the notice to the end. What is aboard then is played again elsewhere."""

    def __post_init__(self) -> None:
        least = 1 if self.autoscaling is None else 0
        for name, good, bound in (
            ("replicas", self.replicas >= least, f"{least} or more"),
            ("target_requests", _positive(self.target_requests), "above 0"),
            ("evaluation_s", _positive(self.evaluation_s), "above 0"),
            ("start_up_s", 0 <= self.start_up_s < math.inf, "0 or more"),
            ("failure_hours", _positive(self.failure_hours), "above 0"),
            ("removal_hours", _positive(self.removal_hours), "above 0"),
            ("notice_s", 0 <= self.notice_s < math.inf, "0 or more"),
        ):
            if not good:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be {bound}")
        if self.target_requests is not None and self.autoscaling is None:
            raise ConfigurationError("target_requests is for autoscaling, which is not given")

    @property
    def most(self) -> int:
        """Replicas that there can be."""
        return self.replicas if self.autoscaling is None else self.autoscaling.max_replicas


def _positive(value: float | None) -> bool:
    return value is None or 0 < value < math.inf


def read_scenario(path: str | Path) -> Scenario:
    """The scenario of a JSON file: an object with the fields of :class:`Scenario`, of which
    ``autoscaling`` is one with those of :class:`AutoscalingOptions`.

    Raises:
        ConfigurationError: The file can't be read, or a field or value is wrong.
    """
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the scenario {path} can't be read: {error}") from None
    try:
        values = _values(given, Scenario)
        if values.get("autoscaling") is not None:
            values["autoscaling"] = AutoscalingOptions(
                **_values(values["autoscaling"], AutoscalingOptions)
            )
            values.setdefault("replicas", values["autoscaling"].min_replicas)
        return Scenario(**values)
    except (ConfigurationError, ValueError) as error:
        raise ConfigurationError(f"the scenario {path}: {error}") from None


def _values(given: Any, kind: type[Any]) -> dict[str, Any]:
    """The fields of a JSON object, if they are fields of ``kind`` and their values of its types.

    Raises:
        ValueError: They aren't.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"{given!r} is not a JSON object")
    types = {field.name: str(field.type) for field in fields(kind)}
    for name, value in given.items():
        if name not in types:
            raise ValueError(f"there is no field {name!r}; the fields are {sorted(types)}")
        _check_type(name, value, types[name])
    return dict(given)


def _check_type(name: str, value: Any, type: str) -> None:
    if value is None and "None" in type:
        return
    whole = isinstance(value, int) and not isinstance(value, bool)
    good, what = {
        "int": (whole, "a whole number"),
        "float": (whole or isinstance(value, float), "a number"),
        "AutoscalingOptions": (isinstance(value, Mapping), "a JSON object"),
    }[type.partition(" ")[0]]
    if not good:
        raise ValueError(f"{name} is {value!r}; it must be {what}")
