"""The page of a server whose model makes videos."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import av
import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from chairlift.engine.worker_config import WorkerConfig
from tests.page.conftest import Visit
from tests.page.use import cards, field, fill, generate, jobs, wait_until_live
from tests.running import EngineThread
from tests.tiny.wan import save_tiny_wan

SETTINGS = '{"width": 96, "height": 32, "frames": 9, "steps": 2}'
"""Of the checkpoint: its own defaults are for larger ones."""
BLOB = re.compile("^blob:")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineThread]:
    folder = save_tiny_wan(tmp_path_factory.mktemp("videos") / "wan", experts=2)
    (folder / "chairlift.json").write_text(SETTINGS)
    with EngineThread(WorkerConfig(model=str(folder), device="cpu")) as engine:
        yield engine


def facts(video: Locator) -> dict[str, float]:
    """Of a video that has been loaded: its size in pixels, its length in seconds."""
    read = """async (video) => {
      if (!video.videoWidth) {
        await new Promise((done) => video.addEventListener("loadedmetadata", done));
      }
      const { videoWidth: width, videoHeight: height, duration } = video;
      return { width, height, duration };
    }"""
    found: dict[str, float] = video.evaluate(read)
    return found


def wait_until_it_runs(page: Page, selector: str) -> None:
    page.wait_for_function(
        "(selector) => document.querySelector(selector).currentTime > 0.1", arg=selector
    )


def test_the_form_asks_for_frames_and_says_how_long_they_take(
    http: httpx.Client, visit: Visit
) -> None:
    page = visit(http)
    wait_until_live(page)
    expect(field(page, "num_frames")).to_have_value("9")
    expect(page.locator("#hint-num_frames")).to_have_text("0.6 s at 16 frames a second")
    slider = page.get_by_role("slider", name="Frames")
    assert [slider.get_attribute(name) for name in ("min", "max", "step")] == ["1", "161", "4"]
    fill(page, num_frames=33, n=2)
    expect(page.locator("#hint-num_frames")).to_have_text("2.1 s at 16 frames a second")
    expect(page.get_by_role("button", name="Generate 2 videos")).to_be_visible()
    expect(page.get_by_text("No videos yet.")).to_be_visible()
    expect(page.get_by_text("The lift is empty. Send a video up.")).to_be_visible()
    expect(page.get_by_role("img", name="Videos a minute")).to_be_visible()
    for missing in ("previews", "output_format", "output_compression"):
        expect(page.locator(f'[data-field="{missing}"]')).to_have_count(0)


def test_a_wrong_number_of_frames_is_shown_beside_its_field(
    http: httpx.Client, visit: Visit
) -> None:
    page = visit(http)
    generate(page, prompt="a boat", num_frames=6)
    expect(page.locator("#error-num_frames")).to_contain_text("the nearest is 5")


def test_a_prompt_becomes_a_video_that_plays(
    http: httpx.Client, visit: Visit, tmp_path: Path
) -> None:
    page = visit(http)
    generate(page, prompt="a boat", seed=7, num_frames=13, guidance_scale_2=2)
    card = cards(page, "succeeded")
    expect(card.locator("video")).to_have_attribute("src", BLOB)
    expect(card.locator("img")).to_have_count(0)
    expect(card).to_contain_text("13\u00a0frames")
    assert facts(card.locator("video")) == {"width": 96, "height": 32, "duration": 13 / 16}
    card.locator(".frame").hover()
    wait_until_it_runs(page, ".card video")
    link = card.get_by_role("link", name="Download")
    with page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename == "a-boat-7.mp4"
    [job] = jobs(http)
    download.value.save_as(tmp_path / "boat.mp4")
    assert (tmp_path / "boat.mp4").read_bytes() == http.get(job["images"][0]["url"]).content
    assert (job["request"]["num_frames"], job["request"]["guidance_scale_2"]) == (13, 2.0)


def test_a_video_is_looked_at_large(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    generate(page, prompt="a boat")
    page.get_by_role("button", name="Open a boat").click()
    viewer = page.get_by_role("dialog", name="a boat")
    video = page.locator("#viewer video")
    expect(video).to_be_visible()
    expect(viewer.locator("img")).to_be_hidden()
    expect(video).to_have_js_property("controls", True)
    expect(viewer).to_contain_text("Frames9")
    wait_until_it_runs(page, "#viewer video")
    page.keyboard.press("Escape")
    expect(video).to_have_js_property("paused", True)


def test_settings_of_a_video_make_it_again(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    generate(page, prompt="a boat", seed=3, n=2, num_frames=5)
    expect(cards(page, "succeeded")).to_have_count(2)
    page.get_by_role("button", name="Use these settings").nth(1).click()
    expect(field(page, "num_frames")).to_have_value("5")
    expect(field(page, "guidance_scale_2")).to_have_value("")
    page.get_by_role("button", name="Generate").click()
    expect(cards(page, "succeeded")).to_have_count(3)
    again, before = jobs(http)
    assert again["request"] == before["request"] | {"n": 1, "seed": 4}


@pytest.mark.parametrize("language", ["curl", "Python"])
def test_the_request_as_code_makes_the_same_videos(
    http: httpx.Client,
    visit: Visit,
    language: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    page = visit(http)
    fill(page, prompt='it\'s "dark" \\ at $HOME\n🏔', seed=2**53 + 1, n=2, num_frames=5)
    page.locator(".code summary").click()
    page.get_by_role("button", name=language).click()
    code = page.locator("#snippet").inner_text()
    if language == "curl":
        subprocess.run(["bash", "-c", code], check=True, capture_output=True)
    else:
        exec(compile(code, "snippet", "exec"), {})
    [job] = jobs(http)
    assert job["request"]["prompt"] == 'it\'s "dark" \\ at $HOME\n🏔'
    for index, image in enumerate(job["images"]):
        file = tmp_path / f"video-{index}.mp4"
        assert file.read_bytes() == http.get(image["url"]).content
        with av.open(file) as video:
            assert video.streams.video[0].frames == 5
