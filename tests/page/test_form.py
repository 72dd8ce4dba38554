"""The form has the model's fields, and says what the server says against them."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.page.conftest import Visit
from tests.page.use import cards, field, fill, generate, wait_until_live


def visit_with_card(visit: Visit, http: httpx.Client, **changes: Any) -> Page:
    """The page, told that the model is another one."""
    answer = http.get("/v1/models").json()
    for name, value in changes.items():
        old = answer["data"][0][name]
        answer["data"][0][name] = old | value if isinstance(old, dict) else value

    def tell(route: Route) -> None:
        route.fulfill(json=answer)

    page = visit(http, service_workers="block")
    page.route("**/v1/models", tell)
    page.reload()
    wait_until_live(page)
    return page


def names(page: Page) -> list[str]:
    return page.locator("[data-field]:not([hidden])").evaluate_all(
        "(rows) => rows.map((row) => row.dataset.field)"
    )


def test_the_fields_are_the_models_own(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    wait_until_live(page)
    assert names(page) == [
        "prompt",
        "negative_prompt",
        "size",
        "num_inference_steps",
        "guidance_scale",
        "n",
        "seed",
        "sampler",
        "output_format",
        "priority",
        "previews",
    ]
    expect(field(page, "num_inference_steps")).to_have_value("10")
    slider = page.get_by_role("slider", name="How many pictures")
    assert [slider.get_attribute(name) for name in ("min", "max")] == ["1", "10"]
    fill(page, output_format="jpeg")
    assert "output_compression" in names(page)


def test_another_model_has_other_fields(http: httpx.Client, visit: Visit) -> None:
    guidance = {"cfg_field": "true_cfg_scale", "embedded": False, "options": ["cfg_truncation"]}
    page = visit_with_card(
        visit, http, guidance=guidance, samplers=["euler"], loras=["sketch", "ink"]
    )
    shown = names(page)
    assert {"true_cfg_scale", "cfg_truncation", "loras"} <= set(shown)
    assert not {"guidance_scale", "sampler"} & set(shown)
    page.locator("details.further > summary").click()
    page.get_by_label("ink", exact=True).check()
    page.get_by_label("Scale of ink, as a number").fill("0.5")
    page.locator(".code summary").click()
    expect(page.locator("#snippet")).to_contain_text('"loras": [')
    sent = json.loads(page.locator("#snippet").inner_text().partition("-d '")[2].rstrip("'"))
    assert sent["loras"] == [{"name": "ink", "scale": 0.5}]


def test_shapes_keep_to_the_models_limits(http: httpx.Client, visit: Visit) -> None:
    page = visit_with_card(
        visit, http, defaults={"width": 512, "height": 512}, limits={"max_pixels": 512 * 512}
    )
    for ratio in ("1 to 1", "4 to 3", "3 to 4", "16 to 9", "9 to 16"):
        page.get_by_role("button", name=ratio, exact=True).click()
        generate(page, prompt="a boat", num_inference_steps=1)
        expect(page.locator("#error-size")).to_be_empty()
    expect(cards(page, "succeeded")).to_have_count(5)


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"width": 60}, "size", "size is 60x64; each side must be a multiple of 8"),
        ({"num_inference_steps": 5000}, "num_inference_steps", "must be from 1 to 200"),
        ({"num_inference_steps": "many"}, "num_inference_steps", 'num_inference_steps is "many"'),
        ({"seed": "seven"}, "seed", 'seed is "seven"'),
        ({"seed": "-5"}, "seed", "seed is -5; it must be from 0"),
        ({"priority": 11}, "priority", "priority is 11; it must be from -10 to 10"),
        ({"guidance_scale": 101}, "guidance_scale", "must be from 0.0 to 100.0"),
    ],
)
def test_errors_stand_beside_the_field_that_they_name(
    http: httpx.Client, visit: Visit, fields: dict[str, Any], param: str, message: str
) -> None:
    page = visit(http)
    generate(page, prompt="a boat", **fields)
    expect(page.locator(f"#error-{param}")).to_contain_text(message)
    input = page.locator(f"#field-{param}")
    expect(input).to_be_focused()
    expect(input).to_have_attribute("aria-invalid", "true")


def test_an_error_goes_when_its_field_is_changed(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    generate(page, prompt="a boat", seed="seven")
    expect(page.locator("#error-seed")).to_contain_text("seven")
    fill(page, prompt="another boat")
    expect(page.locator("#error-seed")).to_contain_text("seven")
    fill(page, seed="7")
    expect(page.locator("#error-seed")).to_be_empty()
    expect(field(page, "seed")).not_to_have_attribute("aria-invalid", "true")


def test_the_dice_rolls_a_seed(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    wait_until_live(page)
    page.get_by_role("button", name="Roll a seed").click()
    first = int(field(page, "seed").input_value())
    page.get_by_role("button", name="Roll a seed").click()
    assert 0 <= first < 2**32
    assert int(field(page, "seed").input_value()) != first


@pytest.fixture
def snippets(http: httpx.Client, visit: Visit) -> dict[str, str]:
    """A request with everything that is hard to quote, as code."""
    page = visit(http)
    fill(
        page,
        prompt='it\'s "dark" \\ at $HOME\nand ‘cold’ 🏔',
        negative_prompt="a sun",
        seed=2**53 + 1,
        n=2,
        output_format="webp",
        output_compression=80,
    )
    page.locator(".code summary").click()
    curl = page.locator("#snippet").inner_text()
    page.get_by_role("button", name="Python").click()
    return {"curl": curl, "python": page.locator("#snippet").inner_text()}


def expected_files(http: httpx.Client) -> list[bytes]:
    body = {
        "prompt": 'it\'s "dark" \\ at $HOME\nand ‘cold’ 🏔',
        "negative_prompt": "a sun",
        "seed": 2**53 + 1,
        "n": 2,
        "output_format": "webp",
        "output_compression": 80,
    }
    data = http.post("/v1/images/generations", json=body).json()["data"]
    return [base64.b64decode(image["b64_json"]) for image in data]


def test_the_request_as_curl_makes_the_same_pictures(
    http: httpx.Client, snippets: dict[str, str], tmp_path: Path
) -> None:
    subprocess.run(["bash", "-c", snippets["curl"]], cwd=tmp_path, check=True, capture_output=True)
    data = json.loads((tmp_path / "answer.json").read_text())["data"]
    assert [base64.b64decode(image["b64_json"]) for image in data] == expected_files(http)


def test_the_request_as_python_makes_the_same_pictures(
    http: httpx.Client,
    snippets: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(snippets["python"], "snippet", "exec"), {})
    made = [(tmp_path / f"picture-{number}.webp").read_bytes() for number in range(2)]
    assert made == expected_files(http)


def test_the_code_is_copied(http: httpx.Client, visit: Visit) -> None:
    page = visit(http, permissions=["clipboard-read", "clipboard-write"])
    fill(page, prompt="a boat")
    page.locator(".code summary").click()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#snippet").inner_text()
