"""Predictions for a few, which are cheaper than those for everybody."""

from __future__ import annotations

import random

import pytest

from chairlift.request import RowId
from chairlift.scheduling.names import POLICY_NAMES
from chairlift.scheduling.scheduler import Scheduler
from tests.builders import a_row


@pytest.mark.parametrize("policy", POLICY_NAMES)
def test_a_few_are_told_the_same_as_if_everybody_was(policy: str) -> None:
    rng = random.Random(policy)
    scheduler = Scheduler(policy=policy, max_batch_size=4)
    rows = [
        a_row(
            f"request {number // 3}",
            image=number % 3,
            side=rng.choice([8, 12, 16]),
            evaluations=rng.randint(1, 30),
            arrival=0.1 * number,
            caller=rng.choice("abc"),
        )
        for number in range(90)
    ]
    scheduler.submit(rows)
    scheduler.plan(10.0)
    everybody = scheduler.predict(10.0)
    few = [row.id for row in rows if row.id.request_id in ("request 0", "request 17")]
    told = scheduler.predict(10.0, few)
    assert told == {id: everybody[id] for id in ("request 0", "request 17")}
    assert scheduler.predict(10.0, []) == {}
    [one] = scheduler.predict(10.0, [RowId("request 29", 2)]).values()
    assert 0 < one <= everybody["request 29"]
