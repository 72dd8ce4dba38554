"""``chairlift bench``."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

import chairlift
from chairlift.cli.options import console
from chairlift.errors import ConfigurationError
from chairlift.simulate.names import MIX_NAMES

if TYPE_CHECKING:
    from chairlift.bench.report import Summary
    from chairlift.bench.run import Run
    from chairlift.bench.settings import Settings

TABLE_WIDTH = 160
"""Characters, where the output is no terminal."""
NOTHING_COMPLETED = 1
INTERRUPTED = 130
"""Exit codes."""


def bench(
    context: typer.Context,
    base_url: Annotated[
        str, typer.Option(help="Of the server, with or without /v1.")
    ] = "http://127.0.0.1:8000",
    num_prompts: Annotated[int | None, typer.Option(min=1, help="Requests; left out, 100.")] = None,
    request_rate: Annotated[
        float | None, typer.Option(help="Requests a second in the mean; left out, inf: at once.")
    ] = None,
    burstiness: Annotated[
        float | None,
        typer.Option(help="1 is a Poisson process, below are bursts; left out, 1."),
    ] = None,
    max_concurrency: Annotated[
        int | None, typer.Option(min=1, help="The most requests under way; the others wait here.")
    ] = None,
    num_warmups: Annotated[int, typer.Option(min=0, help="Requests before, not counted.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of arrivals, kinds and prompts.")] = 0,
    goodput: Annotated[
        str | None,
        typer.Option(metavar="[e2el:]MS", help="An objective: milliseconds of latency."),
    ] = None,
    slo_scale: Annotated[
        float | None,
        typer.Option(help="An objective: so many times what the request takes alone."),
    ] = None,
    costs: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A cost table for the time alone, else measured first."),
    ] = None,
    mix: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME",
            help=f"Kinds of requests, as JSON Lines, or one of {', '.join(MIX_NAMES)}.",
        ),
    ] = None,
    workload: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Requests with their arrivals, as simulate reads them."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="One a line; else postcards, all different.")
    ] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Pixels; else the server's.")] = None,
    height: Annotated[int | None, typer.Option(min=1, help="Pixels; else the server's.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="num_inference_steps; else the server's.")
    ] = None,
    n: Annotated[int | None, typer.Option("-n", min=1, help="Pictures for each request.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(min=0, help="Else the server's.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What should not be seen.")] = None,
    model: Annotated[str | None, typer.Option(help="Sent as model, if given.")] = None,
    extra_body: Annotated[
        str | None, typer.Option(metavar="JSON", help="Further fields of each body.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="CHAIRLIFT_API_KEY", help="Sent as a bearer token.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds that a request may take from being sent.")
    ] = 600.0,
    save_result: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings, figures and records, as JSON.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A PNG (needs the extra plots).")
    ] = None,
) -> None:
    """Load a server with requests that come when they come, and report how it fares."""
    # The parameters above are the fields of Settings.
    from chairlift.bench.settings import Settings

    settings = Settings(**context.params)
    _check_writable(settings.save_result)
    _check_writable(settings.plot)
    if settings.plot:
        from chairlift.bench.plot import require_matplotlib

        require_matplotlib()

    from chairlift.bench.report import create_summary

    begin = datetime.now(UTC)
    run, interrupted = _run(settings)
    if not run.records:
        console.print("interrupted before the first request was sent")
        raise typer.Exit(INTERRUPTED)
    summary = create_summary(
        run.records,
        planned=len(run.requests),
        goodput_s=settings.goodput_s,
        slo_scale=settings.slo_scale,
    )
    _print(summary)
    if settings.save_result:
        _write(settings.save_result, begin, settings, summary, run)
    if settings.plot:
        from chairlift.bench.plot import plot as draw

        draw(
            run.records,
            settings.plot,
            title=f"{settings.base_url}: {summary.completed} of {summary.planned} requests "
            f"completed, {summary.throughput:.3g} a second",
            goodput_s=settings.goodput_s,
        )
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if not summary.completed:
        raise typer.Exit(NOTHING_COMPLETED)


def _run(settings: Settings) -> tuple[Run, bool]:
    """Everything that is sent; whether it was ended early."""
    from chairlift.bench.alone import predict_alone
    from chairlift.bench.client import Client
    from chairlift.bench.progress import LiveProgress
    from chairlift.bench.run import Run
    from chairlift.tables import load_costs

    prompts = settings.create_prompts()
    requests = settings.create_requests(prompts)
    client = Client(settings.base_url, api_key=settings.first_key, timeout=settings.timeout)
    alone = predict_alone(load_costs(settings.costs), requests) if settings.costs else None
    with LiveProgress(console) as watch:
        run = Run(
            client,
            requests,
            prompts,
            max_concurrency=settings.max_concurrency,
            alone=alone,
            watch=watch,
        )

        async def everything() -> None:
            async with client:
                await run.warm_up(settings.num_warmups)
                if settings.slo_scale and alone is None:
                    await run.measure_alone()
                await run.send_all()

        return run, asyncio.run(_is_interrupted(everything()))


async def _is_interrupted(work: Coroutine[Any, Any, None]) -> bool:
    """Do the work, but end it at SIGINT or SIGTERM, and say whether that came."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


# ---------------------------------------------------------------------- what came out


def _print(summary: Summary) -> None:
    from chairlift.bench.tables import create_tables, warnings

    out = Console()
    if not out.is_terminal:
        out = Console(width=TABLE_WIDTH)
    for table in create_tables(summary):
        out.print(table)
    for warning in warnings(summary):
        console.print(Text(f"warning: {warning}", "yellow"), soft_wrap=True)


def _write(path: Path, begin: datetime, settings: Settings, summary: Summary, run: Run) -> None:
    """Everything, for other programs."""
    result = {
        "version": chairlift.__version__,
        "begin": begin.isoformat(timespec="seconds"),
        "settings": settings.to_json(),
        "summary": summary.to_json(),
        "records": [
            record.to_json() for record in sorted(run.records, key=lambda record: record.number)
        ],
    }
    try:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path} can't be written: {error.strerror}") from None


def _check_writable(path: Path | None) -> None:
    """Refuse a file that can't be written before the run, not after it."""
    if path is None:
        return
    new = not path.exists()
    try:
        path.open("a").close()
    except OSError as error:
        raise ConfigurationError(f"{path} can't be written: {error.strerror}") from None
    if new:
        path.unlink()
