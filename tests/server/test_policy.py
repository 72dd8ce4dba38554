"""The order in which requests are served, over HTTP."""

from __future__ import annotations

import httpx
import pytest

from chairlift.scheduling.names import DEFAULT_POLICY, POLICY_NAMES
from tests.running import GENERATIONS


@pytest.mark.parametrize("policy", POLICY_NAMES)
def test_the_policy_may_be_changed_while_running(http: httpx.Client, policy: str) -> None:
    assert http.put("/v1/policy", json={"policy": policy}).json() == {"policy": policy}
    assert http.get("/v1/policy").json() == {"policy": policy}
    assert http.post(GENERATIONS, json={"prompt": "a boat"}).status_code == 200
    http.put("/v1/policy", json={"policy": DEFAULT_POLICY})


def test_an_unknown_policy_is_refused(http: httpx.Client) -> None:
    answer = http.put("/v1/policy", json={"policy": "magic"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == (
        f"policy is 'magic'; it must be one of {', '.join(POLICY_NAMES)}"
    )


def test_an_answer_says_when_it_was_predicted_to_be_there(http: httpx.Client) -> None:
    body = {"prompt": "a boat", "priority": 5, "deadline_ms": 60_000, "user": "somebody"}
    answer = http.post(GENERATIONS, json=body)
    assert answer.status_code == 200
    assert float(answer.headers["X-Chairlift-Eta"]) >= 0
