"""The body of a request for images, apart from any server."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chairlift.errors import InvalidRequest
from chairlift.server.schema import ImageGenerationBody, parse_size
from tests.builders import create_card

OPENAI = {"prompt", "model", "n", "size", "response_format", "output_format", "output_compression"}
OPENAI |= {"stream", "partial_images", "user", "quality", "style", "background", "moderation"}
EXTRAS = {"negative_prompt", "num_inference_steps", "guidance_scale", "true_cfg_scale", "seed"}
EXTRAS |= {"sampler", "priority", "deadline_ms"}


def test_every_field_of_the_contract_is_there_and_described() -> None:
    fields = ImageGenerationBody.model_json_schema()["properties"]
    assert fields.keys() >= OPENAI | EXTRAS
    bare = {name for name, field in fields.items() if "description" not in field}
    assert bare <= {"output_format"}  # its choices say it


def test_only_the_prompt_is_required() -> None:
    assert ImageGenerationBody.model_json_schema()["required"] == ["prompt"]
    request = ImageGenerationBody(prompt="a boat").to_request(create_card(), id="a")
    assert (request.n, request.output_format, request.output_compression) == (1, "png", 90)


@given(width=st.integers(0, 10**9 - 1), height=st.integers(0, 10**9 - 1))
def test_any_two_numbers_are_a_size(width: int, height: int) -> None:
    assert parse_size(f"{width}x{height}") == (width, height)


@pytest.mark.parametrize("size", [None, "auto"])
def test_no_size_is_the_models(size: str | None) -> None:
    assert parse_size(size) == (None, None)


@given(st.text().filter(lambda size: not re.fullmatch(r"auto|[0-9]{1,9}x[0-9]{1,9}", size)))
def test_any_other_text_is_refused(size: str) -> None:
    with pytest.raises(InvalidRequest, match="like 128x128") as refused:
        parse_size(size)
    assert refused.value.param == "size"


@pytest.mark.parametrize(
    ("given", "warned"),
    [
        ({}, []),
        ({"user": "somebody"}, []),
        ({"quality": None}, []),
        (
            {"style": "vivid", "quality": "hd"},
            ["quality has no effect here", "style has no effect here"],
        ),
    ],
    ids=str,
)
def test_what_has_no_effect_is_warned_of(given: dict[str, Any], warned: list[str]) -> None:
    assert ImageGenerationBody(prompt="a boat", **given).warnings() == warned
