"""When the requests that are here will be done, as if nobody came any more."""

from __future__ import annotations

import numpy as np

from chairlift.scheduling.policies import View
from chairlift.scheduling.roster import Numbers
from chairlift.scheduling.state import Group, State


def predict(state: State, now: float) -> dict[str, float]:
    """Seconds from ``now`` until all rows of each request are done.

    In each group the rows go in convoys of as many as fill a forward, in the policy's order; the
    convoys of all groups go one after the other, by their heads.
    """
    groups = list(state.groups.values())
    if not groups:
        return {}
    views = [state.view(group, now) for group in groups]
    places, heads, work, own = [], [], [], []
    first = 0
    for group, view, ranks in zip(groups, views, state.policy(views), strict=True):
        order = np.lexsort((ranks, -view.rows.column("priority")))
        convoy = 1 if state.one_at_a_time else state.cap(group)
        head = order[np.arange(len(order)) // convoy * convoy]
        denoise = (view.rows.column("left") * view.each)[order]
        once = state.costs.encode(group.shape) + view.finish
        places.append(first + order)
        heads.append(np.stack([-view.rows.column("priority")[head], ranks[head]]))
        work.append(denoise + once)
        own.append(_alone(group, view)[order] - np.cumsum(denoise))
        first += len(order)

    priority, rank = np.concatenate(heads, axis=1)
    order = np.lexsort((rank, priority))
    seconds = np.empty(first)
    seconds[np.concatenate(places)[order]] = (
        np.cumsum(np.concatenate(work)[order]) + np.maximum(np.concatenate(own), 0)[order]
    )
    predicted: dict[str, float] = {}
    rows = (row for group in groups for row in group.rows)
    for row, eta in zip(rows, seconds.tolist(), strict=True):
        id = row.work.id.request_id
        predicted[id] = max(eta, predicted.get(id, 0.0))
    return predicted


def _alone(group: Group, view: View) -> Numbers:
    """Seconds that each row takes at least: a tick for each evaluation that it has left."""
    return np.array([row.remaining for row in group.rows]) * view.tick
