"""When the requests that are here will be done, as if nobody came any more."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from chairlift.request import RowId
from chairlift.scheduling.roster import Numbers
from chairlift.scheduling.state import Group, State


def predict(state: State, now: float, rows: Collection[RowId] | None = None) -> dict[str, float]:
    """Seconds from ``now`` until all rows of each request are done.

    Args:
        state: Who is here.
        now: The time.
        rows: Only of the requests of these rows, which must be here; None is everybody. In a long
            queue, to ask for a few is several times as cheap.
    """
    groups = list(state.groups.values())
    if not groups:
        return {}
    seconds = _seconds(state, groups, now)
    ids: Iterable[RowId] = (row.work.id for group in groups for row in group.rows)
    if rows is not None:
        ids, seconds = rows, seconds[_places(groups, rows)]
    predicted: dict[str, float] = {}
    for (request_id, _), eta in zip(ids, seconds.tolist(), strict=True):
        predicted[request_id] = max(eta, predicted.get(request_id, 0.0))
    return predicted


def _seconds(state: State, groups: Sequence[Group], now: float) -> Numbers:
    """The same of every row, group by group, in the order of their columns.

    In each group the rows go in convoys of as many as fill a forward, in the policy's order; the
    convoys of all groups go one after the other, by their heads.
    """
    views = [state.view(group, now) for group in groups]
    places, heads, work, own = [], [], [], []
    first = 0
    for group, view, ranks in zip(groups, views, state.policy(views), strict=True):
        order = np.lexsort((ranks, -view.rows.column("priority")))
        head = order[_heads(view.rows.column("entries")[order], view.full)]
        denoise = view.left[order] * view.each
        once = state.costs.encode(group.shape) * _waits(group)[order] + view.finish
        places.append(first + order)
        heads.append(np.stack([-view.rows.column("priority")[head], ranks[head]]))
        work.append(denoise + once)
        # Each row takes at least a tick for each evaluation that it has left.
        own.append(view.rows.column("left")[order] * view.tick - np.cumsum(denoise))
        first += len(order)

    priority, rank = np.concatenate(heads, axis=1)
    order = np.lexsort((rank, priority))
    seconds = np.empty(first)
    seconds[np.concatenate(places)[order]] = (
        np.cumsum(np.concatenate(work)[order]) + np.maximum(np.concatenate(own), 0)[order]
    )
    return seconds


def _waits(group: Group) -> Numbers:
    """1 for each row that has no slot yet, and 0 for those aboard, which are encoded."""
    waits = np.ones(len(group))
    waits[[group.rows.place(id) for id in group.aboard]] = 0.0
    return waits


def _heads(entries: Numbers, full: float) -> NDArray[np.intp]:
    """For each of some rows in order the place of the first one of its convoy."""
    convoys = (np.cumsum(entries) - entries) // full
    starts = np.flatnonzero(np.diff(convoys, prepend=-1.0))
    return starts[np.searchsorted(starts, np.arange(len(entries)), side="right") - 1]


def _places(groups: Sequence[Group], rows: Collection[RowId]) -> list[int]:
    """Where these rows are among those of all groups."""
    places = []
    for id in rows:
        first = 0
        for group in groups:
            if id in group.rows:
                places.append(first + group.rows.place(id))
                break
            first += len(group)
    return places
