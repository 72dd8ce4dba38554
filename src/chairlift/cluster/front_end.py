"""A front end in a cluster: the very application of ``chairlift serve``, around all replicas."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from starlette.types import ASGIApp

from chairlift.cluster.client import ClusterClient, Replicas
from chairlift.cluster.config import ClusterConfig
from chairlift.cluster.headers import WithoutRequestId
from chairlift.server.access import Access, read_keys, split_keys
from chairlift.server.app import create_app
from chairlift.server.jobs.data_dir import DataDir
from chairlift.server.jobs.manager import JobManager, Retention
from chairlift.server.jobs.store import JobStore
from chairlift.server.logs import RequestLog
from chairlift.server.serve import open_tracing

KEY_VARIABLE = "CHAIRLIFT_API_KEY"


class FrontEnd:
    """Speaks HTTP.

    Args:
        config: All options.
        replicas: The engines.

    Raises:
        ConfigurationError: The environment asks for traces that can't be sent.
    """

    def __init__(self, config: ClusterConfig, replicas: Replicas) -> None:
        self._config = config
        self._stack = ExitStack()
        self._jobs: JobManager | None = None
        self._client = ClusterClient(
            replicas,
            policy=config.worker.policy,
            max_wait=config.autoscaling.max_wait_s,
            front_ends=config.front_ends,
        )
        self._client.on_end.append(RequestLog(config.log_prompts))
        self._tracing = self._stack.enter_context(open_tracing())
        if self._tracing is not None:
            self._client.on_end.append(self._tracing)

    async def start(self) -> None:
        """Wait for a replica, and take up the jobs.

        Raises:
            ConfigurationError: The data folder can't be used.
        """
        await self._client.start()
        if self._config.data_dir is not None:
            self._jobs = await self._open_jobs(Path(self._config.data_dir))

    async def close(self) -> None:
        """End; jobs that aren't done stay in the store."""
        if self._jobs is not None:
            self._jobs.leave_waiting()
            await self._client.drain(self._config.shutdown_timeout)
            await self._jobs.close()
        await self._client.close()
        self._stack.close()

    def create_app(self) -> ASGIApp:
        """The HTTP application; after :meth:`start`.

        Raises:
            ConfigurationError: The keys can't be read.
        """
        config = self._config
        app = create_app(
            self._client,
            self._jobs,
            limits=config.limits,
            access=_read_access(config),
            compat=config.compat,
            tracing=self._tracing,
        )
        return WithoutRequestId(app)

    async def _open_jobs(self, folder: Path) -> JobManager:
        data_dir = self._stack.enter_context(DataDir.open(folder))
        config = self._config
        retention = Retention(
            seconds=86_400 * config.keep_days or None,
            bytes=int(2**30 * config.keep_gib) or None,
        )
        jobs = JobManager(
            self._client, await JobStore.open(data_dir), retention, config.worker.strict
        )
        await jobs.start()
        return jobs


def _read_access(config: ClusterConfig) -> Access:
    keys = read_keys(Path(config.api_key_file)) if config.api_key_file else ()
    if KEY_VARIABLE in os.environ:
        keys = split_keys([os.environ[KEY_VARIABLE]]) + keys
    return Access(
        keys=tuple(dict.fromkeys(keys)),
        open_metrics=config.open_metrics,
        cors_origins=config.cors_origins,
    )
