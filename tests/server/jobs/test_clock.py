"""A clock that jumps changes dates, and nothing that is a duration."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

import chairlift
from chairlift.server.jobs.manager import Retention
from tests.running import EngineThread, generate, metric, wait_until

DATES = {
    "cli/bench.py",  # when a report was made
    "server/compat/a1111.py",  # a name made of the date
    "server/images.py",  # created
    "server/jobs/manager.py",  # created_at; what is older than a week
    "server/jobs/recorder.py",  # started_at, finished_at
    "server/jobs/store.py",  # finished_at
    "server/partials.py",  # created_at
    "server/streaming.py",  # created_at
    "server/tracing.py",  # the end of a span; its start is counted back from there
}
"""What asks for the date, and why."""
_DATE = re.compile(
    r"\btime\.time(_ns)?\(|\bdatetime\.(now|utcnow|today)\(|\btime\.(gm|local)time\("
)


def test_only_what_says_a_date_asks_for_it() -> None:
    root = Path(chairlift.__file__).parent
    asking = {
        str(path.relative_to(root)) for path in root.rglob("*.py") if _DATE.search(path.read_text())
    }
    assert asking == DATES


@pytest.mark.parametrize("jump", [-1e8, 1e8])
def test_a_jump_meanwhile_changes_no_duration(
    engine: EngineThread, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    now = time.time
    with engine.serve(retention=Retention(seconds=3e8)) as http:
        body = {"prompt": "a boat", "num_inference_steps": 100, "deadline_ms": 3_600_000}
        job = http.post("/v1/jobs", json=body).json()
        monkeypatch.setattr(time, "time", lambda: now() + jump)
        url = f"/v1/jobs/{job['id']}"
        wait_until(lambda: http.get(url).json()["status"] == "succeeded")
        done = http.get(url).json()
        assert done["created_at"] <= done["started_at"] <= done["finished_at"]
        assert 0 < done["timings"]["total_s"] < 1e6
        assert generate(http, deadline_ms=3_600_000)["timings"]["total_s"] < 1e6
        assert 0 < metric(http, "chairlift_request_seconds_sum") < 1e6
        assert http.get("/v1/jobs").json()["data"] == [done]
