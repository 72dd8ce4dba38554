"""``chairlift generate``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from chairlift.cli.like import LikePicture
from chairlift.cli.options import (
    AttentionBackend,
    Batching,
    Compile,
    Device,
    Dtype,
    LoadFormat,
    MaxBatchSize,
    OffloadTextEncoders,
    console,
    make_folder,
    parse_device,
    parse_max_batch_size,
)
from chairlift.errors import ConfigurationError
from chairlift.request import IMAGE_FORMATS, VIDEO_FORMATS, LoraUse

if TYPE_CHECKING:
    from chairlift.engine.engine import Engine


SETTINGS = (
    *("negative_prompt", "steps", "guidance_scale", "true_cfg_scale", "guidance_scale_2"),
    *("guidance_rescale", "cfg_truncation", "cfg_normalization", "sampler", "seed", "n"),
    *("width", "height", "frames", "output_format", "output_compression"),
)
"""The parameters that say what a picture is to be, as :func:`create_request` has them."""


def generate(
    context: typer.Context,
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT…", help="One picture each.")
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Use the settings in this picture, also its prompt; what is given here overrides.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A folder or a hub id; left out, the bundled model.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the pictures.")
    ] = Path(),
    negative_prompt: Annotated[str | None, typer.Option(help="What should not be seen.")] = None,
    steps: Annotated[int | None, typer.Option(help="Sampler steps.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Weight of the prompt.")] = None,
    true_cfg_scale: Annotated[
        float | None, typer.Option(help="Weight of classifier-free guidance (FLUX, Qwen-Image).")
    ] = None,
    guidance_scale_2: Annotated[
        float | None,
        typer.Option(help="Weight of the prompt in the low-noise expert (Wan 2.2)."),
    ] = None,
    guidance_rescale: Annotated[
        float | None,
        typer.Option(help="0 to 1: how far guidance keeps the contrast (Stable Diffusion, SDXL)."),
    ] = None,
    cfg_truncation: Annotated[
        float | None,
        typer.Option(help="0 to 1: the share of the way after which guidance is off (Z-Image)."),
    ] = None,
    cfg_normalization: Annotated[
        float | None,
        typer.Option(help="Bound on how much longer guidance makes an output (Z-Image)."),
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="One of the model's samplers.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Image i uses seed + i; random when left out.")
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Pictures for each prompt.")] = 1,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    frames: Annotated[int | None, typer.Option(help="Of a video.")] = None,
    output_format: Annotated[
        str | None, typer.Option(help=", ".join((*IMAGE_FORMATS, *VIDEO_FORMATS)))
    ] = None,
    output_compression: Annotated[
        int | None, typer.Option(help="Quality of JPEG and WebP, 0 to 100; left out, 90.")
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH[=SCALE]", help="A LoRA to use; repeatable."),
    ] = None,
    batching: Batching = "continuous",
    max_batch_size: MaxBatchSize = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    load_format: LoadFormat = "auto",
    offload_text_encoders: OffloadTextEncoders = False,
    attention_backend: AttentionBackend = None,
    compile: Compile = False,
    metadata: Annotated[
        bool, typer.Option(help="Pictures carry the settings that they were made with.")
    ] = True,
) -> None:
    """Generate pictures without a server; all prompts are denoised together."""
    picture = None if like is None else LikePicture.read(like)
    if picture is None and not prompts:
        context.fail("Missing argument 'PROMPT…'.")
    if picture is not None and not lora:
        picture.require_loras()
    make_folder(output)

    from chairlift.engine.engine import Engine
    from chairlift.models.registry import hide_progress_bars

    hide_progress_bars()
    loras = [_parse_lora(one) for one in lora or ()]
    names = {path: path for path, _ in loras}
    if picture is not None:
        names = picture.lora_names(names)
    given = {name: value for name in SETTINGS if (value := context.params[name]) is not None}
    if loras:
        given["loras"] = [LoraUse(names[path], scale) for path, scale in loras]
    with _loading_progress() as on_progress:
        engine = Engine(
            model,
            batching=batching,
            max_batch_size=parse_max_batch_size(max_batch_size),
            device=parse_device(device),
            dtype=dtype,
            load_format=load_format,
            loras={name: path for path, name in names.items()},
            offload_text_encoders=offload_text_encoders,
            attention_backend=attention_backend,
            compile=compile,
            metadata=metadata,
            progress=on_progress,
        )
    with engine:
        if picture is not None:
            _warn(picture.warnings(engine.card))
            given = picture.arguments(engine.card) | given
        prompt = given.pop("prompt", "")  # The picture's.
        _generate(engine, prompts or [prompt], given, output)


def _parse_lora(given: str) -> tuple[str, float]:
    """Path and scale. A path may have an equals sign itself."""
    path, separator, scale = given.rpartition("=")
    try:
        return (path, float(scale)) if separator else (given, 1.0)
    except ValueError:
        return given, 1.0


def _progress(*columns: ProgressColumn) -> Progress:
    """Bars that leave nothing behind, and that only a terminal shows."""
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def _loading_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar over the parts of the model, gone when they are loaded."""
    columns = (TextColumn("loading {task.description}"), BarColumn(), MofNCompleteColumn())
    with _progress(*columns) as progress:
        task = progress.add_task("model")
        yield lambda part, done, total: progress.update(
            task, description=part, completed=done, total=total
        )


def _generate(engine: Engine, prompts: list[str], settings: dict[str, Any], output: Path) -> None:
    """Generate with a bar over the evaluations of all rows, and save."""
    from chairlift.engine.messages import Activity

    start = time.monotonic()
    columns = (TextColumn("denoising"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with _progress(*columns) as progress:
        task = progress.add_task("", total=None)
        rows = len(prompts) * settings["n"]

        def on_activity(activity: Activity) -> None:
            riders = [rider for tick in activity.ticks for rider in tick.riders]
            if riders:  # All rows have as many evaluations.
                total = rows * riders[0].evaluations
                progress.update(task, advance=len(riders), total=total)

        engine.on_activity = on_activity
        futures = [engine.submit(prompt, **settings) for prompt in prompts]
        pictures = [picture for future in futures for picture in future.result()]
    seconds = time.monotonic() - start
    _warn(dict.fromkeys(text for one in pictures for text in one.request.warnings))
    out = Console()
    for number, picture in enumerate(pictures):
        path = _free_path(output, number, picture.request.output_format)
        try:
            picture.save(path)
        except OSError as error:
            raise ConfigurationError(f"{path} can't be written: {error.strerror}") from None
        out.print(Text(f"{path}  seed {picture.seed}"), soft_wrap=True)
    console.print(f"{len(pictures)} in {seconds:.2f} s", highlight=False)


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        console.print(Text(f"warning: {warning}", "yellow"), soft_wrap=True)


def _free_path(folder: Path, number: int, suffix: str) -> Path:
    """A name in the folder that isn't taken: pictures are never overwritten."""
    for count in range(number, sys.maxsize):
        path = folder / f"chairlift-{count:04d}.{suffix}"
        if not path.exists():
            return path
    raise AssertionError("unreachable")
