"""OpenAI's own client needs to know nothing of Chairlift."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator

import httpx
import openai
import pytest

from chairlift.engine.client import EngineClient
from tests.running import EngineThread, generate, long_request


@pytest.fixture
def stock(http: httpx.Client) -> Iterator[openai.OpenAI]:
    with connect(http) as stock:
        yield stock


def connect(http: httpx.Client, key: str = "any") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{http.base_url}/v1", api_key=key, max_retries=0)


def test_it_gets_pictures(http: httpx.Client, stock: openai.OpenAI) -> None:
    extras = {"seed": 1, "num_inference_steps": 5}
    answer = stock.images.generate(
        model="fake",
        prompt="a boat",
        n=2,
        size="128x64",
        response_format="b64_json",
        extra_body=extras,
    )
    expected = generate(http, n=2, size="128x64", **extras)
    assert answer.data is not None
    assert [image.b64_json for image in answer.data] == [
        image["b64_json"] for image in expected["data"]
    ]
    assert b64decode(answer.data[0].b64_json or "").startswith(b"\x89PNG")
    assert [image.seed for image in answer.data] == [1, 2]


def test_it_may_send_what_means_nothing_here(stock: openai.OpenAI) -> None:
    answer = stock.images.generate(
        prompt="a boat",
        quality="hd",
        style="vivid",
        background="opaque",
        moderation="low",
        output_format="webp",
        output_compression=50,
        user="somebody",
    )
    assert answer.output_format == "webp"
    assert answer.warnings == [
        f"{name} has no effect here" for name in ("quality", "style", "background", "moderation")
    ]


def test_its_bad_request_names_the_field(stock: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        stock.images.generate(prompt="a boat", n=11)
    assert (refused.value.param, refused.value.code) == ("n", "invalid_value")
    assert "n is 11; it must be from 1 to 10" in str(refused.value)


def test_it_learns_that_a_field_is_unknown(stock: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        stock.images.generate(prompt="a boat", extra_body={"step": 3})
    assert refused.value.param == "step"


def test_it_learns_that_a_model_is_unknown(stock: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        stock.images.generate(prompt="a boat", model="gpt-image-1")
    assert (refused.value.param, refused.value.code) == ("model", "model_not_found")


def test_it_retrieves_the_model(stock: openai.OpenAI) -> None:
    assert stock.models.retrieve("fake").id == "fake"
    with pytest.raises(openai.NotFoundError) as refused:
        stock.models.retrieve("black-forest-labs/FLUX.1-dev")
    assert (refused.value.param, refused.value.code) == ("model", "model_not_found")


def test_it_learns_that_the_key_is_wrong(engine: EngineThread) -> None:
    with engine.serve(api_key="right") as http:
        with connect(http, "right") as stock:
            assert [model.id for model in stock.models.list()] == ["fake"]
        with connect(http, "wrong") as stock, pytest.raises(openai.AuthenticationError) as refused:
            stock.images.generate(prompt="a boat")
    assert refused.value.code == "invalid_api_key"


def test_it_learns_that_the_queue_is_full(
    slow_engine: EngineThread, slow_client: EngineClient
) -> None:
    with (
        slow_engine.serve(max_queue=10) as http,
        connect(http) as stock,
        long_request(http, slow_client),
        pytest.raises(openai.RateLimitError) as refused,
    ):
        stock.images.generate(prompt="a boat")
    assert refused.value.code == "queue_full"
    assert int(refused.value.response.headers["Retry-After"]) >= 1
