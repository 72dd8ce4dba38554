"""Small requests of every kind, well-behaved and not, for tests of what a server leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

GENERATIONS = "/v1/images/generations"
LONG = 150
"""Steps of what is given up before it ends."""
PATIENCE_SECONDS = 0.01
"""Of callers who go away."""
POLL_SECONDS = 0.05

WRONG: tuple[tuple[int, str, dict[str, Any]], ...] = (
    (400, GENERATIONS, {"json": {"prompt": "a boat", "size": "63x64"}}),
    (400, GENERATIONS, {"json": {"prompt": "a boat", "colour": "red"}}),
    (400, GENERATIONS, {"json": {"prompt": "a boat", "n": 1000}}),
    (400, GENERATIONS, {"data": b'{"prompt": ', "headers": {"Content-Type": "application/json"}}),
    (404, "/v1/jobs/job_unknown/cancel", {"json": {}}),
    (404, "/v1/pictures", {"json": {}}),
)
"""What must be refused: the status, the path, and what is sent."""


class Traffic:
    """Callers that share connections, which are kept until :meth:`close`. Everybody has another
    name and another prompt, so that whatever is kept of each of them is kept ten thousand times.

    Args:
        url: The server's; of the fake model.
    """

    def __init__(self, url: str) -> None:
        self.surprises: Counter[str] = Counter()
        """Answers that shouldn't have come."""
        self._session = aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0))
        self._kinds: tuple[Callable[[int], Awaitable[None]], ...] = (
            self._generate,
            self._stream,
            self._generate_several,
            self._job,
            self._generate,
            self._cancelled_job,
            self._impatient,
            self._wrong,
            self._generate_once,
            self._impatient_reader,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def send(self, numbers: range, callers: int) -> None:
        """Send the requests of these numbers, so many at a time."""
        waiting = iter(numbers)

        async def caller() -> None:
            for number in waiting:
                try:
                    await self._kinds[number % len(self._kinds)](number)
                except (AssertionError, aiohttp.ClientError, OSError) as error:
                    self.surprises[f"{type(error).__name__}: {error}"[:200]] += 1

        await asyncio.gather(*(caller() for _ in range(callers)))

    def _body(self, number: int, **fields: Any) -> dict[str, Any]:
        return {
            "prompt": f"a boat, number {number}",
            "size": ("64x64", "32x64")[number % 3 == 0],
            "num_inference_steps": 1 + number % 2,
            "user": f"caller {number}",
        } | fields

    async def _post(self, path: str, *statuses: int, **sent: Any) -> Any:
        """The JSON of the answer, which must have one of these statuses, or else 200."""
        async with self._session.post(path, **sent) as answer:
            text = await answer.text()
            assert answer.status in (statuses or (200,)), f"{path}: {answer.status}: {text[:80]}"
            return json.loads(text)

    async def _get(self, path: str) -> bytes:
        async with self._session.get(path) as answer:
            content = await answer.read()
            assert answer.status == 200, f"{path}: {answer.status}"
            return content

    async def _generate(self, number: int) -> None:
        answer = await self._post(GENERATIONS, json=self._body(number))
        assert len(answer["data"]) == 1, "another number of pictures"

    async def _generate_several(self, number: int) -> None:
        body = self._body(number, n=3, output_format="jpeg")
        answer = await self._post(GENERATIONS, json=body)
        assert len(answer["data"]) == 3, "another number of pictures"

    async def _stream(self, number: int) -> None:
        body = self._body(number, stream=True, partial_images=2, num_inference_steps=4)
        async with self._session.post(GENERATIONS, json=body) as answer:
            events = await answer.text()
        assert "image_generation.completed" in events, "a stream without a picture"

    async def _new_job(self, number: int, **fields: Any) -> str:
        answer = await self._post("/v1/jobs", 202, json=self._body(number, **fields))
        return str(answer["id"])

    async def _job(self, number: int) -> None:
        id = await self._new_job(number)
        events = (await self._get(f"/v1/jobs/{id}/events")).decode()
        assert "job.succeeded" in events, "a job that hasn't succeeded"
        await self._get(f"/v1/jobs/{id}/images/0")

    async def _cancelled_job(self, number: int) -> None:
        """Unless it was done before."""
        id = await self._new_job(number, num_inference_steps=LONG, sampler="heun")
        await self._post(f"/v1/jobs/{id}/cancel", 200, 409, json={})
        job = json.loads(await self._get(f"/v1/jobs/{id}"))
        assert job["status"] in ("cancelled", "succeeded"), f"a job that is {job['status']}"

    async def _generate_once(self, number: int) -> None:
        """Sent twice with one key, at the same time."""
        headers, body = {"Idempotency-Key": f"key {number}"}, self._body(number)
        one, other = await asyncio.gather(
            *(self._post(GENERATIONS, json=body, headers=headers) for _ in range(2))
        )
        assert one["data"] == other["data"], "two pictures of one key"

    async def _impatient(self, number: int) -> None:
        """Goes away before the answer."""
        body = self._body(number, num_inference_steps=LONG, n=4)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._post(GENERATIONS, json=body)

    async def _impatient_reader(self, number: int) -> None:
        """Goes away after the first of many events, of a picture or of the lift."""
        if number % 20 < 10:
            body = self._body(number, num_inference_steps=LONG, stream=True, preview_every=1)
            stream = self._session.post(GENERATIONS, json=body)
        else:
            stream = self._session.get("/v1/lift")
        async with stream as answer:
            await answer.content.readline()
            answer.close()

    async def _wrong(self, number: int) -> None:
        status, path, sent = WRONG[number // len(self._kinds) % len(WRONG)]
        answer = await self._post(path, status, **sent)
        assert answer["error"]["message"], "an error without a message"


async def until_idle(url: str) -> None:
    """Wait until nothing is accepted that isn't done."""
    async with aiohttp.ClientSession(url) as session:
        while True:
            async with session.get("/metrics") as answer:
                lines = (await answer.text()).splitlines()
            names = ("chairlift_requests_running", "chairlift_requests_waiting")
            if {f"{name} 0.0" for name in names} <= set(lines):
                return
            await asyncio.sleep(POLL_SECONDS)
