"""What makes two bodies the same request."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from chairlift.errors import InvalidRequest
from chairlift.server.idempotency import MAX_KEY_CHARACTERS, body_digest, check_key
from chairlift.server.schema import ImageGenerationBody
from tests.running import GENERATIONS


def digest(**fields: Any) -> bytes:
    return body_digest(ImageGenerationBody(prompt="a boat", **fields))


def test_bodies_that_ask_for_the_same_are_equal() -> None:
    assert digest(n=2, seed=1) == digest(seed=1, n=2)
    assert digest(stream=True) == digest(stream=False) == digest()
    assert digest(seed=None) == digest()


@pytest.mark.parametrize(
    "fields",
    [{"n": 2}, {"seed": 1}, {"user": "somebody"}, {"quality": "\ud800"}, {"deadline_ms": 1.0}],
    ids=ascii,
)
def test_bodies_that_ask_for_something_else_are_not(fields: dict[str, Any]) -> None:
    assert digest(**fields) != digest()


@pytest.mark.parametrize("key", [None, "a", "two words", "x" * MAX_KEY_CHARACTERS])
def test_visible_text_is_a_key(key: str | None) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["", "x" * (MAX_KEY_CHARACTERS + 1), "a\tb", "é"], ids=ascii)
def test_any_other_is_none(key: str) -> None:
    with pytest.raises(InvalidRequest, match="must have from 1 to 255") as refused:
        check_key(key)
    assert refused.value.param == "Idempotency-Key"


@pytest.mark.parametrize("path", [GENERATIONS, "/v1/jobs"])
@pytest.mark.parametrize("field", ["prompt", "user"])
def test_a_lone_surrogate_is_refused_with_a_key_too(
    http: httpx.Client, path: str, field: str
) -> None:
    content = f'{{"prompt": "a boat", "{field}": "\\ud800"}}'
    headers = {"Content-Type": "application/json", "Idempotency-Key": f"{path} {field}"}
    answer = http.post(path, content=content, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field
