"""The demo: a dozen requests that come while others are under way, with and without batching.

    python examples/demo.py            # or: make demo

It starts ``chairlift serve`` twice, with ``--batching off`` and with ``continuous``, sends both the
same requests at the same moments, shows tick by tick who is on the lift, and writes the pictures
and a contact sheet to ``demo-output/``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import mean
from typing import Any

import httpx
from PIL import Image
from rich.console import Console
from rich.table import Table

from chairlift.server.process import running_server

OUTPUT = Path("demo-output")
ARRIVAL_SECONDS = 0.08
REQUESTS: list[dict[str, Any]] = [
    {"prompt": "a red cabin on the left at night, a moon, snowy mountains", "steps": 30},
    {"prompt": "a yellow boat in the middle at sunset, a sun, no mountains", "steps": 20},
    {"prompt": "a purple tent on the right by day, no sun or moon, green hills", "steps": 12},
    {"prompt": "a white lighthouse on the left at sunset, a moon, green hills", "steps": 40},
    {"prompt": "a blue tree in the middle by day, a sun, snowy mountains", "steps": 16},
    {"prompt": "a red tent on the left at night, a moon, green hills", "steps": 25},
    {"prompt": "a white boat on the right by day, a sun, snowy mountains", "steps": 30},
    {"prompt": "a yellow tree on the left at sunset, a sun, green hills", "steps": 20},
    {"prompt": "a purple cabin in the middle at night, a moon, no mountains", "steps": 50},
    {"prompt": "a blue lighthouse on the right at night, a moon, snowy mountains", "steps": 20},
    {"prompt": "a red boat on the left at sunset, a sun, snowy mountains", "steps": 10},
    {"prompt": "a white cabin on the right by day, a sun, green hills", "steps": 20},
]

console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Picture:
    """One answer."""

    data: bytes
    latency: float
    """Seconds from sending to receiving."""


async def watch_lift(client: httpx.AsyncClient) -> None:
    """Print every tick: how long it took, and the step of each row that rode in it."""
    number = 0
    async with client.stream("GET", "/v1/lift", timeout=None) as events:
        async for line in events.aiter_lines():
            if not line.startswith("data: "):
                continue
            for tick in json.loads(line.removeprefix("data: "))["ticks"]:
                number += 1
                steps = [step for _, step, _ in tick["riders"]]
                console.print(f"tick {number:3}  {tick['seconds'] * 1000:5.1f} ms  {steps}")


async def send(client: httpx.AsyncClient, number: int) -> Picture:
    """Send request ``number`` when its time has come."""
    await asyncio.sleep(number * ARRIVAL_SECONDS)
    start = time.perf_counter()
    request = REQUESTS[number]
    body = {"prompt": request["prompt"], "num_inference_steps": request["steps"], "seed": number}
    answer = await client.post("/v1/images/generations", json=body)
    answer.raise_for_status()
    data = base64.b64decode(answer.json()["data"][0]["b64_json"])
    return Picture(data, time.perf_counter() - start)


async def run(batching: str, url: str) -> tuple[list[Picture], float]:
    """All requests; their pictures, and the seconds from first to last."""
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        await client.post("/v1/images/generations", json={"prompt": "", "num_inference_steps": 2})
        console.print(f"\n[bold]--batching {batching}[/bold]: the step of each row in the batch")
        lift = asyncio.create_task(watch_lift(client))
        await asyncio.sleep(0.2)
        start = time.perf_counter()
        pictures = await asyncio.gather(*(send(client, i) for i in range(len(REQUESTS))))
        seconds = time.perf_counter() - start
        await asyncio.sleep(0.2)
        lift.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await lift
        return pictures, seconds


def save(pictures: list[Picture]) -> Path:
    """Every picture, and all of them on one sheet at twice their size."""
    OUTPUT.mkdir(exist_ok=True)
    images = [Image.open(BytesIO(picture.data)) for picture in pictures]
    side, columns = 256, 4
    sheet = Image.new("RGB", (columns * side, -(-len(images) // columns) * side))
    for number, (picture, image) in enumerate(zip(pictures, images, strict=True)):
        (OUTPUT / f"{number:02}.png").write_bytes(picture.data)
        place = (number % columns * side, number // columns * side)
        sheet.paste(image.resize((side, side), Image.Resampling.LANCZOS), place)
    path = OUTPUT / "contact-sheet.png"
    sheet.save(path)
    return path


def main() -> None:
    table = Table(title=f"the same {len(REQUESTS)} requests, {ARRIVAL_SECONDS:g} s apart")
    for column in ("batching", "pictures/s", "mean latency", "longest latency"):
        table.add_column(column, justify="left" if column == "batching" else "right")
    pictures: list[Picture] = []
    for batching in ("off", "continuous"):
        with running_server("--batching", batching) as url:
            pictures, seconds = asyncio.run(run(batching, url))
        latencies = [picture.latency for picture in pictures]
        table.add_row(
            batching,
            f"{len(pictures) / seconds:.1f}",
            f"{mean(latencies):.2f} s",
            f"{max(latencies):.2f} s",
        )
    console.print()
    console.print(table)
    console.print(f"the pictures are in {OUTPUT}/, all of them in {save(pictures)}")


if __name__ == "__main__":
    main()
