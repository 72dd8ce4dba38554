"""The API key is asked for where one is set."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from chairlift.server.access import Access
from tests.page.conftest import Visit
from tests.page.use import LONG, cards, generate, lanes, wait_until_live
from tests.running import EngineThread

KEY = "schlüssel-🔑"


@pytest.fixture
def locked(engine: EngineThread) -> Iterator[httpx.Client]:
    with engine.serve(api_key=KEY) as http:
        yield http


def give(page: Page, key: str) -> None:
    dialog = page.get_by_role("dialog", name="This server wants an API key")
    dialog.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")


def test_the_key_is_asked_for_until_it_is_right(locked: httpx.Client, visit: Visit) -> None:
    page = visit(locked)
    give(page, "wrong")
    expect(page.get_by_text("The server doesn’t take this key.")).to_be_visible()
    give(page, KEY)
    wait_until_live(page)
    expect(page.get_by_role("dialog")).to_be_hidden()
    generate(page, prompt="a boat")
    expect(cards(page, "succeeded")).to_have_count(1)


def test_the_key_is_kept_in_the_tab_until_it_is_forgotten(
    locked: httpx.Client, visit: Visit
) -> None:
    page = visit(locked)
    give(page, KEY)
    wait_until_live(page)
    page.reload()
    wait_until_live(page)
    stranger = visit(locked, page.context)
    expect(stranger.get_by_role("dialog")).to_be_visible()
    page.get_by_role("button", name="Forget the API key").click()
    expect(page.get_by_role("dialog")).to_be_visible()


def test_without_a_key_the_dialog_stays(locked: httpx.Client, visit: Visit) -> None:
    page = visit(locked)
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(dialog).to_be_visible()
    give(page, "")
    expect(page.get_by_text("Type the key.")).to_be_visible()


@pytest.fixture
def shared(engine: EngineThread) -> Iterator[httpx.Client]:
    with engine.serve(access=Access(keys=("mine", "theirs"))) as http:
        yield http


def test_only_requests_of_ones_own_key_have_a_cross(shared: httpx.Client, visit: Visit) -> None:
    page = visit(shared)
    give(page, "mine")
    wait_until_live(page)
    theirs = {"Authorization": "Bearer theirs"}
    mine = {"Authorization": "Bearer mine"}
    ids = [
        shared.post("/v1/jobs", json=LONG, headers=headers).json()["id"]
        for headers in (mine, theirs)
    ]
    # Either of them rides or waits.
    places = [page.locator(".lane, .ticket").filter(has_text=id[4:10]) for id in ids]
    for place, crosses in zip(places, (1, 0), strict=True):
        expect(place).to_have_count(1)
        expect(place.get_by_role("button")).to_have_count(crosses)
    page.get_by_role("button", name="Cancel").click()
    expect(lanes(page, ids[0][4:10])).to_have_count(0)
    expect(places[1]).to_have_count(1)
    answer = shared.post(f"/v1/jobs/{ids[1]}/cancel", headers=theirs)
    assert answer.status_code == 200
    expect(lanes(page)).to_have_count(0)


def test_nothing_is_asked_where_no_key_is_set(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    wait_until_live(page)
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="Forget the API key")).to_be_hidden()
