"""The request router as Ray Serve calls it."""

from __future__ import annotations

import asyncio
import warnings
from types import SimpleNamespace
from typing import Any

from chairlift.cluster.choice import Choice
from chairlift.cluster.messages import encode
from tests.builders import a_request

with warnings.catch_warnings():
    # Serve's config is declared as older versions of pydantic had it.
    warnings.simplefilter("ignore")
    from chairlift.cluster.router import BacklogRouter


def test_while_all_are_full_replicas_are_asked_less_and_less_often() -> None:
    """Serve has a backoff, but a router of one's own has to ask for it."""
    router: Any = SimpleNamespace(
        select_available_replicas=lambda candidates: [], _choice=Choice[str]()
    )
    replicas: Any = [SimpleNamespace(replica_id=name, routing_stats={}) for name in "ab"]
    call = SimpleNamespace(call_method="generate", internal_request_id="1")
    request: Any = SimpleNamespace(
        metadata=call,
        args=[encode(a_request())],
        routing_context=SimpleNamespace(should_backoff=False),
    )
    [drawn] = asyncio.run(BacklogRouter.choose_replicas(router, replicas, request))
    assert sorted(replica.replica_id for replica in drawn) == ["a", "b"]
    assert request.routing_context.should_backoff
