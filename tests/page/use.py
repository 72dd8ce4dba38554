"""What a person does on the page."""

from __future__ import annotations

import re
from typing import Any

import httpx
from playwright.sync_api import Locator, Page, expect

PATIENCE_MS = 15_000
LONG: dict[str, Any] = {
    "prompt": "a long ride",
    "num_inference_steps": 200,
    "sampler": "heun",
}
"""A form whose rows ride for twenty seconds: 400 ticks of the slow fake model."""

expect.set_options(timeout=PATIENCE_MS)


def wait_until_live(page: Page) -> None:
    expect(page.locator("#connection")).to_have_text("live")
    expect(page.get_by_role("button", name="Generate")).to_be_visible()


def fill(page: Page, **fields: Any) -> None:
    """Type into the form; names are the API's, and ``width`` and ``height``."""
    wait_until_live(page)
    page.locator("details.further").evaluate("(element) => (element.open = true)")
    for name, value in fields.items():
        input = field(page, name)
        if input.evaluate("(element) => element.tagName") == "SELECT":
            input.select_option(str(value))
        else:
            input.fill(str(value))


def field(page: Page, name: str) -> Locator:
    places = {
        "prompt": "#prompt",
        "width": "#field-size",
        "height": "[aria-label='Height in pixels']",
    }
    return page.locator(places.get(name, f"#field-{name}"))


def generate(page: Page, **fields: Any) -> None:
    """Fill the form in and send it."""
    fill(page, **fields)
    page.get_by_role("button", name="Generate").click()


def cards(page: Page, status: str | None = None) -> Locator:
    return page.locator(f'.card[data-status="{status}"]' if status else ".card")


def lanes(page: Page, name: str | re.Pattern[str] = "") -> Locator:
    """Rows that ride, and are called so."""
    riding = page.locator('.lane:is([data-state="riding"], [data-state="resting"])')
    return riding.filter(has=page.locator(".rider", has_text=name))


def jobs(http: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    """The server's jobs, the newest first."""
    answer = http.get("/v1/jobs", params=query)
    assert answer.status_code == 200, answer.text
    data: list[dict[str, Any]] = answer.json()["data"]
    return data
