"""Callers who wait for a request to end, and who may go away before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from fastapi import Request

from chairlift.engine.messages import Finished
from chairlift.engine.ride import Ride
from chairlift.errors import RequestCancelled

T = TypeVar("T")


async def unless_disconnected(request: Request, ride: Ride) -> Finished:
    """Wait for the answer, but cancel it when the caller goes away.

    Raises:
        RequestCancelled: The caller has gone.
    """
    return await while_connected(request, ride.answer)


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Wait for ``work``, and cancel it when the caller goes away.

    Raises:
        RequestCancelled: The caller has gone.
    """
    gone, working = asyncio.ensure_future(_disconnection(request)), asyncio.ensure_future(work)
    either: set[asyncio.Future[Any]] = {working, gone}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise RequestCancelled("the caller has gone away")
        return working.result()
    finally:
        working.cancel()
        gone.cancel()


async def _disconnection(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
