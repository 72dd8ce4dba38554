"""Options that commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from chairlift.errors import ConfigurationError

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


def make_folder(folder: Path) -> None:
    """A folder for what a command writes; it may be there already."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"the folder {folder} can't be made: {error.strerror}") from None
