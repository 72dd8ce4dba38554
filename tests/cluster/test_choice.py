"""Which replica a request goes to."""

from __future__ import annotations

import random
from typing import Any

from chairlift.cluster.choice import UNSEEN_SECONDS, Choice
from chairlift.cluster.load import digest
from chairlift.scheduling.routing import pixel_steps
from tests.builders import a_request

SMALL = a_request(width=64, height=64)


def load(backlog: float = 0.0, **more: Any) -> dict[str, Any]:
    """What a replica tells."""
    nothing: dict[str, Any] = {"shapes": [], "loras": [], "prompts": [], "newest": []}
    return (
        {"is_ready": True, "backlog_seconds": backlog, "seconds_per_pixel_step": 1e-6}
        | nothing
        | more
    )


def create_choice() -> Choice[str]:
    return Choice(random.Random(0))


def test_a_request_goes_to_the_replica_with_the_least_backlog() -> None:
    told = {"a": load(3.0), "b": load(1.0), "c": load(2.0)}
    best, others = create_choice().rank(told, "1", SMALL, now=0.0)
    assert best == ["b"]
    assert sorted(others) == ["a", "c"]


def test_of_equal_ones_it_goes_where_its_prompt_is_known() -> None:
    told = {"a": load(1.0), "b": load(1.0, prompts=[digest(SMALL.prompt)])}
    assert create_choice().rank(told, "1", SMALL, now=0.0)[0] == ["b"]


def test_what_was_sent_since_the_replicas_have_told_counts() -> None:
    choice, told = create_choice(), {"a": load(), "b": load()}
    large = a_request(width=128, height=128)
    assert choice.rank(told, "1", large, now=0.0)[0] == ["a"]
    assert choice.rank(told, "2", SMALL, now=0.1)[0] == ["b"]
    assert choice.rank(told, "3", SMALL, now=0.2)[0] == ["b"]


def test_it_counts_also_before_anybody_knows_what_a_step_takes() -> None:
    choice = create_choice()
    told = {name: load(seconds_per_pixel_step=0.0) for name in "ab"}
    assert choice.rank(told, "1", SMALL, now=0.0)[0] == ["a"]
    assert choice.rank(told, "2", SMALL, now=0.0)[0] == ["b"]


def test_what_was_sent_counts_until_it_has_ended_or_was_told() -> None:
    choice, told = create_choice(), {"a": load(), "b": load()}
    choice.rank(told, "1", SMALL, now=0.0)
    choice.end("1")
    assert choice.rank(told, "2", SMALL, now=0.1)[0] == ["a"]
    assert choice.rank(told, "3", SMALL, now=0.1 + UNSEEN_SECONDS)[0] == ["a"]


def test_what_a_replica_has_told_of_is_in_its_backlog_and_counts_once() -> None:
    choice = create_choice()
    assert choice.rank({"a": load(), "b": load(2.0)}, "1", SMALL, now=0.0)[0] == ["a"]
    small = 1e-6 * pixel_steps(SMALL)
    told = {"a": load(small, newest=[digest(SMALL.id)]), "b": load(1.5 * small)}
    assert choice.rank(told, "2", a_request("other"), now=0.1)[0] == ["a"]


def test_what_is_sent_again_counts_once() -> None:
    choice, told = create_choice(), {"a": load(), "b": load()}
    assert choice.rank(told, "1", SMALL, now=0.0)[0] == ["a"]
    assert choice.rank(told, "1", SMALL, now=0.1)[0] == ["a"]


def test_a_replica_whose_engine_is_being_replaced_is_not_the_best() -> None:
    told = {"a": load(is_ready=False), "b": load(9.0)}
    assert create_choice().rank(told, "1", SMALL, now=0.0) == [["b"], ["a"]]


def test_replicas_that_have_told_nothing_are_drawn_by_the_power_of_two_choices() -> None:
    told: dict[str, dict[str, Any]] = {name: {} for name in "abcd"}
    choice = create_choice()
    ranks = [choice.rank(told, str(call), SMALL, now=0.0) for call in range(50)]
    assert {len(rank) for rank in ranks} == {1}
    assert {len(set(rank[0])) for rank in ranks} == {2}
    assert {name for rank in ranks for name in rank[0]} == set("abcd")
