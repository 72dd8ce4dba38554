"""The small HTTP API that all peers speak, as far as this benchmark uses chairlift's."""

from __future__ import annotations

import base64
import io
import random
import time
from typing import Any

from PIL import Image
from pydantic import BaseModel, Field

PATH = "/v1/images/generations"
HEALTH = "/health"


class Body(BaseModel, extra="forbid", frozen=True):
    """What is asked for. The defaults are the bundled model's."""

    prompt: str
    seed: int = Field(default_factory=lambda: random.randrange(2**31))
    num_inference_steps: int = 20
    guidance_scale: float = 2.0
    size: str = "128x128"

    @property
    def width(self) -> int:
        return int(self.size.split("x")[0])

    @property
    def height(self) -> int:
        return int(self.size.split("x")[1])


def answer(picture: Image.Image) -> dict[str, Any]:
    """What is sent back."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    content = base64.b64encode(buffer.getvalue()).decode()
    return {"created": int(time.time()), "data": [{"b64_json": content}]}
