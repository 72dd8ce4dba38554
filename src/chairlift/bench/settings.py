"""The flags of ``chairlift bench``, checked, and what they mean together."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chairlift.bench.kinds import Kind, named_mix, read_mix
from chairlift.bench.prompts import Prompts, draw_prompts, read_prompts
from chairlift.bench.requests import PlannedRequest, draw_requests, replay_requests
from chairlift.errors import ConfigurationError
from chairlift.simulate.names import MIX_NAMES
from chairlift.simulate.workload import read_jobs

NUM_PROMPTS = 100
"""Where none are asked for."""
REPLACED_BY_NAMED_MIX = ("width", "height", "steps")
REPLACED_BY_WORKLOAD = (
    *("num_prompts", "request_rate", "burstiness", "mix", "n"),
    *REPLACED_BY_NAMED_MIX,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """All flags, by their names. None is a flag that wasn't given.

    Raises:
        ConfigurationError: A value is out of bounds, or two flags contradict each other.
    """

    base_url: str
    num_prompts: int | None
    request_rate: float | None
    burstiness: float | None
    max_concurrency: int | None
    num_warmups: int
    seed: int
    goodput: str | None
    slo_scale: float | None
    costs: str | None
    mix: str | None
    workload: Path | None
    prompts: Path | None
    width: int | None
    height: int | None
    steps: int | None
    n: int | None
    guidance_scale: float | None
    negative_prompt: str | None
    model: str | None
    extra_body: str | None
    api_key: str | None = field(repr=False)
    timeout: float
    save_result: Path | None
    plot: Path | None

    def __post_init__(self) -> None:
        self._refuse_without_effect()
        _check_above_0("--request-rate", self.request_rate, infinite=True)
        _check_above_0("--burstiness", self.burstiness)
        _check_above_0("--slo-scale", self.slo_scale)
        _check_above_0("--timeout", self.timeout)
        if self.guidance_scale is not None and not math.isfinite(self.guidance_scale):
            raise ConfigurationError(
                f"--guidance-scale is {self.guidance_scale:g}; it must be 0 or more, and finite"
            )
        if self.goodput_s is not None and not 0 < self.goodput_s < math.inf:
            raise ConfigurationError(
                f"--goodput is {1000 * self.goodput_s:g} ms; it must be a number above 0"
            )

    def _refuse_without_effect(self) -> None:
        given = [name for name, value in asdict(self).items() if value is not None]
        for reason, names in (
            ("--workload", self.workload and REPLACED_BY_WORKLOAD),
            (f"--mix {self.mix}", self.mix in MIX_NAMES and REPLACED_BY_NAMED_MIX),
        ):
            for name in names or ():
                if name in given:
                    raise ConfigurationError(f"{_flag(name)} has no effect with {reason}")
        if self.burstiness is not None and math.isinf(self.request_rate or math.inf):
            raise ConfigurationError("--burstiness has no effect without a --request-rate")
        if self.costs is not None and self.slo_scale is None:
            raise ConfigurationError("--costs has no effect without --slo-scale")

    @property
    def goodput_s(self) -> float | None:
        """The bound on latency, in seconds.

        Raises:
            ConfigurationError: It is no number of milliseconds.
        """
        if self.goodput is None:
            return None
        try:
            return float(self.goodput.removeprefix("e2el:")) / 1000
        except ValueError:
            raise ConfigurationError(
                f"--goodput is {self.goodput!r}; it must be milliseconds, like 5000 or e2el:5000"
            ) from None

    def kinds(self) -> list[Kind]:
        """Of the mix, or else the one kind that the flags describe.

        Raises:
            ConfigurationError: The mix can't be read, or the flags contradict it.
        """
        default = Kind(
            width=self.width,
            height=self.height,
            steps=None if self.steps is None else (self.steps, self.steps),
            n=self.n,
            guidance_scale=self.guidance_scale,
            negative_prompt=self.negative_prompt,
            model=self.model,
            extra_body=_parse_object("--extra-body", self.extra_body),
        )
        if self.mix is None:
            return [default]
        if self.mix in MIX_NAMES:
            return named_mix(self.mix, default)
        return read_mix(Path(self.mix), default)

    def create_prompts(self) -> Prompts:
        """Of the file, or else drawn.

        Raises:
            ConfigurationError: The file can't be read, or has none.
        """
        return read_prompts(self.prompts) if self.prompts else draw_prompts(self.seed)

    def create_requests(self, prompts: Prompts) -> list[PlannedRequest]:
        """The plan.

        Raises:
            ConfigurationError: The mix or the workload can't be read.
        """
        if self.workload:
            [default] = self.kinds()
            return replay_requests(read_jobs(self.workload), default, prompts)
        return draw_requests(
            self.kinds(),
            prompts,
            count=self.num_prompts or NUM_PROMPTS,
            rate=self.request_rate or math.inf,
            burstiness=self.burstiness or 1.0,
            seed=self.seed,
        )

    @property
    def first_key(self) -> str | None:
        """What is sent as a bearer token: of several keys, as ``serve`` reads them, the first."""
        keys = re.findall(r"[^,\s]+", self.api_key or "")
        return keys[0] if keys else None

    def to_json(self) -> dict[str, Any]:
        """By the names of the flags; the key isn't in it, and what is infinite is a string."""
        values = {_flag(name): value for name, value in asdict(self).items() if name != "api_key"}
        return {
            name: str(value) if isinstance(value, Path) or value == math.inf else value
            for name, value in values.items()
        }


def _flag(name: str) -> str:
    return "-n" if name == "n" else f"--{name.replace('_', '-')}"


def _check_above_0(flag: str, value: float | None, infinite: bool = False) -> None:
    if value is not None and not (value > 0 and (infinite or value < math.inf)):
        bound = "a number above 0, or inf" if infinite else "a number above 0"
        raise ConfigurationError(f"{flag} is {value:g}; it must be {bound}")


def _parse_object(flag: str, text: str | None) -> dict[str, Any]:
    """The JSON object of a flag; an empty one if it isn't given."""
    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        raise ConfigurationError(f"{flag} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigurationError(f"{flag} is {text}; it must be a JSON object")
    return value
