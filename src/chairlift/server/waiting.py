"""Callers who wait for a request to end, and who may go away before."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Request

from chairlift.engine.messages import Finished
from chairlift.engine.ride import Ride
from chairlift.errors import RequestCancelled


async def unless_disconnected(request: Request, ride: Ride) -> Finished:
    """Wait for the answer, but cancel it when the caller goes away.

    Raises:
        RequestCancelled: The caller has gone.
    """
    gone = asyncio.ensure_future(_disconnection(request))
    either: set[asyncio.Future[Any]] = {ride.answer, gone}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not ride.answer.done():
            raise RequestCancelled("the caller has gone away")
        return ride.answer.result()
    finally:
        ride.answer.cancel()
        gone.cancel()


async def _disconnection(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
