"""Replicas as Ray Serve has them: calls through a handle, and Ray's errors as ours."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException

from chairlift.cluster.client import RETRY_SECONDS, ReplicaLost
from chairlift.errors import QueueFull


class ServeReplicas:
    """The replicas of a deployment of :class:`~chairlift.cluster.replica.EngineReplica`.

    Args:
        handle: A ``DeploymentHandle``, whose router chooses the replica.
    """

    def __init__(self, handle: Any) -> None:
        self._describe = handle.describe
        self._generate = handle.options(method_name="generate", stream=True)

    async def generate(self, request: bytes, front_end: str) -> AsyncGenerator[bytes]:
        """See :class:`~chairlift.cluster.client.Replicas`."""
        response = self._generate.remote(request, front_end)
        try:
            async for message in response:
                yield message
        except BackPressureError as error:
            waiting, most, *_ = error.args
            raise QueueFull(
                f"no replica has room, and {waiting} requests wait for one, of at most {most}",
                retry_after=RETRY_SECONDS,
            ) from None
        except (RayError, RayServeException) as error:
            raise _explain(error) from error
        except BaseException:  # Nobody reads on.
            # What has failed meanwhile is raised by this.
            with suppress(RayError, RayServeException):
                response.cancel()
            raise

    async def describe(self) -> bytes:
        """See :class:`~chairlift.cluster.client.Replicas`."""
        try:
            card: bytes = await self._describe.remote()
        except (RayError, RayServeException) as error:
            raise _explain(error) from error
        return card


def _explain(error: Exception) -> Exception:
    """What our code has raised there comes as a RayTaskError; all else is the end of a replica."""
    is_ours = isinstance(error, RayTaskError)
    return error if is_ours else ReplicaLost(str(error).partition("\n")[0])
