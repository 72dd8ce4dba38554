"""Measures one size of one model: steps, the bare loop, then every way to batch."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from benchmarks.bare import BareLoop
from benchmarks.gpu.figures import Figures
from benchmarks.gpu.loads import Lift, poisson_times
from benchmarks.gpu.results import (
    Load,
    Measurement,
    Size,
    at_once_load,
    closed_load,
    poisson_load,
)
from benchmarks.gpu.settings import CONTINUOUS, OFF, Mode, Plan
from chairlift.engine.memory import free_cache
from chairlift.models.adapter import Adapter
from chairlift.profiler import Profiler


class SizeBench:
    """Fills in what is known of a size.

    Args:
        adapter: The model; the calling thread is the one that has loaded it.
        size: To fill in.
        plan: What is measured.
        steps: Of each request.
        memory: Bytes for all rows that have slots.
        report: Told what was measured, a line at a time.
        save: Called after every measurement.
    """

    def __init__(
        self,
        adapter: Adapter,
        size: Size,
        plan: Plan,
        *,
        steps: int,
        memory: float,
        report: Callable[[str], object],
        save: Callable[[], object],
    ) -> None:
        self._adapter = adapter
        self._size = size
        self._plan = plan
        self._steps = steps
        self._memory = memory
        self._report = report
        self._save = save

    def run(self) -> None:
        """Everything, one after the other.

        Raises:
            InvalidRequest: The model doesn't take this size, or so many steps.
            RuntimeError: Not even one row works, or the device doesn't.
        """
        self._measure_steps()
        self._measure_bare()
        self._measure_off()
        self._measure_dynamic()
        self._measure_continuous()

    # ------------------------------------------------------------------ what it could be

    def _measure_steps(self) -> None:
        size, side = self._size, self._size.side
        profiler = Profiler(self._adapter, self._plan.repeats)
        for rows in self._plan.rows:
            try:
                seconds = profiler.step_seconds(side, side, rows)
            except torch.OutOfMemoryError:
                self._report(f"there is no memory for steps of {rows} rows")
                break
            size.step_seconds[rows] = seconds
            self._report(f"{rows} rows: {seconds:.4f} s a step, {rows / seconds:.1f} rows/s")
            self._save()
        self._free()
        if not size.step_seconds:
            raise RuntimeError("there is no memory for a step of one row")
        size.encode_seconds = profiler.encode_seconds(side, side)
        size.decode_seconds = profiler.decode_seconds(side, side, 1)
        self._report(
            f"knee {size.knee}, gain {size.gain:.2f}; a prompt {size.encode_seconds:.4f} s, "
            f"a picture's decoding {size.decode_seconds:.4f} s"
        )

    def _measure_bare(self) -> None:
        size = self._size
        BareLoop(self._adapter, size.knee, min(2, self._steps), size.side).run()
        loop = BareLoop(self._adapter, size.knee, self._steps, size.side)
        size.bare = loop.pictures_per_second(self._plan.seconds)
        self._report(f"bare loop, {size.knee} rows: {size.bare:.3f} pictures/s")
        self._save()

    def _free(self) -> None:
        """Give back the memory of forwards that were too large."""
        gc.collect()
        free_cache(self._adapter.device)

    # ------------------------------------------------------------------ the ways to batch

    def _measure_off(self) -> None:
        with self._lift(OFF) as lift:
            self._size.alone_s = lift.alone()
            self._report(f"alone: {self._size.alone_s:.3f} s a picture")
            for load in self._loads():
                self._measure(lift, load)

    def _measure_dynamic(self) -> None:
        """Every setting at saturation and at the judged load; the best at each of them goes on to
        the other loads of its kind.
        """
        size, plan = self._size, self._plan
        assert size.alone_s is not None
        swept, judged = closed_load(max(plan.clients)), self._poisson(plan.judged_load)
        modes = [
            Mode(batching="dynamic", max_batch_size=rows, batch_delay=share * size.alone_s)
            for rows in plan.batch_sizes
            for share in plan.delays
        ]
        throughput, p99_s = dict[Mode, float](), dict[Mode, float]()
        for mode in modes:
            saturated, loaded = self._serve(mode, [swept, judged])
            throughput[mode] = saturated.throughput if saturated else 0.0
            p99_s[mode] = loaded.p99_s if loaded else math.inf
        best = max(modes, key=lambda mode: throughput[mode])
        quickest = min(modes, key=lambda mode: p99_s[mode])
        size.judged, size.chosen = judged, {"saturation": best, "load": quickest}
        self._report(f"the best dynamic at saturation: {best}; at {judged.name}: {quickest}")
        others = [load for load in self._loads() if load not in (swept, judged)]
        self._serve(best, [load for load in others if load.is_saturating])
        self._serve(quickest, [load for load in others if not load.is_saturating])

    def _measure_continuous(self) -> None:
        self._serve(CONTINUOUS, self._loads())

    def _serve(self, mode: Mode, loads: Sequence[Load]) -> list[Figures | None]:
        """The figures of each load."""
        if not loads:
            return []
        with self._lift(mode) as lift:
            return [self._measure(lift, load) for load in loads]

    @contextmanager
    def _lift(self, mode: Mode) -> Iterator[Lift]:
        """A loop of that kind that has been warmed up."""
        lift = Lift(self._adapter, mode, self._size.side, self._steps, self._memory)
        lift.warm_up(max(load.at_once or load.clients or 0 for load in self._loads()))
        yield lift
        lift.close()

    # ------------------------------------------------------------------ the loads

    def _loads(self) -> list[Load]:
        """All of them."""
        plan = self._plan
        loads = [closed_load(clients) for clients in plan.clients]
        if plan.at_once and not self._size.is_large:
            loads.append(at_once_load(plan.at_once))
        return loads + [self._poisson(share) for share in plan.loads]

    def _poisson(self, share: float) -> Load:
        assert self._size.bare is not None
        return poisson_load(share, share * self._size.bare)

    def _measure(self, lift: Lift, load: Load) -> Figures | None:
        """One way to batch under one load."""
        plan, alone_s = self._plan, self._size.alone_s
        assert alone_s is not None
        if load.clients is not None:
            outcome = lift.closed(load.clients, plan.seconds)
            figures = outcome.steady_figures(load.clients, alone_s)
        elif load.rate is not None:
            count = max(plan.pictures, round(load.rate * plan.seconds))
            outcome = lift.poisson(poisson_times(load.rate, count, plan.seed))
            figures = outcome.figures(alone_s)
        else:
            assert load.at_once is not None
            outcome = lift.at_once(load.at_once)
            figures = outcome.figures(alone_s)
        self._size.measurements.append(
            Measurement(mode=lift.mode, load=load, outcome=outcome, figures=figures)
        )
        self._report(f"{lift.mode}, {load.name}: {figures or 'no picture'}")
        for failure in sorted(set(outcome.failures)):
            self._report(f"{outcome.failures.count(failure)} failed: {failure}")
        self._save()
        return figures
