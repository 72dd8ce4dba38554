"""The run: warm-ups, what requests take alone, then the open loop.

The loop is open: when a request is sent doesn't depend on any answer. Callers on the internet don't
wait for each other either, and a generator that slowed down with the server would hide how long its
queue grows. ``--max-concurrency`` closes the loop on purpose; the wait for room is then part of the
latency.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Protocol

from chairlift.bench.alone import REPEATS, spread_alone, to_measure
from chairlift.bench.client import Answer, Client
from chairlift.bench.prompts import Prompts
from chairlift.bench.records import Record, create_record
from chairlift.bench.requests import PlannedRequest
from chairlift.errors import ConfigurationError


class Watch(Protocol):
    """Who looks on."""

    def phase(self, name: str, total: int) -> None:
        """Be told what begins, and of how many requests it is."""

    def sent(self) -> None:
        """Be told that a request was sent."""

    def ended(self, answer: Answer) -> None:
        """Be told that a request ended."""


class NobodyWatches(Watch):
    """Shows nothing."""


class Run:
    """One run.

    Args:
        client: Sends.
        requests: What, in order of arrival.
        prompts: What warm-ups show: numbers past those of the requests.
        max_concurrency: The most requests under way; None is without bound.
        alone: Seconds that requests take alone, by their numbers, where that is known.
        watch: Is told what happens.
    """

    def __init__(
        self,
        client: Client,
        requests: Sequence[PlannedRequest],
        prompts: Prompts,
        *,
        max_concurrency: int | None = None,
        alone: Mapping[int, float] | None = None,
        watch: Watch,
    ) -> None:
        self.requests = requests
        self.records: list[Record] = []
        """Of what was sent, in the order in which it ended. When :meth:`send_all` is cancelled,
        what is under way is in it, unfinished."""
        self._client = client
        self._alone = alone or {}
        self._prompts = prompts
        self._room = (
            asyncio.Semaphore(max_concurrency) if max_concurrency else contextlib.nullcontext()
        )
        self._watch = watch
        self._prompt_number = len(requests)

    async def warm_up(self, count: int) -> None:
        """Send so many one after the other, and forget them.

        Raises:
            ConfigurationError: One failed.
        """
        self._watch.phase("warming up", count)
        for number in range(count):
            await self._send_aside(self.requests[number % len(self.requests)])

    async def measure_alone(self) -> None:
        """Learn what requests take alone, one after the other on a server that has nothing else
        to do.

        Raises:
            ConfigurationError: One failed.
        """
        chosen = to_measure(self.requests)
        self._watch.phase("measuring the time alone", REPEATS * len(chosen))
        measured = {
            request.number: median([await self._send_aside(request) for _ in range(REPEATS)])
            for request in chosen
        }
        self._alone = dict(spread_alone(self.requests, measured))

    async def send_all(self) -> None:
        """Send each request at its arrival, and wait until all have ended."""
        self._watch.phase("sending", len(self.requests))
        start = time.perf_counter()
        async with asyncio.TaskGroup() as rides:
            for request in self.requests:
                delay = start + request.arrival_s - time.perf_counter()
                if delay > 0:
                    await asyncio.sleep(delay)
                rides.create_task(self._ride(request, start))

    async def _ride(self, request: PlannedRequest, start: float) -> None:
        """Send one as soon as there is room, and keep its record, also when it is cancelled."""
        begun = time.perf_counter()
        async with self._room:
            sent = time.perf_counter()
            self._watch.sent()
            answer = None
            try:
                answer = await self._client.send(request.body)
                self._watch.ended(answer)
            finally:
                record = create_record(
                    request,
                    start=start,
                    begun=begun,
                    sent=sent,
                    answer=answer,
                    alone_s=self._alone.get(request.number),
                )
                self.records.append(record)

    async def _send_aside(self, request: PlannedRequest) -> float:
        """Send a request like this one, with another prompt; the seconds that it took.

        Raises:
            ConfigurationError: It failed.
        """
        body = request.kind.body(self._prompts(self._prompt_number), request.steps)
        self._prompt_number += 1
        sent = time.perf_counter()
        self._watch.sent()
        answer = await self._client.send(body)
        self._watch.ended(answer)
        if answer.error:
            raise ConfigurationError(f"a warm-up failed: {answer.error}: {answer.message}")
        return answer.finish - sent
