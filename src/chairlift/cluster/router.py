"""The request router of Ray Serve that goes by predicted seconds of work. It runs in every front
end.
"""

from __future__ import annotations

import time
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from chairlift.cluster import messages  # The module: Serve pickles what stands in this one.
from chairlift.cluster.choice import Choice


class BacklogRouter(RequestRouter):  # type: ignore[misc]
    """To the replica with the least backlog, or of nearly equal ones to the one that suits best."""

    def initialize_state(self, **settings: Any) -> None:
        """Called by Serve after the constructor."""
        self._choice: Choice[ReplicaID] = Choice()

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """The best replica that has room, and then two others."""
        with_room = self.select_available_replicas(candidate_replicas) or candidate_replicas
        replicas = {replica.replica_id: replica for replica in with_room}
        if pending_request is not None:
            # Otherwise Serve asks again at once, a thousand times a second while all are full.
            pending_request.routing_context.should_backoff = True
        if pending_request is None or pending_request.metadata.call_method != "generate":
            return [[replicas[id] for id in self._choice.draw(list(replicas))]]
        ranks = self._choice.rank(
            {id: replica.routing_stats for id, replica in replicas.items()},
            pending_request.metadata.internal_request_id,
            messages.decode_request(pending_request.args[0]),
            time.monotonic(),
        )
        return [[replicas[id] for id in rank] for rank in ranks]

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Called by Serve when a request has ended."""
        self._choice.end(internal_request_id)
