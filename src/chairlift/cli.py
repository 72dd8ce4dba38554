"""The command line."""

from __future__ import annotations

import logging
import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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

import chairlift
from chairlift.errors import ChairliftError, ConfigurationError
from chairlift.request import IMAGE_FORMATS, VIDEO_FORMATS, LoraUse
from chairlift.scheduling.scheduler import DEFAULT_MAX_BATCH_SIZE

if TYPE_CHECKING:
    from chairlift.card import ModelCard
    from chairlift.engine.engine import Engine


app = typer.Typer(
    help="A server for diffusion models: requests get on and off the running batch at every step.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
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
    str, typer.Option(metavar="N|auto", help="The most rows in one forward; auto is 16.")
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
LoraOption = Annotated[
    list[str] | None,
    typer.Option("--lora", metavar="NAME=PATH", help="A LoRA that requests may name; repeatable."),
]
OffloadTextEncoders = Annotated[
    bool,
    typer.Option(
        "--offload-text-encoders", help="They rest in main memory and visit the device to encode."
    ),
]


def main() -> None:
    """The entry point: an expected error is one line and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        app()
    except ChairliftError as error:
        console.print(Text.assemble(("chairlift:", "red"), f" {error}"), soft_wrap=True)
        sys.exit(2)


def _parse_max_batch_size(value: str) -> int:
    if value == "auto":
        return DEFAULT_MAX_BATCH_SIZE
    if not value.isdecimal() or int(value) < 1:
        raise typer.BadParameter(
            f"{value!r} is neither a whole number from 1 on nor auto",
            param_hint="--max-batch-size",
        )
    return int(value)


def _parse_device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise typer.BadParameter(f"{name!r} is not auto, cpu or cuda[:i]", param_hint="--device")
    return name


def _parse_delay(milliseconds: float) -> float:
    if not 0 <= milliseconds < math.inf:
        raise typer.BadParameter(f"{milliseconds} is not 0 or more", param_hint="--batch-delay-ms")
    return milliseconds / 1000


def _parse_loras(given: list[str] | None) -> list[tuple[str, str]]:
    loras = []
    for one in given or ():
        name, separator, path = one.partition("=")
        if not (name and separator and path):
            raise typer.BadParameter(f"{one!r} is not NAME=PATH", param_hint="--lora")
        loras.append((name, path))
    return loras


def _parse_lora_uses(given: list[str] | None) -> list[LoraUse]:
    uses = []
    for one in given or ():
        name, separator, scale = one.partition("=")
        try:
            uses.append(LoraUse(name, float(scale) if separator else 1.0))
        except ValueError:
            raise typer.BadParameter(
                f"{one!r} is not NAME or NAME=SCALE", param_hint="--use-lora"
            ) from None
    return uses


def _parse_api_key(key: str | None) -> str | None:
    if key == "":
        raise typer.BadParameter("the key is empty", param_hint="--api-key")
    return key


@app.command()
def serve(
    model: Model = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    batching: Batching = "continuous",
    max_batch_size: MaxBatchSize = "auto",
    batch_delay_ms: Annotated[
        float, typer.Option(help="How long dynamic waits for company, in milliseconds.")
    ] = 50.0,
    max_queue: Annotated[
        int, typer.Option(min=1, help="The most pictures that are accepted and not done.")
    ] = 256,
    api_key: Annotated[
        str | None, typer.Option(envvar="CHAIRLIFT_API_KEY", help="What callers must send.")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    load_format: LoadFormat = "auto",
    lora: LoraOption = None,
    offload_text_encoders: OffloadTextEncoders = False,
    shutdown_timeout: Annotated[
        int, typer.Option(min=0, help="Seconds that running requests have to finish.")
    ] = 30,
) -> None:
    """Serve a model over HTTP."""
    from chairlift.engine.messages import Loading, Ready
    from chairlift.engine.worker_config import WorkerConfig
    from chairlift.server.serve import ServeConfig
    from chairlift.server.serve import serve as run_server

    def on_loading(message: Loading) -> None:
        if message.done < message.total:
            console.print(f"loading {message.part} ({message.done + 1} of {message.total})")

    def on_ready(ready: Ready, url: str) -> None:
        card = ready.card
        _print_memory(card)
        weights = f"{card.parameters / 1e6:.1f} M weights, {card.dtype} on {card.device}"
        line = Text.assemble((card.id, "bold"), f" ({weights}) is served at ", (url, "bold"))
        console.print(line, soft_wrap=True)

    run_server(
        ServeConfig(
            worker=WorkerConfig(
                model=model,
                device=_parse_device(device),
                dtype=dtype,
                load_format=load_format,
                loras=_parse_loras(lora),
                offload_text_encoders=offload_text_encoders,
                batching=batching,
                max_batch_size=_parse_max_batch_size(max_batch_size),
                batch_delay=_parse_delay(batch_delay_ms),
            ),
            host=host,
            port=port,
            max_queue=max_queue,
            api_key=_parse_api_key(api_key),
            shutdown_timeout=shutdown_timeout,
        ),
        on_loading,
        on_ready,
    )


@app.command()
def generate(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT…", help="One picture each.")],
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
    use_lora: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=SCALE]", help="Use a LoRA that --lora names; repeatable."),
    ] = None,
    lora: LoraOption = None,
    batching: Batching = "continuous",
    max_batch_size: MaxBatchSize = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    load_format: LoadFormat = "auto",
    offload_text_encoders: OffloadTextEncoders = False,
) -> None:
    """Generate pictures without a server; all prompts are denoised together."""
    _make_folder(output)

    from chairlift.engine.engine import Engine
    from chairlift.models.registry import hide_progress_bars

    hide_progress_bars()
    settings: dict[str, Any] = {
        "negative_prompt": negative_prompt,
        "steps": steps,
        "guidance_scale": guidance_scale,
        "true_cfg_scale": true_cfg_scale,
        "sampler": sampler,
        "seed": seed,
        "n": n,
        "width": width,
        "height": height,
        "frames": frames,
        "output_format": output_format,
        "loras": _parse_lora_uses(use_lora),
    }
    with _loading_progress() as on_progress:
        engine = Engine(
            model,
            batching=batching,
            max_batch_size=_parse_max_batch_size(max_batch_size),
            device=_parse_device(device),
            dtype=dtype,
            load_format=load_format,
            loras=dict(_parse_loras(lora)),
            offload_text_encoders=offload_text_encoders,
            progress=on_progress,
        )
    with engine:
        _generate(engine, prompts, settings, output)


def _print_memory(card: ModelCard) -> None:
    """Where the weights are, and how much they take."""
    for part in card.components:
        gibibytes = part.bytes / 2**30
        console.print(
            f"{part.name}: {part.parameters / 1e6:.1f} M weights, {gibibytes:.2f} GiB "
            f"on {part.device}",
            highlight=False,
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"the folder {folder} can't be made: {error.strerror}") from None


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
    """Generate with a bar over the steps of all rows, and save."""
    from chairlift.engine.messages import Activity

    start = time.monotonic()
    columns = (TextColumn("denoising"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with _progress(*columns) as progress:
        task = progress.add_task("", total=None)

        def on_activity(activity: Activity) -> None:
            progress.advance(task, sum(len(tick.riders) for tick in activity.ticks))

        engine.on_activity = on_activity
        futures = [engine.submit(prompt, **settings) for prompt in prompts]
        steps = settings["steps"] or engine.card.defaults.steps
        progress.update(task, total=len(prompts) * settings["n"] * steps)
        pictures = [picture for future in futures for picture in future.result()]
    seconds = time.monotonic() - start
    for warning in dict.fromkeys(text for one in pictures for text in one.request.warnings):
        console.print(Text(f"warning: {warning}", "yellow"), soft_wrap=True)
    out = Console()
    for number, picture in enumerate(pictures):
        path = _free_path(output, number, picture.request.output_format)
        try:
            picture.save(path)
        except OSError as error:
            raise ConfigurationError(f"{path} can't be written: {error.strerror}") from None
        out.print(Text(f"{path}  seed {picture.seed}"), soft_wrap=True)
    console.print(f"{len(pictures)} in {seconds:.2f} s", highlight=False)


def _free_path(folder: Path, number: int, suffix: str) -> Path:
    """A name in the folder that isn't taken: pictures are never overwritten."""
    for count in range(number, sys.maxsize):
        path = folder / f"chairlift-{count:04d}.{suffix}"
        if not path.exists():
            return path
    raise AssertionError("unreachable")


@app.command()
def version() -> None:
    """Print the version."""
    Console().print(chairlift.__version__)
