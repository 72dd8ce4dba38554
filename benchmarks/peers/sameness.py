"""Whether a contestant draws the pictures that chairlift draws."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

MOST_LEVELS = 1
"""By which a pixel may differ, of 255."""
Pixels = NDArray[np.int16]


def _body(seed: int, steps: int = 20, guidance_scale: float = 2.0, side: int = 128) -> Any:
    return {
        "prompt": f"a red cabin on the left at night, a moon, {seed} trees",
        "seed": seed,
        "num_inference_steps": steps,
        "guidance_scale": guidance_scale,
        "size": f"{side}x{side}",
    }


BODIES: Sequence[dict[str, Any]] = (
    _body(1),
    _body(2),
    _body(3, steps=10),
    _body(4, steps=33, guidance_scale=5.0),
    _body(5, guidance_scale=1.0),
    _body(6, side=96),
)


def ask_for_pictures(url: str) -> list[Pixels]:
    """What a contestant draws for :data:`BODIES`, when all come at once."""
    return asyncio.run(_ask(url))


async def _ask(url: str) -> list[Pixels]:
    async with httpx.AsyncClient(base_url=url, timeout=None) as client:
        posts = (client.post("/v1/images/generations", json=body) for body in BODIES)
        answers = await asyncio.gather(*posts)
    return [_pixels(answer) for answer in answers]


def _pixels(answer: httpx.Response) -> Pixels:
    if not answer.is_success:
        raise RuntimeError(f"no picture came, but {answer.status_code}: {answer.text[:500]}")
    content = base64.b64decode(answer.json()["data"][0]["b64_json"])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=np.int16)


def largest_difference(ours: Sequence[Pixels], theirs: Sequence[Pixels]) -> int:
    """In levels of 255, over all pictures."""
    return max(int(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))
