"""A server that goes away and comes back."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.page.conftest import Visit
from tests.page.use import cards, generate, wait_until_live
from tests.running import EngineThread


def test_a_lost_server_is_shown_and_found_again(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    page.route("**/v1/lift", lambda route: route.abort())
    page.reload()
    expect(page.locator("#connection")).to_have_text("the server is away, trying again")
    expect(page.get_by_role("img", name="Rows a tick: now –")).to_be_visible()
    page.unroute("**/v1/lift")
    wait_until_live(page)
    expect(page.get_by_role("img", name="Rows a tick: now 0")).to_be_visible()
    generate(page, prompt="a boat")
    expect(cards(page, "succeeded")).to_have_count(1)


def test_a_server_that_is_busy_is_asked_again(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    wait_until_live(page)
    error = {"message": "the engine is starting", "type": "server_error", "code": "unavailable"}
    page.route("**/v1/lift", lambda route: route.fulfill(status=503, json={"error": error}))
    page.reload()
    expect(page.locator("#connection")).to_have_attribute("data-phase", "lost")
    page.unroute("**/v1/lift")
    wait_until_live(page)


def test_a_picture_that_was_not_sent_is_asked_for_again(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    page.route("**/images/0", lambda route: route.abort(), times=1)
    generate(page, prompt="a boat")
    expect(cards(page, "succeeded").locator("img")).to_have_attribute("src", re.compile("^blob:"))
    expect(page.locator("#connection")).to_have_text("live")


def test_a_picture_that_is_gone_leaves_the_gallery(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    error = {"message": "there is no such picture", "type": "not_found_error", "code": None}
    with page.expect_request("**/images/0"):
        page.route("**/images/0", lambda route: route.fulfill(status=404, json={"error": error}))
        generate(page, prompt="a boat")
    expect(cards(page)).to_have_count(0)
    expect(page.locator("#connection")).to_have_text("live")


KEEPS_NOTHING = """
for (const name of ["localStorage", "sessionStorage"]) {
  Object.defineProperty(window, name, { get() { throw new DOMException("no", "SecurityError"); } });
}
"""
KEEPS_NO_MORE = """
Storage.prototype.setItem = () => { throw new DOMException("full", "QuotaExceededError"); };
"""


@pytest.mark.parametrize("script", [KEEPS_NOTHING, KEEPS_NO_MORE], ids=["forbidden", "full"])
def test_a_browser_that_keeps_nothing_is_enough(
    locked: httpx.Client, browser: Browser, visit: Visit, script: str
) -> None:
    with browser.new_context() as context:
        context.add_init_script(script)
        page = visit(locked, context)
        page.get_by_role("textbox", name="API key").fill("secret")
        page.keyboard.press("Enter")
        generate(page, prompt="a boat")
        expect(cards(page, "succeeded")).to_have_count(1)
        page.get_by_role("button", name="Theme").click()


@pytest.fixture
def locked(engine: EngineThread) -> Iterator[httpx.Client]:
    with engine.serve(api_key="secret") as http:
        yield http


def test_a_job_is_made_once_even_if_its_answer_is_lost(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    wait_until_live(page)
    lost = []

    def lose_the_first(route) -> None:  # type: ignore[no-untyped-def]
        if route.request.method == "POST" and not lost:
            lost.append(route.fetch())
            route.abort()
        else:
            route.continue_()

    page.route("**/v1/jobs", lose_the_first)
    generate(page, prompt="a boat")
    expect(cards(page, "succeeded")).to_have_count(1)
    assert len(http.get("/v1/jobs").json()["data"]) == len(lost) == 1
