"""The lift: who rides, who waits, who gets off."""

from __future__ import annotations

import json
import re

import httpx
from playwright.sync_api import Page, Route, expect

from tests.page.conftest import Visit
from tests.page.use import LONG, cards, generate, lanes, wait_until_live

STRANGER = re.compile("^(job|request) [0-9a-f]{6}")

BODY = {
    "prompt": "from elsewhere",
    "size": "512x512",
    "num_inference_steps": 200,
    "sampler": "heun",
}


WATCH_TOP = """() => {
  window.tops = [];
  const look = () => {
    const { top } = document.querySelector("#scene").getBoundingClientRect();
    if (!tops.includes(top)) tops.push(top);
    requestAnimationFrame(look);
  };
  look();
}"""


def submit(http: httpx.Client, **fields: object) -> str:
    answer = http.post("/v1/jobs", json=BODY | fields)
    assert answer.status_code == 202, answer.text
    id: str = answer.json()["id"]
    return id


def show(
    page: Page, *, running: int, ticks: list[object], queue: list[object], own: object = None
) -> None:
    """Let the lift report this, and then nothing more."""
    report = {
        "ticks": ticks,
        "running": running,
        "waiting": len(queue),
        "backlog_seconds": 1.5,
        "queue": queue,
        "own": own,
    }
    told = []

    def tell(route: Route) -> None:
        if not told:
            told.append(route)
            body = f"data: {json.dumps(report)}\n\n"
            route.fulfill(body=body, content_type="text/event-stream")

    page.route("**/v1/lift", tell)
    page.reload()


def test_two_tabs_see_each_others_rows(http: httpx.Client, visit: Visit) -> None:
    one = visit(http)
    other = visit(http, one.context)
    generate(one, **LONG | {"prompt": "of the first", "n": 3})
    generate(other, **LONG | {"prompt": "of the second", "n": 2})
    for page, own, theirs in ((one, 3, 2), (other, 2, 3)):
        expect(lanes(page, "of the")).to_have_count(own)
        expect(lanes(page, STRANGER)).to_have_count(theirs)
        expect(cards(page, "running")).to_have_count(own)
    lanes(one, STRANGER).first.get_by_role("button", name="Cancel job").click()
    expect(cards(other)).to_have_count(0)
    expect(lanes(one)).to_have_count(3)
    expect(lanes(other)).to_have_count(3)
    cards(one).first.get_by_role("button", name="Cancel").click()
    expect(lanes(other)).to_have_count(0)


def test_requests_without_a_job_ride_too(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    wait_until_live(page)
    with http.stream("POST", "/v1/images/generations", json=BODY | {"stream": True, "n": 3}):
        expect(lanes(page, re.compile("^request "))).to_have_count(3)
        expect(page.locator("#figure-forward")).to_have_text("3")
        lanes(page).first.get_by_role("button").click()
    expect(lanes(page)).to_have_count(0)


def test_who_waits_is_at_the_station_with_the_predicted_time(
    http: httpx.Client, visit: Visit
) -> None:
    page = visit(http)
    queue = [{"id": f"job_{'ab' * 16}", "images": 2, "width": 64, "height": 96, "eta_s": 75.2}]
    show(page, running=0, ticks=[], queue=list(queue))
    ticket = page.locator(".ticket")
    expect(ticket).to_contain_text("job ababab")
    expect(ticket).to_contain_text("2 pictures, 64 × 96")
    expect(ticket).to_contain_text("done in about 1 min 15 s")
    with page.expect_request("**/v1/requests/*/cancel") as sent:
        ticket.get_by_role("button", name="Cancel job ababab").click()
    assert sent.value.url.endswith(f"/v1/requests/job_{'ab' * 16}/cancel")


def test_who_is_done_soonest_is_first_in_the_queue(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    times = [90.0, None, *(float(number) for number in range(60, 88))]
    queue = [
        {"id": f"req_{number:06x}{'0' * 26}", "images": 1, "width": 64, "height": 64, "eta_s": eta}
        for number, eta in enumerate(times)
    ]
    show(page, running=0, ticks=[], queue=list(queue))
    tickets = page.locator(".ticket")
    expect(tickets).to_have_count(24)
    expect(tickets.first).to_contain_text("done in about 1 min")
    expect(tickets.nth(1)).to_contain_text("done in about 1 min 1 s")
    expect(page.locator("#queue-more")).to_have_text("and 6 more pictures")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_only_what_one_may_cancel_has_a_cross(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    mine, other = (f"req_{digit * 32}" for digit in "ab")
    riders = [[[id, 0], 4, 20] for id in (mine, other)]
    ticks = [{"seconds": 0.1, "width": 64, "height": 64, "riders": riders}]
    size = {"images": 2, "width": 64, "height": 64, "eta_s": 9.0}
    queue = [{"id": f"req_{digit * 32}"} | size for digit in "cd"]
    own = [mine, f"req_{'c' * 32}"]
    show(page, running=2, ticks=list(ticks), queue=list(queue), own=own)
    expect(lanes(page)).to_have_count(2)
    expect(page.locator(".ticket")).to_have_count(2)
    crosses = page.locator("#scene, #queue").get_by_role("button", name="Cancel")
    expect(crosses).to_have_count(2)
    names = ["Cancel request cccccc, all 2 pictures", "Cancel request aaaaaa"]
    expect(crosses).to_have_text(names)


def test_who_boards_leaves_the_station_and_nothing_moves(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    wait_until_live(page)
    top = "document.querySelector('#scene').getBoundingClientRect().top"
    before = page.evaluate(top)
    expect(page.get_by_text("Nobody waits.")).to_be_visible()
    ids = [submit(http, num_inference_steps=60, n=10) for _ in range(4)]
    expect(page.locator(".ticket").first).to_be_visible()
    assert page.evaluate(top) == before
    page.evaluate(WATCH_TOP)
    for id in ids:
        http.post(f"/v1/requests/{id}/cancel")
    expect(page.locator(".ticket")).to_have_count(0)
    expect(page.get_by_text("Nobody waits.")).to_be_visible()
    assert page.evaluate("tops") == [before]


def test_chairs_go_as_far_as_their_rows(http: httpx.Client, visit: Visit) -> None:
    page = visit(http, reduced_motion="reduce")
    riders = [[[f"req_{'0a' * 16}", 0], 4, 20], [[f"req_{'0b' * 16}", 0], 8, 10]]
    ticks = [{"seconds": 0.1, "width": 64, "height": 64, "riders": riders}]
    show(page, running=2, ticks=list(ticks), queue=[])
    for name, step, place in (
        ("request 0a0a0a", "step 5 of 20", "0.25"),
        ("request 0b0b0b", "step 9 of 10", "0.9"),
    ):
        expect(lanes(page, name).locator(".step")).to_have_text(step)
        chair = lanes(page, name).locator(".chair")
        there = chair.evaluate("(chair) => chair.style.getPropertyValue('--t')")
        assert there == place


def test_hundreds_of_rows_are_bounded(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    riders = [[[f"req_{number:032x}", 0], 1, 20] for number in range(300)]
    ticks = [{"seconds": 0.1, "width": 64, "height": 64, "riders": riders}]
    show(page, running=300, ticks=list(ticks), queue=[])
    expect(lanes(page)).to_have_count(64)
    expect(page.locator("#more")).to_have_text("and 236 more rows")


def test_a_request_that_somebody_else_cancels_vanishes(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    wait_until_live(page)
    id = submit(http, n=2)
    expect(lanes(page)).to_have_count(2)
    http.post(f"/v1/requests/{id}/cancel")
    expect(lanes(page)).to_have_count(0)
    expect(page.get_by_text("The lift is empty.")).to_be_visible()


def test_the_charts_tell_what_has_happened(http: httpx.Client, visit: Visit) -> None:
    page = visit(http)
    generate(page, prompt="a boat", n=4, num_inference_steps=50)
    expect(cards(page, "succeeded")).to_have_count(4)
    charts = page.locator("#charts")
    for name in ("Pictures a minute", "Rows a tick", "Waiting rows", "Median latency"):
        expect(charts.get_by_role("img", name=name)).to_be_visible()
    expect(charts.get_by_role("img", name="Rows a tick")).to_have_attribute(
        "aria-label", re.compile(r"at most [1-4]\.\d in the last minute$")
    )
    expect(charts.get_by_role("img", name="Pictures a minute")).to_have_attribute(
        "aria-label", re.compile(r"now 12\b")
    )
