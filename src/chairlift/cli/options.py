"""Options that commands share."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from chairlift.errors import ConfigurationError
from chairlift.logs import LogFormat
from chairlift.scheduling.names import POLICY_NAMES

console = Console(stderr=True)

Model = Annotated[
    str | None,
    typer.Argument(help="A folder in diffusers format or a hub id; left out, the bundled model."),
]
Batching = Annotated[
    Literal["continuous", "dynamic", "off"],
    typer.Option(help="Join at every step, at every request, or never."),
]
MaxBatchSize = Annotated[
    str,
    typer.Option(metavar="N|auto", help="The most rows in one forward; auto fills to the knee."),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda[:i].")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(help="auto is float32 on a CPU and bfloat16 on CUDA."),
]
LoadFormat = Annotated[
    Literal["auto", "dummy"],
    typer.Option(help="dummy: random weights of full size, where only configs are."),
]
OffloadTextEncoders = Annotated[
    bool,
    typer.Option(
        "--offload-text-encoders", help="They rest in main memory and visit the device to encode."
    ),
]
AttentionBackend = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="What of diffusers computes a transformer's attention."),
]
Compile = Annotated[
    bool,
    typer.Option("--compile", help="Compile the denoiser, which takes a while at the start."),
]
BatchDelay = Annotated[
    float, typer.Option(help="How long dynamic waits for company, in milliseconds.")
]
Policy = Annotated[
    str, typer.Option(help=f"In which order continuous serves: {', '.join(POLICY_NAMES)}.")
]
Admission = Annotated[
    Literal["all", "strict"],
    typer.Option(help="strict refuses what can't meet its deadline_ms."),
]
MaxMegapixelSteps = Annotated[
    float,
    typer.Option(help="The most work of a request: million pixels x frames x steps x n."),
]
OpenMetrics = Annotated[bool, typer.Option("--open-metrics", help="/metrics needs no key.")]
CorsOrigins = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ORIGIN",
        help="Whose pages may call the server, like https://example.com; repeatable.",
    ),
]
Compat = Annotated[
    Literal["a1111"] | None,
    typer.Option(help="Also answer the clients of AUTOMATIC1111's web UI."),
]
KeepDays = Annotated[float, typer.Option(help="How long finished jobs are kept; 0 is for ever.")]
KeepGib = Annotated[float, typer.Option(help="How large all their pictures may be; 0 is no bound.")]
Loras = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=PATH", help="A LoRA that requests may name; repeatable."),
]
Metadata = Annotated[
    bool, typer.Option(help="Pictures carry the settings that they were made with.")
]
HangTimeout = Annotated[
    float, typer.Option(help="Seconds after which an engine that says nothing is replaced.")
]
LogFormatOption = Annotated[LogFormat, typer.Option(help="How the lines on standard error look.")]
LogPrompts = Annotated[
    bool, typer.Option("--log-prompts", help="The line of a request has its prompt.")
]


def parse_max_batch_size(value: str) -> int | None:
    """The number that ``--max-batch-size`` says."""
    return parse_number_or_auto(value, "--max-batch-size")


def parse_number_or_auto(value: str, option: str) -> int | None:
    """A whole number from 1 on; None is ``auto``."""
    if value == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise typer.BadParameter(
            f"{value!r} is neither a whole number from 1 on nor auto", param_hint=option
        )
    return int(value)


def parse_device(name: str) -> str:
    """A device name that can be right."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise typer.BadParameter(f"{name!r} is not auto, cpu or cuda[:i]", param_hint="--device")
    return name


def parse_delay(milliseconds: float) -> float:
    """The seconds that ``--batch-delay-ms`` says."""
    return not_negative(milliseconds, "--batch-delay-ms") / 1000


def not_negative(value: float, option: str) -> float:
    """A number of 0 or more."""
    if not 0 <= value < math.inf:
        raise typer.BadParameter(f"{value} is not 0 or more", param_hint=option)
    return value


def parse_loras(given: list[str] | None) -> list[tuple[str, str]]:
    """Name and path of each ``--lora``."""
    loras = []
    for one in given or ():
        name, separator, path = one.partition("=")
        if not (name and separator and path):
            raise typer.BadParameter(f"{one!r} is not NAME=PATH", param_hint="--lora")
        loras.append((name, path))
    return loras


def make_folder(folder: Path) -> None:
    """A folder for what a command writes; it may be there already."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"the folder {folder} can't be made: {error.strerror}") from None
