"""``chairlift deploy``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    parse_delay,
    parse_device,
    parse_loras,
    parse_max_batch_size,
)
from chairlift.errors import ConfigurationError
from chairlift.scheduling.names import DEFAULT_POLICY, check_policy

if TYPE_CHECKING:
    from chairlift.cluster.config import ClusterConfig


def deploy(
    model: Model = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file that is written.")
    ] = Path("serve.yaml"),
    run: Annotated[
        bool,
        typer.Option(
            "--run", help="Run it as well, on the cluster of RAY_ADDRESS or on this machine."
        ),
    ] = False,
    host: Annotated[
        str, typer.Option(help="Address that every node's proxy listens on.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Its port.")] = 8000,
    front_ends: Annotated[int, typer.Option(help="Processes that speak HTTP.")] = 1,
    min_replicas: Annotated[
        int, typer.Option(help="The fewest replicas; 0 lets the last one go.")
    ] = 1,
    max_replicas: Annotated[int, typer.Option(help="The most replicas.")] = 1,
    target_seconds: Annotated[
        float, typer.Option(help="Seconds of work that each replica should have before it.")
    ] = 10.0,
    scale_out_delay: Annotated[
        float, typer.Option(help="Seconds for which more must be wanted.")
    ] = 10.0,
    scale_in_delay: Annotated[
        float, typer.Option(help="Seconds for which fewer must be wanted.")
    ] = 300.0,
    max_wait: Annotated[
        float, typer.Option(help="Seconds that a request waits for a replica that takes it.")
    ] = 300.0,
    gpus: Annotated[float, typer.Option(help="GPUs of a replica.")] = 1.0,
    cpus: Annotated[float, typer.Option(help="Processor cores of a replica.")] = 1.0,
    max_queue: Annotated[
        int, typer.Option(help="The most requests that a replica has at a time.")
    ] = 256,
    max_queue_per_key: Annotated[
        int | None, typer.Option(help="The most pictures of one API key, accepted and not done.")
    ] = None,
    max_megapixel_steps: MaxMegapixelSteps = 6000.0,
    max_streams: Annotated[
        int, typer.Option(help="The most event streams that a front end has open.")
    ] = 2048,
    batching: Batching = "continuous",
    max_batch_size: MaxBatchSize = "auto",
    batch_delay_ms: BatchDelay = 50.0,
    policy: Policy = DEFAULT_POLICY,
    admission: Admission = "all",
    costs: Annotated[
        str | None, typer.Option(metavar="FILE", help="A cost table, on every node.")
    ] = None,
    api_key_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="A file of keys, on every node.")
    ] = None,
    open_metrics: OpenMetrics = False,
    cors_origin: CorsOrigins = None,
    compat: Compat = None,
    data_dir: Annotated[
        str | None,
        typer.Option(help="Folder for jobs, where the front end is; left out, there are no jobs."),
    ] = None,
    keep_days: KeepDays = 7.0,
    keep_gib: KeepGib = 10.0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    load_format: LoadFormat = "auto",
    lora: Loras = None,
    offload_text_encoders: OffloadTextEncoders = False,
    attention_backend: AttentionBackend = None,
    compile: Compile = False,
    preview_decoder: Annotated[
        str | None, typer.Option(help="Folder of an AutoencoderTiny that makes the previews.")
    ] = None,
    metadata: Metadata = True,
    hang_timeout: HangTimeout = 120.0,
    shutdown_timeout: Annotated[
        int, typer.Option(help="Seconds that a replica which is taken away has to finish.")
    ] = 30,
    log_format: LogFormatOption = "text",
    log_prompts: LogPrompts = False,
) -> None:
    """Write the Ray Serve config of a cluster, and run it if that is wanted.

    Paths are those of the nodes.
    """
    from chairlift.cluster.autoscaling import AutoscalingOptions
    from chairlift.cluster.config import ClusterConfig
    from chairlift.engine.worker_config import WorkerConfig

    check_policy(policy)
    config = ClusterConfig(
        worker=WorkerConfig(
            model=model,
            device=parse_device(device),
            dtype=dtype,
            load_format=load_format,
            loras=parse_loras(lora),
            offload_text_encoders=offload_text_encoders,
            attention_backend=attention_backend,
            compile=compile,
            preview_decoder=preview_decoder,
            batching=batching,
            policy=policy,
            costs=costs,
            strict=admission == "strict",
            max_batch_size=parse_max_batch_size(max_batch_size),
            batch_delay=parse_delay(batch_delay_ms),
            metadata=metadata,
            log_format=log_format,
        ),
        autoscaling=AutoscalingOptions(
            min_replicas=min_replicas,
            max_replicas=max_replicas,
            target_seconds=target_seconds,
            scale_out_delay_s=scale_out_delay,
            scale_in_delay_s=scale_in_delay,
            max_wait_s=max_wait,
        ),
        gpus=gpus,
        cpus=cpus,
        front_ends=front_ends,
        max_queue=max_queue,
        max_queue_per_key=max_queue_per_key,
        max_megapixel_steps=max_megapixel_steps,
        max_streams=max_streams,
        hang_timeout=hang_timeout,
        shutdown_timeout=shutdown_timeout,
        data_dir=data_dir,
        keep_days=keep_days,
        keep_gib=keep_gib,
        api_key_file=api_key_file,
        open_metrics=open_metrics,
        cors_origins=tuple(cors_origin or ()),
        compat=compat,
        log_prompts=log_prompts,
    )
    _write(config, output, host, port)
    console.print(f"{output} is written: `serve run {output}` or `serve deploy {output}`")
    if run:
        _run(output)


def _write(config: ClusterConfig, output: Path, host: str, port: int) -> None:
    import yaml

    from chairlift.cluster.config import to_serve_config

    text = yaml.safe_dump(to_serve_config(config, host=host, port=port), sort_keys=False)
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{output} can't be written: {error.strerror}") from None


def _run(file: Path) -> None:
    """Run a config until a signal comes."""
    try:
        from ray.serve.scripts import cli
    except ImportError as error:
        raise ConfigurationError(f"a cluster needs chairlift[ray]: {error}") from None
    cli.main(["run", str(file)], prog_name="serve")
