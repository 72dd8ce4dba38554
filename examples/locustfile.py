"""Callers of many habits, for Locust (https://locust.io):

    pip install locust
    locust -f examples/locustfile.py --host http://127.0.0.1:8000
    locust -f examples/locustfile.py --host http://127.0.0.1:8000 --headless -u 8 -r 2 -t 1m

Each user waits for its picture, looks at it for a while, and asks for the next: a closed loop, in
which a slow server is asked less often. ``chairlift bench`` is the open loop.

CHAIRLIFT_API_KEY is sent as the key where it is set.
"""

from __future__ import annotations

import os
import random
from typing import Any

from locust import HttpUser, between, task

URL = "/v1/images/generations"
COLOURS = ("red", "yellow", "blue", "white", "purple")
THINGS = ("cabin", "tree", "boat", "tent", "lighthouse")
PLACES = ("on the left", "in the middle", "on the right")
SKIES = ("by day, a sun", "at night, a moon", "at sunset, no sun or moon")
MOUNTAINS = ("snowy mountains", "green hills", "no mountains")


def prompt() -> str:
    """A postcard that the bundled model can draw."""
    colour, thing, place = (random.choice(words) for words in (COLOURS, THINGS, PLACES))
    return f"a {colour} {thing} {place} {random.choice(SKIES)}, {random.choice(MOUNTAINS)}"


def draft() -> dict[str, Any]:
    """Few steps and no guidance, and soon."""
    return {"num_inference_steps": 8, "guidance_scale": 1.0, "priority": 1, "deadline_ms": 2000}


def usual() -> dict[str, Any]:
    """What the model's card says."""
    return {}


def careful() -> dict[str, Any]:
    """Many steps of another sampler, as many as one likes."""
    return {
        "num_inference_steps": random.randint(30, 50),
        "sampler": random.choice(("ddim", "dpmpp_2m")),
        "guidance_scale": random.uniform(1.5, 3.0),
        "negative_prompt": "a boat",
    }


def pair() -> dict[str, Any]:
    """Two wide pictures of a seed that can be had again."""
    return {"size": "160x96", "n": 2, "seed": random.randrange(2**32), "output_format": "webp"}


class Caller(HttpUser):
    """One of many callers; the numbers are how often each habit is drawn."""

    wait_time = between(0.5, 2.0)

    def on_start(self) -> None:
        if key := os.environ.get("CHAIRLIFT_API_KEY"):
            self.client.headers["Authorization"] = f"Bearer {key}"

    @task(4)
    def ask_for_a_draft(self) -> None:
        self.ask("draft", draft())

    @task(3)
    def ask_as_usual(self) -> None:
        self.ask("usual", usual())

    @task(1)
    def ask_with_care(self) -> None:
        self.ask("careful", careful())

    @task(1)
    def ask_for_a_pair(self) -> None:
        self.ask("pair", pair())

    def ask(self, name: str, settings: dict[str, Any]) -> None:
        """One request, reported under ``name``; whatever isn't all the pictures is a failure."""
        body = {"prompt": prompt()} | settings
        with self.client.post(URL, json=body, name=name, catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"{answer.status_code}: {answer.text[:200]}")
            elif len(answer.json()["data"]) != body.get("n", 1):
                answer.failure("pictures are missing")
