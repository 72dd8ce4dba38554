"""What steps cost: read from a table, guessed, learned; and the knee."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chairlift.errors import ConfigurationError
from chairlift.scheduling.costs import Costs, Curve, Shape
from tests.builders import a_row

SMALL = {1: 0.167, 2: 0.183, 3: 0.186, 4: 0.240, 8: 0.425, 16: 0.832}
LARGE = {1: 0.243, 2: 0.474, 3: 0.711}
"""Published seconds of a step of Qwen-Image at 512x512 and at 1024x1024."""


def table(**shape: Any) -> dict[str, Any]:
    whole = {"width": 512, "height": 512, "frames": 1, "step_seconds": {"1": 0.5, "4": 1.0}}
    return {"shapes": [whole | shape]}


def test_seconds_lie_on_the_line_between_two_measurements_and_past_the_last() -> None:
    curve = Curve({1: 1.0, 2: 1.5, 4: 3.5})
    assert [curve.seconds(rows) for rows in (1, 2, 3, 4, 5, 8)] == [1.0, 1.5, 2.5, 3.5, 4.5, 7.5]


def test_one_measurement_says_nothing_of_sharing() -> None:
    assert [Curve({2: 1.0}).seconds(rows) for rows in (1, 2, 6)] == [0.5, 1.0, 3.0]


@pytest.mark.parametrize(("points", "knee"), [(SMALL, 8), (LARGE, 1)])
def test_the_knee_is_where_a_row_is_hardly_cheaper_in_any_larger_batch(
    points: dict[int, float], knee: int
) -> None:
    assert Curve(points).knee(32) == knee


@pytest.mark.parametrize("points", [{}, {1: 0.2}, {1: 0.2, 2: 0.2}, {1: 0.2, 8: 0.3}])
def test_what_was_never_tried_is_held_to_be_worth_it(points: dict[int, float]) -> None:
    assert Curve(points).knee(32) == 32


def test_the_knee_is_within_what_is_allowed() -> None:
    assert Curve(SMALL).knee(4) == 4
    assert Curve(LARGE).knee(4) == 1


def test_the_first_ticks_of_a_size_are_not_believed_one_by_one() -> None:
    curve = Curve({1: 1.0, 4: 2.0})
    curve.observe(2, 60.0)  # It compiles.
    curve.observe(2, 1.3)
    assert curve.seconds(2) == pytest.approx(4 / 3)
    curve.observe(2, 1.4)
    assert curve.seconds(2) == 1.3


def test_ticks_refine_what_a_table_says() -> None:
    curve = Curve({1: 1.0})
    for _ in range(100):
        curve.observe(1, 2.0)
    assert curve.seconds(1) == pytest.approx(2.0, rel=1e-3)


def test_a_curve_that_learns_finds_its_knee() -> None:
    curve = Curve()
    for rows in (1, 4, 16, 32):
        for _ in range(40):
            curve.observe(rows, 0.1 * max(rows, 4))
    assert curve.knee(32) == 4


@given(st.dictionaries(st.integers(1, 64), st.floats(1e-4, 1e3), min_size=1), st.integers(1, 64))
def test_seconds_are_positive_whatever_was_measured(points: dict[int, float], rows: int) -> None:
    assert Curve(points).seconds(rows) > 0
    assert 1 <= Curve(points).knee(rows) <= rows


def test_a_shape_that_is_not_known_costs_what_the_nearest_costs_a_pixel() -> None:
    costs = Costs(table())
    assert costs.step(Shape(512, 1024)).seconds(1) == 1.0
    assert costs.step(Shape(512, 512)).seconds(1) == 0.5


def test_the_first_ticks_of_a_shape_correct_its_guess_as_a_whole() -> None:
    costs = Costs()
    small = costs.step(Shape(64, 64))
    for _ in range(3):
        for rows in (1, 2, 4, 8, 16):
            small.observe(rows, 0.02 + 0.008 * rows)
    guess = costs.step(Shape(160, 96))
    knee, ratio = guess.knee(32), guess.seconds(8) / guess.seconds(1)
    for _ in range(200):
        guess.observe(1, 0.028)
    assert guess.seconds(1) == pytest.approx(0.028)
    assert guess.seconds(8) / guess.seconds(1) == pytest.approx(ratio)
    assert guess.knee(32) == knee == small.knee(32)


def test_what_is_learned_of_one_shape_does_not_change_another() -> None:
    costs = Costs(table())
    for _ in range(50):
        costs.step(Shape(512, 1024)).observe(1, 9.0)
    assert costs.step(Shape(512, 512)).seconds(1) == 0.5


def test_a_first_tick_that_compiled_is_forgotten() -> None:
    curve = Curve()
    for seconds in (60.0, 1.0, 1.0):
        curve.observe(4, seconds)
        assert curve.seconds(4) == min(60.0, seconds)
    assert curve.knee(32) == 32  # What sharing is worth isn't known yet.


def test_a_guess_of_nothing_is_corrected() -> None:
    costs = Costs()
    costs.observe_encode(Shape(512, 512), 0.0)
    for _ in range(3):
        costs.observe_encode(Shape(1024, 512), 0.1)
    assert costs.encode(Shape(1024, 512)) == 0.1


def test_a_row_alone_is_encoded_stepped_and_decoded() -> None:
    costs = Costs(table(encode_seconds={"1": 0.1}, decode_seconds={"1": 0.2}))
    row = a_row(evaluations=10, side=64)
    assert row.shape == Shape(512, 512)
    assert row.alone(costs) == pytest.approx(5.3)


def test_a_row_with_guidance_takes_two_entries_alone_too() -> None:
    costs = Costs(table(step_seconds={"1": 0.5, "2": 0.8}))
    assert a_row(evaluations=10, side=64, entries=2).alone(costs) == pytest.approx(8.0)


def test_a_table_of_rows_is_read_as_entries_of_the_models_rows() -> None:
    rows = table(step_seconds={"1": 0.5, "2": 0.8}) | {"counts": "rows"}
    costs = Costs(rows, row_entries=2)
    assert costs.step(Shape(512, 512)).points == {2: 0.5, 4: 0.8}


def test_a_table_of_forward_rows_is_read_as_it_is() -> None:
    shapes = table(step_seconds={"1": 0.5, "2": 0.8})
    for costs in (
        Costs(shapes | {"counts": "forward_rows"}, row_entries=2),
        Costs(shapes | {"counts": "forward_rows", "row_entries": 2}),
    ):
        assert costs.step(Shape(512, 512)).points == {1: 0.5, 2: 0.8}
        assert costs.row_entries == 2


def test_what_newcomers_and_decoding_cost_is_learned() -> None:
    costs, shape = Costs(), Shape(512, 512)
    assert (costs.encode(shape), costs.decode(shape)) == (0.0, 0.0)
    for _ in range(50):
        costs.observe_encode(shape, 0.1)
        costs.observe_decode(shape, 0.2)
    assert (costs.encode(shape), costs.decode(shape)) == pytest.approx((0.1, 0.2))
    assert costs.decode(Shape(1024, 512)) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({}, "it has no shapes"),
        ({"shapes": []}, "it has no shapes"),
        ({"shapes": [{}]}, "shape 0: KeyError"),
        (table(width="wide"), "shape 0: width is 'wide'; it must be a whole number from 1 on"),
        (table(height=0), "shape 0: height is 0; it must be a whole number from 1 on"),
        (table(frames=1.5), "shape 0: frames is 1.5; it must be a whole number from 1 on"),
        ({"shapes": table()["shapes"] * 2}, "shape 1: 512x512, frames 1, is there twice"),
        (table(step_seconds={}), "shape 0: step_seconds is {}; it must have numbers, all above 0"),
        (table(step_seconds={"1": 0}), "shape 0: step_seconds .* must have numbers, all above 0"),
        (table(step_seconds=[]), "shape 0: "),
        (table(step_seconds={"1": -1}), "shape 0: .*can't be"),
        (table(step_seconds={"0": 1}), "shape 0: .*can't be"),
        (table(step_seconds={"1": float("nan")}), "shape 0: .*can't be"),
        (table() | {"counts": "heads"}, "counts is 'heads'; it must be one of rows, forward_rows"),
        (table() | {"row_entries": 3}, "row_entries is 3; it must be 1 or 2"),
    ],
    ids=str,
)
def test_a_broken_table_is_refused(broken: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^cost table: {message}"):
        Costs(broken)
