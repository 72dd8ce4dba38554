"""The requests, and callers that send them and keep what they get."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import httpx

ANSWER_SECONDS = 300.0
POLL_SECONDS = 0.25
RETRY_SECONDS = 0.2
SIZES = ("64x64", "64x128", "128x128")
SAMPLERS = ("euler", "ddim", "dpmpp_2m", "heun")


class Kind(StrEnum):
    """How a request is sent; they take turns."""

    SYNC = "sync"
    STREAM = "stream"
    JOB = "job"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one request; times on the clock of ``time.monotonic``."""

    number: int
    sent: float
    ended: float
    picture: bytes | None = None
    """The file."""
    error: str | None = None
    lost_connection: bool = False
    """Whether the error is that of the connection, and none of the server's."""
    job_id: str | None = None
    """Of a job that was acknowledged."""
    posts: int = 1
    """How often it was sent until it was acknowledged."""

    @property
    def kind(self) -> Kind:
        return kind_of(self.number)


class Refused(Exception):
    """The server has answered, but with an error."""


def kind_of(number: int) -> Kind:
    """How the request of this number is sent."""
    return list(Kind)[number % len(Kind)]


def user_of(number: int) -> str:
    """By whom a job is found among all."""
    return f"chaos-{number}"


def body_of(number: int) -> dict[str, Any]:
    """The request of this number, the same in every run."""
    rng = random.Random(number)
    body = {
        "prompt": f"a red {rng.choice(['cabin', 'tree', 'boat'])} at night, a moon, {number} times",
        "size": rng.choice(SIZES),
        "num_inference_steps": rng.randint(10, 50),
        "sampler": rng.choice(SAMPLERS),
        "seed": number,
        "user": user_of(number),
    }
    if kind_of(number) is Kind.STREAM:
        body |= {"stream": True, "partial_images": 3}
    return body


def new_client(url: str) -> httpx.AsyncClient:
    """One for all callers."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=16)
    return httpx.AsyncClient(base_url=url, timeout=ANSWER_SECONDS, limits=limits)


async def send_all(client: httpx.AsyncClient, count: int, rate: float) -> list[Outcome]:
    """Send ``count`` requests, ``rate`` a second, whatever becomes of those before."""
    start, callers = time.monotonic(), []
    for number in range(count):
        await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
        callers.append(asyncio.create_task(send(client, number)))
    return list(await asyncio.gather(*callers))


async def send(client: httpx.AsyncClient, number: int) -> Outcome:
    """Send one request, and wait for its picture or its error."""
    sent, found = time.monotonic(), dict[str, Any]()
    try:
        match kind_of(number):
            case Kind.SYNC:
                found["picture"] = await generate(client, number)
            case Kind.STREAM:
                found["picture"] = await stream(client, number)
            case Kind.JOB:
                job, found["posts"] = await submit(client, number)
                found["job_id"] = job["id"]
                found["picture"] = await follow(client, job["id"])
    except (httpx.TransportError, Refused) as error:
        found["error"] = str(error) or repr(error)
        found["lost_connection"] = isinstance(error, httpx.TransportError)
    return Outcome(number=number, sent=sent, ended=time.monotonic(), **found)


async def generate(client: httpx.AsyncClient, number: int) -> bytes:
    """One answer."""
    answer = checked(await client.post("/v1/images/generations", json=body_of(number)))
    return base64.b64decode(answer.json()["data"][0]["b64_json"])


async def stream(client: httpx.AsyncClient, number: int) -> bytes:
    """Events, of which the last has the picture."""
    url = "/v1/images/generations"
    async with client.stream("POST", url, json=body_of(number)) as answer:
        if not answer.is_success:
            await answer.aread()
        checked(answer)
        async for line in answer.aiter_lines():
            if not line.startswith("data: "):
                continue
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                raise Refused(json.dumps(event["error"]))
            if event["type"] == "image_generation.completed":
                return base64.b64decode(event["b64_json"])
    raise Refused("the stream has ended without a picture")


async def submit(client: httpx.AsyncClient, number: int) -> tuple[dict[str, Any], int]:
    """Send a job until it is acknowledged: the job, and how often it was sent."""
    posts = 0

    async def post() -> httpx.Response:
        nonlocal posts
        posts += 1
        headers = {"Idempotency-Key": user_of(number)}
        return await client.post("/v1/jobs", json=body_of(number), headers=headers)

    return checked(await persist(post)).json(), posts


async def follow(client: httpx.AsyncClient, job_id: str) -> bytes:
    """Wait until a job has ended; its picture."""
    while True:
        answer = checked(await persist(lambda: client.get(f"/v1/jobs/{job_id}")))
        match answer.json():
            case {"status": "succeeded"}:
                return await picture_of(client, job_id)
            case {"status": "failed" | "cancelled" as status, "error": error}:
                raise Refused(f"the job has {status}: {error}")
        await asyncio.sleep(POLL_SECONDS)


async def picture_of(client: httpx.AsyncClient, job_id: str) -> bytes:
    """The picture of a job that has succeeded."""
    return checked(await persist(lambda: client.get(f"/v1/jobs/{job_id}/images/0"))).content


async def persist(call: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """Call until the connection holds."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            return await call()
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(RETRY_SECONDS)


def checked(answer: httpx.Response) -> httpx.Response:
    """The answer.

    Raises:
        Refused: It is an error.
    """
    if not answer.is_success:
        raise Refused(f"{answer.status_code} {answer.text[:300]}")
    return answer
