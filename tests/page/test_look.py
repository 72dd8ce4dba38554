"""Dark and light, large and small, by keyboard and at rest."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.page.conftest import Visit
from tests.page.use import LONG, cards, fill, generate, lanes, wait_until_live

CONTRAST = """
([ink, ground]) => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (name) => {
    const probe = document.body.appendChild(document.createElement("i"));
    probe.style.color = `var(${name})`;
    canvas.fillStyle = getComputedStyle(probe).color;
    probe.remove();
    canvas.fillRect(0, 0, 1, 1);
    const [red, green, blue] = [...canvas.getImageData(0, 0, 1, 1).data].map((value) =>
      value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const [low, high] = [light(ink), light(ground)].sort((one, other) => one - other);
  return (high + 0.05) / (low + 0.05);
}
"""
TEXT = [
    ("--ink", "--panel"),
    ("--ink", "--ground"),
    ("--ink", "--raised"),
    ("--soft", "--panel"),
    ("--soft", "--ground"),
    ("--soft", "--raised"),
    ("--bad", "--panel"),
    ("--bad", "--ground"),
    ("--on-accent", "--accent"),
    ("--on-accent", "--accent-strong"),
]
SHAPES = [("--edge", "--panel"), ("--focus", "--panel"), ("--focus", "--ground")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_enough(http: httpx.Client, visit: Visit, scheme: str) -> None:
    page = visit(http, color_scheme=scheme)
    wait_until_live(page)
    text = {pair: page.evaluate(CONTRAST, list(pair)) for pair in TEXT}
    shapes = {pair: page.evaluate(CONTRAST, list(pair)) for pair in SHAPES}
    assert {pair: ratio for pair, ratio in text.items() if ratio < 4.5} == {}
    assert {pair: ratio for pair, ratio in shapes.items() if ratio < 3} == {}


def background(page: Page) -> str:
    color: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return color


def test_the_theme_follows_the_system_until_one_is_chosen(http: httpx.Client, visit: Visit) -> None:
    page = visit(http, color_scheme="light")
    light = background(page)
    page.emulate_media(color_scheme="dark")
    dark = background(page)
    assert light != dark
    button = page.get_by_role("button", name="Theme")
    button.click()
    assert background(page) == light
    button.click()
    page.emulate_media(color_scheme="light")
    assert background(page) == dark
    page.reload()
    assert background(page) == dark


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_nothing_is_wider_than_the_screen(http: httpx.Client, visit: Visit, width: int) -> None:
    page = visit(http, viewport={"width": width, "height": 740})
    generate(page, **LONG | {"prompt": "averylongwordwithoutanyspace" * 8}, n=3)
    expect(lanes(page)).to_have_count(3)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    expect(page.get_by_role("heading", name="The lift")).to_be_in_viewport()
    cards(page).first.get_by_role("button", name="Cancel").click()
    expect(lanes(page)).to_have_count(0)


def test_the_button_is_in_sight_and_hides_nothing(http: httpx.Client, visit: Visit) -> None:
    page = visit(http, viewport={"width": 1366, "height": 650})
    fill(page, prompt="a boat", priority=99)
    button = page.get_by_role("button", name="Generate")
    expect(button).to_be_in_viewport(ratio=1)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#field-priority")).to_be_focused()
    error = page.locator("#error-priority")
    expect(error).to_be_in_viewport(ratio=1)
    bottom = error.evaluate("(line) => line.getBoundingClientRect().bottom")
    assert bottom <= button.evaluate("(button) => button.getBoundingClientRect().top")


def test_everything_is_done_by_keyboard(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    wait_until_live(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the prompt")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.type("a boat")
    page.keyboard.press("Control+Enter")
    expect(cards(page, "succeeded")).to_have_count(1)
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.textContent.trim()"))
    assert {"Generate", "Use these settings", "Download", "Mine"} <= seen


def test_the_focus_stays_near_what_was_cancelled(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    for place, near in ((lanes(page), "#scene"), (cards(page), "#gallery-title")):
        generate(page, **LONG, n=2)
        cancel = place.first.get_by_role("button", name="Cancel")
        expect(cancel).to_be_visible()
        cancel.focus()
        page.keyboard.press("Enter")
        expect(page.locator(near)).to_be_focused()
        expect(lanes(page)).to_have_count(0)


def test_every_control_has_a_name(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    generate(page, prompt="a boat")
    expect(cards(page, "succeeded")).to_have_count(1)
    tree = page.locator("body").aria_snapshot()
    nameless = [
        line.strip()
        for line in tree.splitlines()
        if line.strip(" -:") in ("button", "textbox", "slider", "combobox", "checkbox", "link")
    ]
    assert nameless == []


def test_who_wants_no_motion_gets_none(http: httpx.Client, visit: Visit) -> None:
    page = visit(http, reduced_motion="reduce")
    generate(page, **LONG)
    expect(lanes(page)).to_have_count(1)
    assert page.evaluate("document.getAnimations().length") == 0
    cards(page).get_by_role("button", name="Cancel").click()
    expect(cards(page)).to_have_count(0)
