"""The scheduler: which rows share the next forward.

Plain arithmetic: it imports no torch, reads no clock and does no I/O, so that the simulator runs
the very same object on a virtual clock. A turn of the engine's loop is::

    plan = scheduler.plan(now)
    result = runner.run(plan)
    scheduler.update(result)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from chairlift.errors import ConfigurationError
from chairlift.request import RowId
from chairlift.scheduling.batching import MODES, BatchingMode, continuous
from chairlift.scheduling.costs import Costs, Shape
from chairlift.scheduling.names import DEFAULT_POLICY, check_policy
from chairlift.scheduling.plan import Plan, Snapshot, TickResult
from chairlift.scheduling.policies import POLICIES, Policy
from chairlift.scheduling.prediction import predict
from chairlift.scheduling.state import Group, State
from chairlift.scheduling.work import Progress, RowWork

MAX_BATCH_SIZE = 32
"""Where the knee decides, there are at most this many rows in a forward."""
ABOARD = 2
"""So many times the rows of a forward may have a slot."""


class Scheduler:
    """Keeps the rows in groups, and asks the batching mode what to do with them.

    Args:
        batching: ``continuous``, ``dynamic`` or ``off``.
        policy: In which order ``continuous`` serves; one of
            :data:`~chairlift.scheduling.policies.POLICIES`.
        max_batch_size: The most rows in one forward; None is as many as fill it to the knee of
            their shape, as far as it is known.
        max_aboard: The most rows that may have a slot in one group; None is :data:`ABOARD` times
            ``max_batch_size``.
        batch_delay: Seconds that the head of the queue waits for company (``dynamic`` only).
        costs: What steps cost; None starts with nothing known.

    Raises:
        ConfigurationError: An argument is out of bounds.
    """

    def __init__(
        self,
        *,
        batching: str = "continuous",
        policy: str = DEFAULT_POLICY,
        max_batch_size: int | None = None,
        max_aboard: int | None = None,
        batch_delay: float = 0.0,
        costs: Costs | None = None,
    ) -> None:
        fill_to_knee = max_batch_size is None
        max_batch_size = MAX_BATCH_SIZE if max_batch_size is None else max_batch_size
        if max_batch_size < 1:
            raise ConfigurationError(f"max_batch_size is {max_batch_size}; it must be at least 1")
        if max_aboard is not None and max_aboard < max_batch_size:
            raise ConfigurationError(
                f"max_aboard is {max_aboard}; it must be at least {max_batch_size}, max_batch_size"
            )
        if not 0 <= batch_delay < float("inf"):
            raise ConfigurationError(f"batch_delay is {batch_delay} s; it must be 0 or more")
        self.costs = Costs() if costs is None else costs
        self._choose = _mode(batching)
        self._state = State(
            policy=self._policy(policy),
            one_at_a_time=batching == "off",
            costs=self.costs,
            max_batch_size=max_batch_size,
            fill_to_knee=fill_to_knee,
            max_aboard=ABOARD * max_batch_size if max_aboard is None else max_aboard,
            memory=math.inf,
            batch_delay=batch_delay,
        )

    def limit_memory(self, memory: float) -> None:
        """Give slots to no more rows than fit into so many bytes; who doesn't fit waits."""
        self._state.memory = memory

    @property
    def memory(self) -> float:
        """Bytes for all rows that have slots."""
        return self._state.memory

    def set_policy(self, name: str) -> None:
        """Serve in another order from the next tick on.

        Raises:
            ConfigurationError: There is no such policy.
        """
        self._state.policy = self._policy(name)

    def _policy(self, name: str) -> Policy:
        """Batches that run to completion are always begun in order of arrival."""
        policy = POLICIES[check_policy(name)]
        return policy if self._choose is continuous else POLICIES["fcfs"]

    def submit(self, rows: Iterable[RowWork]) -> None:
        """Append rows to the queue, in this order."""
        for row in rows:
            self._state.add(Progress(row))

    def cancel(self, rows: Iterable[RowId]) -> None:
        """Forget these rows, waiting or aboard; ids that aren't here are passed over."""
        for id in rows:
            for group in list(self._state.groups.values()):
                if id in group.rows:
                    self._state.remove(group, id)

    def plan(self, now: float) -> Plan:
        """The next tick, a function of the state and of ``now`` alone. Rows that join have a slot
        from here on.
        """
        choice = self._choose(self._state, now)
        group, rows = choice.group, choice.rows
        if group is None:
            return Plan(wake_at=choice.wake_at)
        for row in rows:
            if not row.aboard:
                row.aboard = True
                group.aboard[row.work.id] = row
        ending = [row for row in rows if row.left == 1]
        return Plan(
            key=group.key,
            joining=tuple([row.work.id for row in rows if not row.done]),
            running=tuple([row.work.id for row in rows]),
            steps=tuple([row.done for row in rows]),
            finishing=frozenset([row.work.id for row in ending if row.remaining == 1]),
            changing=frozenset([row.work.id for row in ending if row.remaining > 1]),
        )

    def update(self, result: TickResult) -> None:
        """Count the steps that were made, free the slots of rows that are done or failed or go on
        in another group, and learn what the tick cost.
        """
        plan, state = result.plan, self._state
        if plan.key is None:
            return
        group = state.groups[plan.key]
        state.tick += 1
        group.last_turn = state.tick
        state.make_room(group, result.out_of_memory)
        rows = [group.rows[id] for id in plan.running]
        entries = sum([row.entries for row in rows])
        each = result.seconds / entries
        for id, row in zip(plan.running, rows, strict=True):
            state.callers.serve(row.work.caller, each * row.entries)
            row.advance()
            if id in result.failed or id in plan.finishing:
                state.remove(group, id)
            elif id in plan.changing:
                state.move(group, id)
            else:
                group.rows.set(id, "left", row.remaining)
        if not result.failed and not result.out_of_memory:
            self._learn(group, result, entries)

    def _learn(self, group: Group, result: TickResult, entries: int) -> None:
        """What a tick cost."""
        group.curve.observe(result.entries or entries, result.seconds - result.encode_seconds)
        if joining := len(result.plan.joining):
            self.costs.observe_encode(group.shape, result.encode_seconds / joining)

    def decoded(self, shape: Shape, seconds: float) -> None:
        """A row was decoded, in so many seconds; what decoding costs is learned from it."""
        self.costs.observe_decode(shape, seconds)

    def predict_tick(self, plan: Plan) -> float:
        """In how many seconds the tick of a plan that was just made will be over."""
        if plan.key is None:
            return 0.0
        group = self._state.groups[plan.key]
        entries = sum([group.rows[id].entries for id in plan.running])
        encode = len(plan.joining) * self.costs.encode(group.shape)
        return encode + group.curve.seconds(entries)

    def predict(self, now: float, rows: Collection[RowId] | None = None) -> dict[str, float]:
        """In how many seconds the requests of these rows, which must be here, will be done; those
        of all that are here if ``rows`` is None. See :func:`predict`.
        """
        return predict(self._state, now, rows)

    def snapshot(self) -> Snapshot:
        groups = self._state.groups.values()
        return Snapshot(
            running=sum(len(group.aboard) for group in groups),
            waiting=sum(len(group) - len(group.aboard) for group in groups),
            backlog_seconds=self.backlog(),
        )

    def backlog(self) -> float:
        """Predicted seconds of work that is accepted and not done."""
        total = 0.0
        for group in self._state.groups.values():
            entries = min(self._state.filled(group), group.rows.entries)
            left = float(group.rows.column("left") @ group.rows.column("entries"))
            total += left * group.curve.seconds(entries) / entries
            total += len(group) * self.costs.decode(group.shape)
            total += (len(group) - len(group.aboard)) * self.costs.encode(group.shape)
        return total


def _mode(name: str) -> BatchingMode:
    if name not in MODES:
        raise ConfigurationError(f"batching is {name!r}; it must be one of {', '.join(MODES)}")
    return MODES[name]
