"""Kinds of requests: from flags, from a file, or by the name of one of the simulator's mixes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from chairlift.errors import ConfigurationError
from chairlift.simulate.workload import MIXES, check_field, check_names, read_lines


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """What some of the requests have in common. What is None isn't sent: the server decides.

    Raises:
        ConfigurationError: A width is without a height, or the reverse, or ``extra_body`` has a
            field that is set already.
    """

    weight: float = 1.0
    """Its share of the requests, beside the weights of the others."""
    width: int | None = None
    """Pixels."""
    height: int | None = None
    steps: tuple[int, int] | None = None
    """Least and most; uniform between the two, which belong to it."""
    n: int | None = None
    """Pictures a request."""
    guidance_scale: float | None = None
    negative_prompt: str | None = None
    deadline_s: float | None = None
    priority: int | None = None
    caller: str | None = None
    """Sent as ``user``."""
    model: str | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the body."""

    def __post_init__(self) -> None:
        if (self.width is None) != (self.height is None):
            raise ConfigurationError(
                f"width is {self.width} and height {self.height}; both must be given, or neither"
            )
        steps = None if self.steps is None else self.steps[0]
        if twice := sorted(self._own_fields("", steps).keys() & self.extra_body.keys()):
            raise ConfigurationError(f"{twice[0]!r} is in the extra body, and set already")

    @property
    def name(self) -> str:
        """All that the cost may depend on."""
        parts = []
        if self.width is not None:
            parts.append(f"{self.width}x{self.height}")
        if self.steps is not None:
            least, most = self.steps
            parts.append(f"{least} steps" if least == most else f"{least}-{most} steps")
        if self.n is not None and self.n > 1:
            parts.append(f"n {self.n}")
        if self.guidance_scale is not None:
            parts.append(f"guidance {self.guidance_scale:g}")
        if self.negative_prompt is not None:
            parts.append("negative prompt")
        if self.deadline_s is not None:
            parts.append(f"deadline {self.deadline_s:g} s")
        if self.priority is not None:
            parts.append(f"priority {self.priority}")
        if self.extra_body:
            parts.append(json.dumps(self.extra_body))
        return ", ".join(parts) or "the server's defaults"

    def body(self, prompt: str, steps: int | None) -> dict[str, Any]:
        """What is posted."""
        return self._own_fields(prompt, steps) | dict(self.extra_body)

    def _own_fields(self, prompt: str, steps: int | None) -> dict[str, Any]:
        given = {
            "prompt": prompt,
            "model": self.model,
            "n": self.n,
            "size": None if self.width is None else f"{self.width}x{self.height}",
            "num_inference_steps": steps,
            "guidance_scale": self.guidance_scale,
            "negative_prompt": self.negative_prompt,
            "deadline_ms": None if self.deadline_s is None else 1000 * self.deadline_s,
            "priority": self.priority,
            "user": self.caller,
        }
        return {name: value for name, value in given.items() if value is not None}


def named_mix(name: str, default: Kind) -> list[Kind]:
    """One of the simulator's mixes, with everything else from ``default``."""
    return [
        replace(
            default,
            weight=kind.weight,
            width=kind.side,
            height=kind.side,
            steps=(kind.least_steps, kind.most_steps),
        )
        for kind in MIXES[name]
    ]


def read_mix(path: Path, default: Kind) -> list[Kind]:
    """The kinds of a JSON Lines file, one a line; what a line leaves out is as in ``default``.

    Raises:
        ConfigurationError: The file can't be read, has no kinds, or a line is wrong.
    """
    return read_lines(path, partial(_kind, default), "mix", "kinds")


def _kind(default: Kind, entry: Any) -> Kind:
    """The kind of one line.

    Raises:
        ValueError: It is none.
    """
    check_names(entry, Kind)
    for name, value in entry.items():
        _check(name, value)
    settings = dict(entry)
    if "steps" in settings:
        steps = settings["steps"]
        settings["steps"] = tuple(steps) if isinstance(steps, list) else (steps, steps)
    settings["extra_body"] = {**default.extra_body, **settings.get("extra_body", {})}
    try:
        return replace(default, **settings)
    except ConfigurationError as error:
        raise ValueError(error) from None


def _check(name: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name == "steps":
        pair = value if isinstance(value, list) else [value, value]
        whole = all(isinstance(one, int) and not isinstance(one, bool) for one in pair)
        good = whole and len(pair) == 2 and 1 <= pair[0] <= pair[1]
        bound = "a whole number from 1 on, or [least, most]"
    elif name == "weight":
        good, bound = number and 0 < value < float("inf"), "a number above 0"
    elif name == "guidance_scale":
        good, bound = number and 0 <= value < float("inf"), "0 or more"
    elif name in ("negative_prompt", "model"):
        good, bound = isinstance(value, str), "a string"
    elif name == "extra_body":
        good, bound = isinstance(value, dict), "an object"
    else:
        check_field(name, value)
        return
    if not good:
        raise ValueError(f"{name} is {value!r}; it must be {bound}")
