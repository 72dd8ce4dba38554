"""``chairlift serve``."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from chairlift.cli.options import (
    Admission,
    AttentionBackend,
    BatchDelay,
    Batching,
    Compat,
    Compile,
    CorsOrigins,
    Device,
    Dtype,
    HangTimeout,
    KeepDays,
    KeepGib,
    LoadFormat,
    LogFormatOption,
    LogPrompts,
    Loras,
    MaxBatchSize,
    MaxMegapixelSteps,
    Metadata,
    Model,
    OffloadTextEncoders,
    OpenMetrics,
    Policy,
    console,
    not_negative,
    parse_delay,
    parse_device,
    parse_loras,
    parse_max_batch_size,
    parse_number_or_auto,
)
from chairlift.errors import ConfigurationError
from chairlift.scheduling.names import DEFAULT_POLICY

if TYPE_CHECKING:
    from chairlift.card import ModelCard
    from chairlift.server.access import Access
    from chairlift.server.jobs.manager import Retention

logger = logging.getLogger(__name__)

KEY_VARIABLE = "CHAIRLIFT_API_KEY"


def serve(
    model: Model = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    batching: Batching = "continuous",
    max_batch_size: MaxBatchSize = "auto",
    batch_delay_ms: BatchDelay = 50.0,
    policy: Policy = DEFAULT_POLICY,
    admission: Admission = "all",
    costs: Annotated[
        str | None, typer.Option(metavar="FILE", help="A cost table of chairlift profile.")
    ] = None,
    max_queue: Annotated[
        int, typer.Option(min=1, help="The most pictures that are accepted and not done.")
    ] = 256,
    max_queue_per_key: Annotated[
        int | None, typer.Option(min=1, help="The most of them that came with one API key.")
    ] = None,
    max_megapixel_steps: MaxMegapixelSteps = 6000.0,
    max_streams: Annotated[
        int, typer.Option(min=1, help="The most event streams that are open.")
    ] = 2048,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar=KEY_VARIABLE,
            metavar="KEY",
            help="What callers must send; repeatable, or several with commas between them.",
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file of further keys, one a line.")
    ] = None,
    open_metrics: OpenMetrics = False,
    cors_origin: CorsOrigins = None,
    ssl_certfile: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A certificate, for HTTPS.")
    ] = None,
    ssl_keyfile: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its key, where that isn't in the same file."),
    ] = None,
    compat: Compat = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder for jobs and their pictures; left out, one of the port's in the user's "
            "state folder."
        ),
    ] = None,
    keep_days: KeepDays = 7.0,
    keep_gib: KeepGib = 10.0,
    workers: Annotated[
        str,
        typer.Option(metavar="N|auto", help="Engine processes; auto is one for each CUDA device."),
    ] = "1",
    device: Device = "auto",
    dtype: Dtype = "auto",
    load_format: LoadFormat = "auto",
    lora: Loras = None,
    offload_text_encoders: OffloadTextEncoders = False,
    preview_decoder: Annotated[
        Path | None,
        typer.Option(help="Folder of an AutoencoderTiny that makes the previews."),
    ] = None,
    attention_backend: AttentionBackend = None,
    compile: Compile = False,
    metadata: Metadata = True,
    hang_timeout: HangTimeout = 120.0,
    shutdown_timeout: Annotated[
        int, typer.Option(min=0, help="Seconds that running requests have to finish.")
    ] = 30,
    log_format: LogFormatOption = "text",
    log_prompts: LogPrompts = False,
) -> None:
    """Serve a model over HTTP."""
    from chairlift.engine.messages import Loading, Ready
    from chairlift.engine.worker_config import WorkerConfig
    from chairlift.server.limits import Limits
    from chairlift.server.serve import ServeConfig
    from chairlift.server.serve import serve as run_server

    def tell(text: Text) -> None:
        if log_format == "json":
            logger.info(text.plain)
        else:
            console.print(text, soft_wrap=True)

    def on_loading(message: Loading) -> None:
        if message.done < message.total:
            tell(Text(f"loading {message.part} ({message.done + 1} of {message.total})"))

    def on_ready(ready: Ready, url: str) -> None:
        card = ready.card
        for line in _describe_memory(card):
            tell(Text(line))
        weights = f"{card.parameters / 1e6:.1f} M weights, {card.dtype} on {card.device}"
        tell(Text.assemble((card.id, "bold"), f" ({weights}) is served at ", (url, "bold")))

    run_server(
        ServeConfig(
            worker=WorkerConfig(
                model=model,
                device=parse_device(device),
                dtype=dtype,
                load_format=load_format,
                loras=parse_loras(lora),
                offload_text_encoders=offload_text_encoders,
                preview_decoder=str(preview_decoder) if preview_decoder else None,
                attention_backend=attention_backend,
                compile=compile,
                batching=batching,
                policy=policy,
                costs=costs,
                strict=admission == "strict",
                max_batch_size=parse_max_batch_size(max_batch_size),
                batch_delay=parse_delay(batch_delay_ms),
                metadata=metadata,
                log_format=log_format,
            ),
            workers=parse_number_or_auto(workers, "--workers"),
            host=host,
            port=port,
            limits=Limits(
                max_queue=max_queue,
                max_queue_per_key=max_queue_per_key,
                max_megapixel_steps=_above_zero(max_megapixel_steps, "--max-megapixel-steps"),
                max_streams=max_streams,
            ),
            data_dir=data_dir,
            retention=_parse_retention(keep_days, keep_gib),
            access=_parse_access(api_key, api_key_file, open_metrics, cors_origin),
            ssl_certfile=ssl_certfile,
            ssl_keyfile=ssl_keyfile,
            compat=compat,
            hang_timeout=_above_zero(hang_timeout, "--hang-timeout"),
            shutdown_timeout=shutdown_timeout,
            log_prompts=log_prompts,
        ),
        on_loading,
        on_ready,
    )


def _describe_memory(card: ModelCard) -> list[str]:
    """Where the weights are, and how much they take."""
    return [
        f"{part.name}: {part.parameters / 1e6:.1f} M weights, {part.bytes / 2**30:.2f} GiB "
        f"on {part.device}"
        for part in card.components
    ]


def _parse_retention(days: float, gibibytes: float) -> Retention:
    from chairlift.server.jobs.manager import Retention

    seconds = 86_400 * not_negative(days, "--keep-days")
    size = int(2**30 * not_negative(gibibytes, "--keep-gib"))
    return Retention(seconds=seconds or None, bytes=size if gibibytes else None)


def _above_zero(value: float, option: str) -> float:
    if not 0 < value < math.inf:
        raise typer.BadParameter(f"{value} is not above 0", param_hint=option)
    return value


def _parse_access(
    keys: list[str] | None, file: Path | None, open_metrics: bool, origins: list[str] | None
) -> Access:
    from chairlift.server.access import Access, read_keys, split_keys

    # An empty variable looks like none to typer, and would leave the door open.
    if not keys and KEY_VARIABLE in os.environ:
        keys = [os.environ[KEY_VARIABLE]]
    try:
        given = split_keys(keys or ())
    except ConfigurationError as error:
        raise typer.BadParameter(str(error), param_hint=f"--api-key, {KEY_VARIABLE}") from None
    more = read_keys(file) if file else ()
    return Access(
        keys=tuple(dict.fromkeys(given + more)),
        open_metrics=open_metrics,
        cors_origins=tuple(origins or ()),
    )
