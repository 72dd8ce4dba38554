"""What a cluster is told: one value, which is the ``args`` of the application in Serve's config."""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

from chairlift.cluster.autoscaling import AutoscalingOptions
from chairlift.engine.worker_config import WorkerConfig
from chairlift.errors import ConfigurationError
from chairlift.server.limits import Limits

APPLICATION = "chairlift.cluster.application:build"
"""What Serve imports to build the application."""


class ClusterConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All options of the application."""

    worker: WorkerConfig
    """For the engine of every replica."""
    autoscaling: AutoscalingOptions
    gpus: float = 1.0
    """GPUs of a replica."""
    cpus: float = 1.0
    """Processor cores of a replica."""
    front_ends: int = 1
    """Processes that speak HTTP."""
    max_queue: int = 256
    """The most requests that a replica has at a time."""
    max_queue_per_key: int | None = None
    """The most pictures of one API key that a front end has accepted and are not done."""
    max_megapixel_steps: float = 6000.0
    """The most work of one request, see :class:`~chairlift.server.limits.Limits`."""
    max_streams: int = 2048
    """The most event streams that a front end has open."""
    hang_timeout: float = 120.0
    """Seconds after which an engine that has work and says nothing is replaced."""
    shutdown_timeout: int = 30
    """Seconds that a replica which is taken away has to finish what it has."""
    data_dir: str | None = None
    """Where jobs and their pictures are kept; without one there are no jobs."""
    keep_days: float = 7.0
    """How long finished jobs are kept; 0 is for ever."""
    keep_gib: float = 10.0
    """How large all their pictures may be; 0 is no bound."""
    api_key_file: str | None = None
    """Keys, one a line; those in the variable ``CHAIRLIFT_API_KEY`` are taken too."""
    open_metrics: bool = False
    """Whether the metrics need no key."""
    cors_origins: tuple[str, ...] = ()
    """Whose pages may call the server from a browser."""
    compat: Literal["a1111"] | None = None
    """Another program whose clients are answered too."""
    log_prompts: bool = False
    """Whether the lines of requests have their prompts."""

    @property
    def limits(self) -> Limits:
        """What a front end takes in.

        Raises:
            ConfigurationError: One of them is out of bounds.
        """
        return Limits(
            max_queue=self.max_queue * self.autoscaling.max_replicas,
            max_queue_per_key=self.max_queue_per_key,
            max_megapixel_steps=self.max_megapixel_steps,
            max_streams=self.max_streams,
        )

    def __post_init__(self) -> None:
        for name, least in (("front_ends", 1), ("max_queue", 1), ("shutdown_timeout", 0)):
            value = getattr(self, name)
            if value < least:
                raise ConfigurationError(f"{name} is {value}; it must be at least {least}")
        for name in ("gpus", "cpus", "keep_days", "keep_gib"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ConfigurationError(f"{name} is {value}; it must be 0 or more")
        _ = self.limits
        if not 0 < self.hang_timeout < math.inf:
            raise ConfigurationError(f"hang_timeout is {self.hang_timeout}; it must be above 0")
        if self.data_dir is not None and self.front_ends > 1:
            raise ConfigurationError(
                f"front_ends is {self.front_ends}; with a data folder, which one process uses at a "
                "time, it must be 1"
            )


def parse_config(arguments: dict[str, Any]) -> ClusterConfig:
    """The options in the ``args`` of Serve's config.

    Raises:
        ConfigurationError: One is unknown, missing or wrong.
    """
    unknown = set(arguments.get("worker") or ()) - set(WorkerConfig.__struct_fields__)
    if unknown:
        raise ConfigurationError(f"worker has no option {', '.join(sorted(unknown))}")
    try:
        return msgspec.convert(arguments, ClusterConfig)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"the cluster's options are wrong: {error}") from None


def to_arguments(config: ClusterConfig) -> dict[str, Any]:
    """The ``args`` that say this; what is as by default is left out."""
    arguments: dict[str, Any] = msgspec.to_builtins(config)
    defaults = {
        field.name: field.default
        for field in msgspec.structs.fields(ClusterConfig)
        if field.default is not msgspec.NODEFAULT
    }
    worker = msgspec.to_builtins(WorkerConfig())
    arguments["worker"] = _changed(arguments["worker"], worker)
    return _changed(arguments, msgspec.to_builtins(defaults))


def to_serve_config(config: ClusterConfig, *, host: str, port: int) -> dict[str, Any]:
    """What ``serve run`` and ``serve deploy`` read.

    Args:
        config: The application's options.
        host: The address that the proxies of all nodes listen on.
        port: Their port.
    """
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": host, "port": port},
        "applications": [
            {
                "name": "chairlift",
                "route_prefix": "/",
                "import_path": APPLICATION,
                "args": to_arguments(config),
            }
        ],
    }


def _changed(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in values.items()
        if name not in defaults or value != defaults[name]
    }
