"""Builders for tests of the load generator."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import Any

from chairlift.bench.client import Client
from chairlift.bench.kinds import Kind
from chairlift.bench.prompts import draw_prompts
from chairlift.bench.records import Record
from chairlift.bench.requests import PlannedRequest, draw_requests
from chairlift.bench.run import NobodyWatches, Run


def planned(count: int, *kinds: Kind, **settings: Any) -> list[PlannedRequest]:
    """Requests; all at once unless told otherwise."""
    given = {"rate": math.inf, "seed": 1} | settings
    return draw_requests(kinds or [Kind()], draw_prompts(1), count=count, **given)


def a_run(client: Client, requests: list[PlannedRequest], **settings: Any) -> Run:
    return Run(client, requests, draw_prompts(1), watch=NobodyWatches(), **settings)


def with_client(client: Client, work: Coroutine[Any, Any, None]) -> None:
    """Do work that needs the client."""

    async def everything() -> None:
        async with client:
            await work

    asyncio.run(everything())


def a_record(number: int = 0, **fields: Any) -> Record:
    """One that was sent at its arrival, which is a second after the one before, and took a
    second.
    """
    arrival = fields.pop("arrival_s", float(number))
    settings: dict[str, Any] = {
        "number": number,
        "group": "any",
        "body": {"prompt": "a boat"},
        "arrival_s": arrival,
        "late_s": 0.0,
        "held_s": 0.0,
        "sent_s": arrival,
        "finish_s": arrival + 1.0,
        "status": 200,
        "error": None,
        "message": None,
        "images": 1,
        "deadline_s": None,
        "alone_s": None,
    }
    settings |= dict.fromkeys(("queue_s", "encode_s", "denoise_s", "decode_s", "total_s"))
    return Record(**settings | fields)
