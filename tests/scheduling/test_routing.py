"""Which place a request goes to."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chairlift.scheduling.costs import Shape
from chairlift.scheduling.routing import (
    AFFINITY_SHARE,
    Place,
    RoundRobin,
    Traits,
    choose_fewest,
    choose_place,
    pixel_steps,
    two_choices,
)
from tests.builders import a_request

SMALL, LARGE = Shape(64, 64), Shape(128, 128)
SHAPES = frozenset([SMALL])
LORAS = frozenset(["ink", "oil"])

subsets = st.frozensets(st.sampled_from(["a", "b", "c"]))
shapes = st.frozensets(st.sampled_from([SMALL, LARGE]))
places = st.lists(
    st.builds(Place, st.floats(0, 100) | st.just(0.0), shapes, subsets, subsets), min_size=1
)
traits = st.builds(Traits, st.sampled_from([SMALL, LARGE]), subsets, st.sampled_from("abc"))


def traits_of(
    shape: Shape = SMALL, loras: frozenset[str] = frozenset(), prompt: str = ""
) -> Traits:
    return Traits(shape, loras, prompt)


@given(places, st.none() | traits)
def test_the_backlog_of_the_chosen_is_close_to_the_least(
    places: list[Place], traits: Traits | None
) -> None:
    least = min(place.backlog_seconds for place in places)
    chosen = places[choose_place(places, traits)].backlog_seconds
    assert chosen <= least * (1 + AFFINITY_SHARE)
    assert traits is not None or chosen == least


@given(places, traits)
def test_the_best_of_those_that_tie_is_chosen(places: list[Place], traits: Traits) -> None:
    enough = min(place.backlog_seconds for place in places) * (1 + AFFINITY_SHARE)

    def lacks(place: Place) -> tuple[object, ...]:
        return (
            len(traits.loras - place.loras),
            traits.shape not in place.shapes,
            traits.prompt not in place.prompts,
            place.backlog_seconds,
        )

    near = [place for place in places if place.backlog_seconds <= enough]
    best = min(lacks(place) for place in near)
    assert choose_place(places, traits) == next(
        index
        for index, place in enumerate(places)
        if place.backlog_seconds <= enough and lacks(place) == best
    )


def test_without_traits_the_first_of_the_least_is_chosen() -> None:
    assert choose_place([Place(3.0), Place(1.0, SHAPES), Place(1.0), Place(2.0)]) == 1


def test_affinity_decides_among_backlogs_that_are_nearly_equal() -> None:
    near = 10.0 * (1 + AFFINITY_SHARE) - 0.1
    assert choose_place([Place(10.0), Place(near, SHAPES)], traits_of()) == 1
    assert choose_place([Place(10.0), Place(near + 0.2, SHAPES)], traits_of()) == 0


def test_an_idle_place_is_never_passed_over_for_a_busy_one() -> None:
    busy = Place(0.001, SHAPES, LORAS, frozenset(["hills"]))
    assert choose_place([busy, Place(0.0)], traits_of(SMALL, LORAS, "hills")) == 1


def test_loras_count_before_the_shape_and_the_shape_before_the_prompt() -> None:
    wanted = traits_of(SMALL, LORAS, "hills")
    prompt = Place(1.0, prompts=frozenset(["hills"]))
    shape = Place(1.0, shapes=SHAPES)
    one_lora = Place(1.0, loras=frozenset(["ink"]))
    both = Place(1.0, loras=LORAS | {"chalk"})
    candidates = [Place(1.0), prompt, shape, one_lora, both]
    assert [choose_place(candidates[:count], wanted) for count in range(1, 6)] == [0, 1, 2, 3, 4]


def test_the_least_of_equal_company_is_chosen() -> None:
    assert choose_place([Place(10.5, SHAPES), Place(10.2, SHAPES), Place(10.0)], traits_of()) == 1


def test_the_fewest_requests_are_the_first_of_them() -> None:
    assert choose_fewest([2, 1, 1]) == 1


def test_two_choices_are_two_different_places_and_every_pair_has_the_same_chance() -> None:
    random = Random(1)
    pairs = Counter(frozenset(two_choices(4, random)) for _ in range(6000))
    assert {len(pair) for pair in pairs} == {2}
    assert len(pairs) == 6
    assert all(count == pytest.approx(1000, rel=0.15) for count in pairs.values())
    assert two_choices(1, random) == (0,)


def test_round_robin_takes_turns_also_when_their_number_changes() -> None:
    turn = RoundRobin()
    assert [turn(3), turn(3), turn(3), turn(3)] == [0, 1, 2, 0]
    assert turn(2) in (0, 1)


def test_no_places_are_an_error() -> None:
    with pytest.raises(ValueError, match="there are no places"):
        choose_place([])
    with pytest.raises(ValueError, match="there are no places"):
        choose_fewest([])
    for choose in (lambda: two_choices(0, Random(1)), lambda: RoundRobin()(0)):
        with pytest.raises(ValueError, match="there are 0 places to choose from"):
            choose()


def test_guidance_and_frames_are_work_like_pixels_and_steps() -> None:
    plain = a_request(width=64, height=128, steps=10, n=3, guidance_scale=1.0)
    assert pixel_steps(plain) == 64 * 128 * 10 * 3
    assert pixel_steps(replace(plain, cfg_scale=3.0, frames=5)) == 10 * pixel_steps(plain)
