"""AUTOMATIC1111's names of what a model has: its samplers and the settings that clients look at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from chairlift.card import ModelCard
from chairlift.errors import InvalidRequest, UnknownModel
from chairlift.metadata import SAMPLER_NAMES
from chairlift.validation import MAX_QUOTED

AUTOMATIC = "automatic"


def sampler_names(card: ModelCard) -> dict[str, dict[str, str]]:
    """The samplers of a model by AUTOMATIC1111's name, each with its spacings in lower case and
    our name of the two.
    """
    names: dict[str, dict[str, str]] = {}
    for ours in card.samplers:
        name, spacing = SAMPLER_NAMES.get(ours, (ours, None))
        names.setdefault(name, {})[(spacing or "Uniform").lower()] = ours
    return names


def automatic(spacings: Mapping[str, str]) -> str:
    """The spacing that a sampler has if none is named; AUTOMATIC1111 takes Karras's where this
    server has one to choose.
    """
    return "karras" if "karras" in spacings else "uniform"


def find_sampler(card: ModelCard, name: str | None, scheduler: str | None) -> str:
    """Our sampler for AUTOMATIC1111's two names, in any case. The first may be ours too, or an old
    one with the second at its end (``DPM++ 2M Karras``).

    Raises:
        InvalidRequest: The model has no such sampler.
    """
    names, default = sampler_names(card), card.defaults.sampler
    spacing = (scheduler or AUTOMATIC).lower()
    if not name:
        if spacing == AUTOMATIC:
            return default
        name = SAMPLER_NAMES.get(default, (default, None))[0]
    if name in card.samplers and spacing == AUTOMATIC:
        return name
    wanted, _, last = name.lower().rpartition(" ")
    if last in ("karras", "uniform"):
        spacing = last
    else:
        wanted = name.lower()
    spacings = next((names[known] for known in names if known.lower() == wanted), None)
    if spacings is None:
        raise InvalidRequest(
            f"sampler_name is {quote(name)}; it must be one of {', '.join(names)}",
            param="sampler_name",
        )
    if spacing == AUTOMATIC:
        spacing = automatic(spacings)
    if spacing not in spacings:
        raise InvalidRequest(
            f"scheduler is {quote(spacing)}; with {name} it must be one of "
            f"{', '.join((AUTOMATIC, *spacings))}",
            param="scheduler",
        )
    return spacings[spacing]


def options_of(card: ModelCard) -> dict[str, Any]:
    """Those of AUTOMATIC1111's settings that clients look at, as they are here."""
    return {
        "sd_model_checkpoint": card.id,
        "sd_checkpoint_hash": "",
        "sd_vae": "Automatic",
        "CLIP_stop_at_last_layers": 1,
        "samples_format": "png",
        "randn_source": "CPU",
        "eta_noise_seed_delta": 0,
        "return_grid": False,
    }


def check_options(card: ModelCard, given: Mapping[str, Any]) -> None:
    """Settings can't be changed, but may be said as they are.

    Raises:
        InvalidRequest: One would change.
        UnknownModel: It is the checkpoint.
    """
    options = options_of(card)
    for name, value in given.items():
        if value is None or (name in options and value == options[name]):
            continue
        if name == "sd_model_checkpoint":
            raise UnknownModel(
                f"sd_model_checkpoint is {quote(value)}; the model that is served is {card.id!r}",
                param=name,
            )
        if name not in options:
            raise InvalidRequest(f"there is no option {quote(name)} here", param=name[:MAX_QUOTED])
        raise InvalidRequest(
            f"{name} is {quote(value)}; it is {quote(options[name])} here and can't be changed",
            param=name,
        )


def quote(*values: object) -> str:
    """Values out of a request, as they may stand in a message."""
    return " or ".join(json.dumps(value, default=str)[:MAX_QUOTED] for value in values)
