"""The Ray Serve application: front ends that speak HTTP, and replicas that each hold an engine."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import msgspec
from ray import serve
from ray.serve import Application
from ray.serve.request_router import RequestRouter
from starlette.types import ASGIApp

from chairlift.cluster.choice import STATS_PERIOD_SECONDS
from chairlift.cluster.config import ClusterConfig, parse_config, to_arguments
from chairlift.cluster.front_end import FrontEnd
from chairlift.cluster.handle import ServeReplicas
from chairlift.cluster.metrics import ReplicaMetrics
from chairlift.cluster.policy import BacklogPolicy
from chairlift.cluster.replica import EngineReplica
from chairlift.cluster.router import BacklogRouter
from chairlift.engine.worker_config import WorkerConfig
from chairlift.logs import log_lines
from chairlift.server.request_id import name_request

FRONT_END_REQUESTS = 10_000
"""HTTP requests that a front end answers at a time, streams among them; it refuses by itself what
there is no room for."""
FULL_RETRY_SECONDS = 10
HEALTH_SECONDS = 5.0
SLOW_CALLER_SECONDS = 10
"""How long callers may take to read their answers when a front end ends."""


class Engine(EngineReplica):
    """A replica as Serve makes and ends it."""

    async def __init__(self, worker: dict[str, Any], hang_timeout: float) -> None:  # type: ignore[misc]
        config = msgspec.convert(worker, WorkerConfig)
        super().__init__(config, hang_timeout)
        self._lines = ExitStack()
        self._lines.enter_context(log_lines(config.log_format))
        ReplicaMetrics(self.client)
        await self.start()

    async def __del__(self) -> None:
        """Serve has waited for the requests aboard."""
        await self.close()
        self._lines.close()


class Ingress(FrontEnd):
    """A front end as Serve makes and ends it."""

    async def __init__(self, arguments: dict[str, Any], engine: Any) -> None:  # type: ignore[misc]
        config = parse_config(arguments)
        super().__init__(config, ServeReplicas(engine))
        self._lines = ExitStack()
        self._lines.enter_context(log_lines(config.worker.log_format, name_request))
        await self.start()

    async def __del__(self) -> None:
        """Serve has waited for the requests that have a caller."""
        await self.close()
        self._lines.close()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Called after the constructor."""
        return self.create_app()


def build(arguments: dict[str, Any]) -> Application:
    """The application; Serve's config names this function.

    Args:
        arguments: See :func:`chairlift.cluster.config.parse_config`.

    Raises:
        ConfigurationError: An option is unknown, missing or wrong.
    """
    return create_application(parse_config(arguments))


def create_application(
    config: ClusterConfig, router: type[RequestRouter] | str = BacklogRouter
) -> Application:
    """The application.

    Args:
        config: All options.
        router: What chooses the replica, or where Serve imports it from.
    """
    told = to_arguments(config)
    engine = serve.deployment(Engine, name="Engine").options(**engine_options(config, router))
    front_end = serve.deployment(serve.ingress()(Ingress), name="FrontEnd").options(
        **front_end_options(config)
    )
    # Replicas are told no more than they need: Serve makes new ones when that changes.
    replicas = engine.bind(told["worker"], config.hang_timeout)
    return front_end.bind(told, replicas)


def engine_options(config: ClusterConfig, router: type[RequestRouter] | str) -> dict[str, Any]:
    """How Serve runs the replicas."""
    autoscaling = msgspec.to_builtins(config.autoscaling)
    return {
        "ray_actor_options": {"num_cpus": config.cpus, "num_gpus": config.gpus},
        "max_ongoing_requests": config.max_queue,
        "max_queued_requests": config.max_queue,
        "autoscaling_config": {
            "min_replicas": config.autoscaling.min_replicas,
            "max_replicas": config.autoscaling.max_replicas,
            "policy": {"policy_function": BacklogPolicy, "policy_kwargs": autoscaling},
            # With initial_replicas, every change of the bounds would begin anew from there. The
            # policy has its own delays.
            "upscale_delay_s": 0.0,
            "downscale_delay_s": 0.0,
        },
        "request_router_config": {
            "request_router_class": router,
            "request_routing_stats_period_s": STATS_PERIOD_SECONDS,
        },
        "graceful_shutdown_timeout_s": float(config.shutdown_timeout),
        "graceful_shutdown_wait_loop_s": 0.5,
        "health_check_period_s": HEALTH_SECONDS,
    }


def front_end_options(config: ClusterConfig) -> dict[str, Any]:
    """How Serve runs the front ends."""
    return {
        "num_replicas": config.front_ends,
        "ray_actor_options": {"num_cpus": 1},
        "max_ongoing_requests": FRONT_END_REQUESTS,
        "max_queued_requests": FRONT_END_REQUESTS,
        "backpressure_config": {"status_code": 429, "retry_after_s": FULL_RETRY_SECONDS},
        "graceful_shutdown_timeout_s": float(config.shutdown_timeout + SLOW_CALLER_SECONDS),
        "graceful_shutdown_wait_loop_s": 0.5,
        "health_check_period_s": HEALTH_SECONDS,
    }
