"""A server that goes away and comes back."""

from __future__ import annotations

import httpx
from playwright.sync_api import expect

from tests.page.conftest import Visit
from tests.page.use import cards, generate, wait_until_live


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
