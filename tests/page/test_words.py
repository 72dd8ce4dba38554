"""How the page says numbers and texts: dom.js alone."""

from __future__ import annotations

import httpx

from tests.page.conftest import Visit

SAY = """
async ([times, texts]) => {
  const { brief, count, seconds, sizeOf } = await import("/page/dom.js");
  const counts = [0, 1, 2].map((number) => count(number, "row"));
  const sizes = [1, 81].map((frames) => sizeOf({ width: 832, height: 480, frames }));
  return [times.map(seconds), texts.map(brief), counts, sizes];
}
"""


def test_numbers_and_texts_are_as_long_as_they_need_to_be(http: httpx.Client, visit: Visit) -> None:
    times = {
        -1: "0 s",
        0: "0 s",
        0.42: "0.42 s",
        3.14: "3.1 s",
        9.97: "10 s",
        48.3: "48 s",
        59.7: "1 min",
        125: "2 min 5 s",
        599.8: "10 min",
        895: "15 min",
        3600: "1 h",
        4830: "1 h 21 min",
    }
    texts = {
        "a boat": "a boat",
        "🏔" * 60: "🏔" * 60,
        "🏔" * 61: "🏔" * 60 + "…",
        "x" * 999: "x" * 60 + "…",
    }
    said = visit(http).evaluate(SAY, [list(times), list(texts)])
    assert said == [
        list(times.values()),
        list(texts.values()),
        ["0 rows", "1 row", "2 rows"],
        ["832 × 480", "832 × 480, 81 frames"],
    ]
