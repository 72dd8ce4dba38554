"""How lanes stand: scene.js alone, with reports and a clock of the test's own."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from playwright.sync_api import Page

from tests.page.conftest import Visit

STAGE = """
async (moments) => {
  const { Lift } = await import("/page/lift.js");
  const { Scene } = await import("/page/scene.js");
  const lift = new Lift();
  const describe = ({ id }) => ({ own: false, name: id, text: id });
  const scene = new Scene({ describe, cancel() {}, preview() {}, noun: () => "picture" });
  const seen = [];
  for (const [now, riders] of moments) {
    const ticks = [{ width: 64, height: 64, frames: 1, worker: 0, riders }];
    const report = { ticks, running: riders.length, waiting: 0, backlog_seconds: 0, queue: [] };
    lift.observe({ ...report, own: null }, now);
    scene.draw(lift, now);
    const lanes = [...document.querySelectorAll("#groups .lane")];
    const riding = lanes.filter(({ dataset }) => dataset.state === "riding");
    seen.push({
      lanes: lanes.length,
      density: document.querySelector("#scene").dataset.density,
      words: document.querySelector("#groups .rows")?.textContent,
      lefts: Object.fromEntries(riding.map((lane) => [
        lane.querySelector(".rider").textContent, lane.getBoundingClientRect().left])),
    });
  }
  return seen;
}
"""


@pytest.fixture
def page(http: httpx.Client, visit: Visit) -> Page:
    return visit(http, viewport={"width": 1440, "height": 900}, reduced_motion="reduce")


def play(page: Page, *moments: tuple[int, list[int]]) -> list[dict[str, Any]]:
    """What stands on the scene while these rows ride; times are in milliseconds."""
    told = [[now, [[[str(row), 0], 1, 20] for row in rows]] for now, rows in moments]
    seen: list[dict[str, Any]] = page.evaluate(STAGE, told)
    return seen


def test_many_stand_in_two_columns_and_nobody_changes_sides(page: Page) -> None:
    everybody = list(range(30))
    without_one = [row for row in everybody if row != 4]
    without_both = [row for row in without_one if row != 5]
    whole, *_, halved, _, _, _, gone = play(
        page,
        (0, everybody),
        *((now, without_one) for now in (1000, 2000, 4000, 5000)),
        *((now, without_both) for now in (6000, 7000, 9000, 10_000)),
    )
    lefts = whole["lefts"]
    assert len(set(lefts.values())) == 2
    assert (whole["lanes"], halved["lanes"], gone["lanes"]) == (30, 30, 28)
    assert halved["lefts"].items() < lefts.items()
    assert gone["lefts"].items() < halved["lefts"].items()


def test_each_gets_more_room_only_when_many_have_left(page: Page) -> None:
    moments = [(1000 * second, list(range(11))) for second in range(2)]
    moments += [(1000 * second, list(range(8))) for second in range(2, 9)]
    moments += [(1000 * second, list(range(6))) for second in range(9, 16)]
    seen = play(page, (0, list(range(10))), *moments)
    assert [seen[index]["density"] for index in (0, 2, 9, 16)] == [
        "normal",
        "close",
        "close",
        "normal",
    ]


def test_empty_cables_are_not_counted(page: Page) -> None:
    seen = play(page, (0, [1, 2]), (100, [1, 2]), (1000, [2]), (2000, []), (3000, []))
    assert [one["words"] for one in seen[1:]] == ["2 rows", "1 row", "", ""]
