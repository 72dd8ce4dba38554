"""``chairlift serve``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from chairlift.cli.options import (
    Batching,
    Device,
    Dtype,
    LoadFormat,
    MaxBatchSize,
    Model,
    OffloadTextEncoders,
    console,
    parse_device,
    parse_max_batch_size,
)
from chairlift.scheduling.names import DEFAULT_POLICY, POLICY_NAMES

if TYPE_CHECKING:
    from chairlift.card import ModelCard


def serve(
    model: Model = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    batching: Batching = "continuous",
    max_batch_size: MaxBatchSize = "auto",
    batch_delay_ms: Annotated[
        float, typer.Option(help="How long dynamic waits for company, in milliseconds.")
    ] = 50.0,
    policy: Annotated[
        str, typer.Option(help=f"In which order continuous serves: {', '.join(POLICY_NAMES)}.")
    ] = DEFAULT_POLICY,
    admission: Annotated[
        Literal["all", "strict"],
        typer.Option(help="strict refuses what can't meet its deadline_ms."),
    ] = "all",
    costs: Annotated[
        str | None, typer.Option(metavar="FILE", help="A cost table of chairlift profile.")
    ] = None,
    max_queue: Annotated[
        int, typer.Option(min=1, help="The most pictures that are accepted and not done.")
    ] = 256,
    api_key: Annotated[
        str | None, typer.Option(envvar="CHAIRLIFT_API_KEY", help="What callers must send.")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    load_format: LoadFormat = "auto",
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="A LoRA that requests may name; repeatable."),
    ] = None,
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
                device=parse_device(device),
                dtype=dtype,
                load_format=load_format,
                loras=_parse_loras(lora),
                offload_text_encoders=offload_text_encoders,
                batching=batching,
                policy=policy,
                costs=costs,
                strict=admission == "strict",
                max_batch_size=parse_max_batch_size(max_batch_size),
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


def _print_memory(card: ModelCard) -> None:
    """Where the weights are, and how much they take."""
    for part in card.components:
        gibibytes = part.bytes / 2**30
        console.print(
            f"{part.name}: {part.parameters / 1e6:.1f} M weights, {gibibytes:.2f} GiB "
            f"on {part.device}",
            highlight=False,
        )


def _parse_delay(milliseconds: float) -> float:
    if not 0 <= milliseconds < math.inf:
        raise typer.BadParameter(f"{milliseconds} is not 0 or more", param_hint="--batch-delay-ms")
    return milliseconds / 1000


def _parse_api_key(key: str | None) -> str | None:
    if key == "":
        raise typer.BadParameter("the key is empty", param_hint="--api-key")
    return key


def _parse_loras(given: list[str] | None) -> list[tuple[str, str]]:
    loras = []
    for one in given or ():
        name, separator, path = one.partition("=")
        if not (name and separator and path):
            raise typer.BadParameter(f"{one!r} is not NAME=PATH", param_hint="--lora")
        loras.append((name, path))
    return loras
