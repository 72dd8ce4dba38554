"""From a prompt to a picture in the gallery."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
from playwright.sync_api import expect

from tests.builders import file_pixels
from tests.page.conftest import Visit
from tests.page.use import LONG, cards, field, fill, generate, jobs, lanes, wait_until_live

PREVIEW = re.compile("^data:image/png;base64,")
PICTURE = re.compile("^blob:")


def test_a_prompt_becomes_previews_and_then_a_picture(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    generate(page, **LONG | {"num_inference_steps": 60})
    expect(cards(page, "running").locator("img")).to_have_attribute("src", PREVIEW)
    expect(lanes(page).locator("img")).to_have_attribute("src", PREVIEW)
    expect(lanes(page).locator(".step")).to_have_text(re.compile(r"^step \d+ of \d+"))
    expect(cards(page, "succeeded").locator("img")).to_have_attribute("src", PICTURE)
    size = "(image) => image.decode().then(() => [image.naturalWidth, image.naturalHeight])"
    assert cards(page).locator("img").evaluate(size) == [64, 64]
    expect(page.locator("#announcer")).to_have_text("Done: a long ride")


def test_the_picture_is_what_the_settings_make(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    generate(page, prompt="a boat", seed=7, n=2, num_inference_steps=12, guidance_scale=4)
    expect(cards(page, "succeeded")).to_have_count(2)
    [job] = jobs(http)
    request = job["request"]
    asked = {name: request[name] for name in ("prompt", "seed", "n", "guidance_scale", "sampler")}
    assert asked == {
        "prompt": "a boat",
        "seed": 7,
        "n": 2,
        "guidance_scale": 4.0,
        "sampler": "euler",
    }
    assert request["num_inference_steps"] == 12
    assert [image["seed"] for image in job["images"]] == [7, 8]


def test_settings_of_a_picture_make_it_again(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    generate(page, prompt="a boat", seed=2**53 + 1, n=2, width=128, height=72, sampler="ddim")
    expect(cards(page, "succeeded")).to_have_count(2)
    page.get_by_role("button", name="Use these settings").nth(1).click()
    expect(field(page, "seed")).to_have_value(str(2**53 + 2))
    expect(field(page, "n")).to_have_value("1")
    page.get_by_role("button", name="Generate").click()
    expect(cards(page, "succeeded")).to_have_count(3)
    again, before = jobs(http)
    pictures = [http.get(job["images"][-1]["url"]).content for job in (again, before)]
    assert file_pixels(pictures[0]).equal(file_pixels(pictures[1]))


def test_a_picture_is_downloaded_with_a_telling_name(
    http: httpx.Client, visit: Visit, tmp_path: Path
) -> None:
    page = visit(http)
    generate(page, prompt="A boat, at “sunset”/../x", seed=7, output_format="webp")
    link = page.get_by_role("link", name="Download")
    expect(link).to_have_attribute("href", PICTURE)
    with page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename == "a-boat-at-sunset-x-7.webp"
    download.value.save_as(tmp_path / "picture.webp")
    [job] = jobs(http)
    assert (tmp_path / "picture.webp").read_bytes() == http.get(job["images"][0]["url"]).content


def test_jobs_outlive_a_reload(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    generate(page, **LONG | {"num_inference_steps": 60}, n=2)
    expect(cards(page, "running")).to_have_count(2)
    page.reload()
    expect(field(page, "prompt")).to_have_value("a long ride")
    expect(cards(page, "running").first.locator("img")).to_have_attribute("src", PREVIEW)
    expect(cards(page, "succeeded")).to_have_count(2)
    page.reload()
    expect(cards(page, "succeeded")).to_have_count(2)


def test_more_jobs_than_connections_all_go_on(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    other = visit(http, page.context)
    for number in range(6):
        generate(page, prompt=f"number {number}", num_inference_steps=40)
        generate(other, prompt=f"of the other, {number}", num_inference_steps=40)
    for tab in (page, other):
        expect(cards(tab, "succeeded")).to_have_count(12)
        expect(tab.locator("#announcer")).to_contain_text("Done")


def test_a_cancelled_picture_leaves_the_page_and_the_lift(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    generate(page, **LONG, n=4)
    expect(lanes(page)).to_have_count(4)
    cards(page).first.get_by_role("button", name="Cancel").click()
    expect(cards(page)).to_have_count(0)
    expect(lanes(page)).to_have_count(0)
    expect(page.locator("#announcer")).to_have_text("Cancelled: a long ride")
    assert [job["status"] for job in jobs(http)] == ["cancelled"]


def test_what_is_on_its_way_comes_before_newer_pictures(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    generate(page, **LONG)
    expect(cards(page, "running")).to_have_count(1)
    http.post("/v1/jobs", json={"prompt": "newer", "num_inference_steps": 1})
    expect(cards(page, "succeeded")).to_have_count(1)
    expect(cards(page).first).to_contain_text("a long ride")
    cards(page).first.get_by_role("button", name="Cancel").click()
    expect(cards(page)).to_have_count(1)


def test_the_gallery_has_pages_of_everybodys_pictures_and_of_ones_own(
    http: httpx.Client, visit: Visit
) -> None:
    for number in range(25):
        http.post("/v1/jobs", json={"prompt": f"number {number}", "num_inference_steps": 1})
    page = visit(http)
    expect(cards(page, "succeeded")).to_have_count(24)
    expect(cards(page).first).to_contain_text("number 24")
    page.get_by_role("button", name="Older pictures").click()
    expect(cards(page)).to_have_count(25)
    expect(page.get_by_role("button", name="Older pictures")).to_be_hidden()
    page.get_by_role("button", name="Mine").click()
    expect(page.get_by_text("No pictures yet.")).to_be_visible()
    generate(page, prompt="my own")
    expect(cards(page, "succeeded")).to_have_count(1)


def test_a_picture_is_looked_at_large_and_left_by_keyboard(
    http: httpx.Client, visit: Visit
) -> None:
    page = visit(http)
    generate(page, prompt="a boat", n=2, seed=1)
    frame = page.get_by_role("button", name="Open a boat")
    expect(frame).to_have_count(2)
    expect(frame.last.locator("img")).to_have_attribute("src", PICTURE)
    frame.first.focus()
    page.keyboard.press("Enter")
    viewer = page.get_by_role("dialog", name="a boat")
    expect(viewer).to_contain_text("Seed1")
    page.keyboard.press("ArrowRight")
    expect(viewer).to_contain_text("Seed2")
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    expect(frame.first).to_be_focused()


def test_markup_in_a_prompt_stays_text(http: httpx.Client, visit: Visit) -> None:
    prompt = "<img src=x onerror=\"document.title='broken'\"><b>bold</b>"
    page = visit(http)
    generate(page, **LONG | {"prompt": prompt})
    expect(lanes(page).locator(".rider")).to_have_text(prompt)
    expect(cards(page).locator(".prompt")).to_have_text(prompt)
    expect(page).to_have_title("Chairlift")
    cards(page).get_by_role("button", name="Cancel").click()
    expect(cards(page)).to_have_count(0)


def test_an_engine_that_refuses_is_shown(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    wait_until_live(page)
    fill(page, prompt="a boat")
    error = {
        "message": "60 pictures are accepted",
        "type": "rate_limit_error",
        "code": "queue_full",
    }
    page.route("**/v1/jobs", lambda route: route.fulfill(status=429, json={"error": error}))
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#error-form")).to_have_text("60 pictures are accepted")
