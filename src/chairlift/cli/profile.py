"""``chairlift profile``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chairlift.cli.options import Device, Dtype, LoadFormat, Model, console, parse_device
from chairlift.errors import ConfigurationError

if TYPE_CHECKING:
    from chairlift.profiler import ShapeCosts


def profile(
    model: Model = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The cost table to write.")] = Path(
        "cost.json"
    ),
    size: Annotated[
        list[str] | None,
        typer.Option(metavar="WxH", help="A size to measure; repeatable; else the model's own."),
    ] = None,
    rows: Annotated[str, typer.Option(help="Numbers of rows to measure.")] = "1,2,4,8,16",
    repeats: Annotated[
        int, typer.Option(min=1, help="How often each is measured; the median counts.")
    ] = 10,
    plot: Annotated[
        Path | None, typer.Option(help="A PNG of seconds over rows (needs the extra plots).")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    load_format: LoadFormat = "auto",
) -> None:
    """Measure what steps cost on this machine, and write it for serve and simulate."""
    row_counts = _parse_rows(rows)
    sizes = list(dict.fromkeys(_parse_size(one) for one in size or ()))
    for path in (output, plot):
        if path is not None:  # Before the measurements, which may take minutes.
            _check_folder(path)

    from chairlift.engine.memory import keep_freed_memory
    from chairlift.models.registry import hide_progress_bars, load_model
    from chairlift.profiler import Profiler

    keep_freed_memory()  # As a worker does.
    hide_progress_bars()
    adapter = load_model(model, device=parse_device(device), dtype=dtype, load_format=load_format)
    profiler = Profiler(adapter, repeats, report=lambda line: console.print(line, highlight=False))
    defaults = adapter.card.defaults
    shapes = [
        profiler.measure(width, height, row_counts)
        for width, height in sizes or [(defaults.width, defaults.height)]
    ]
    table = profiler.table(shapes, "chairlift profile, guidance as the model's defaults have it")
    try:
        output.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{output} can't be written: {error.strerror}") from None
    for shape in shapes:
        console.print(describe(shape), highlight=False)
    if plot is not None:
        _draw(shapes, adapter.card.id, plot)


def _check_folder(path: Path) -> None:
    if path.is_dir() or not path.parent.is_dir():
        reason = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise ConfigurationError(f"{path} can't be written: {reason}")


def describe(shape: ShapeCosts) -> str:
    """The knee in words."""
    from chairlift.profiler import rows_of

    knee = f"{shape.width}x{shape.height}: the knee is {rows_of(shape.knee)}"
    if shape.knee < max(shape.step_seconds):
        return knee
    return f"{knee}, the most that was measured; it may be higher"


def _draw(shapes: list[ShapeCosts], model: str, path: Path) -> None:
    """Seconds a row over rows, with the knee marked."""
    try:
        import matplotlib.pyplot as plt
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        raise ConfigurationError("plots need matplotlib: pip install 'chairlift[plots]'") from None
    from chairlift.scheduling.costs import Curve

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for shape in shapes:
        each = {rows: seconds / rows for rows, seconds in shape.step_seconds.items()}
        [line] = axes.plot(list(each), list(each.values()), marker="o")
        line.set_label(f"{shape.width}x{shape.height}")
        at_knee = Curve(shape.step_seconds).seconds(shape.knee) / shape.knee
        axes.plot([shape.knee], [at_knee], "D", ms=11, mfc="none", c=line.get_color())
    axes.set(xlabel="rows in a forward", ylabel="seconds of a step, each row", title=model)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(title="size (◇ knee)")
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:  # ValueError: of a format that there isn't.
        raise ConfigurationError(f"{path} can't be written: {error}") from None
    plt.close(figure)


def _parse_rows(text: str) -> list[int]:
    counts = [int(one) if one.strip().isdecimal() else 0 for one in text.split(",")]
    if not counts or min(counts) < 1:
        raise typer.BadParameter(
            f"{text!r} is not a list of whole numbers from 1 on", param_hint="--rows"
        )
    return sorted(set(counts))


def _parse_size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise typer.BadParameter(f"{text!r} is not WIDTHxHEIGHT", param_hint="--size")
    return int(width), int(height)
