"""What Schemathesis is told beside the description; it loads this file by ``schemathesis.toml``."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import jsonschema_rs
import schemathesis

from chairlift.server.schema import ImageGenerationBody

MODELS_OWN = {
    "cfg_normalization",
    "cfg_truncation",
    "guidance_rescale",
    "guidance_scale",
    "guidance_scale_2",
    "loras",
    "model",
    "num_frames",
    "num_inference_steps",
    "output_format",
    "preview_every",
    "sampler",
    "size",
    "true_cfg_scale",
}
"""The fields whose bounds are the served model's, and stand in ``/v1/models``."""
ENTANGLED = {
    "partial_images",  # needs a stream if it isn't for a job, and no preview_every
    "seed",  # its bound depends on n
    "stream",  # not for a job
    "after",  # the id of a job
}
"""The fields whose bounds depend on something else."""
KEY = re.compile("[!-~]{1,255}")
"""An ``Idempotency-Key``, which may have come with another body before."""


@schemathesis.hook
def before_call(
    context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]
) -> None:
    """Leave out what may be refused though it keeps to the description, so that it hides neither
    what must be refused nor what comes after an accepted job. The fuzzing sends it.
    """
    if case.meta.phase.name == "fuzzing" or not isinstance(case.body, dict):
        return
    if KEY.fullmatch(case.headers.get("Idempotency-Key", "")):
        del case.headers["Idempotency-Key"]
    useful = {"partial_images"} if case.path == "/v1/jobs" else {"stream"}
    if case.body.get("output_format") != "mp4":
        useful.add("output_format")
    for name in (MODELS_OWN | ENTANGLED) - useful:
        if name in case.body and _is_described(name, case.body[name]):
            del case.body[name]


def _is_described(name: str, value: object) -> bool:
    return _validator(name).is_valid(value)


@cache
def _validator(name: str) -> jsonschema_rs.Validator:
    schema = ImageGenerationBody.model_json_schema()
    field = schema["properties"].get(name, False)
    return jsonschema_rs.validator_for({"allOf": [field], "$defs": schema["$defs"]})


@schemathesis.check
def only_what_cannot_be_described_is_refused(
    context: schemathesis.CheckContext, answer: schemathesis.Response, case: schemathesis.Case
) -> None:
    """A request that keeps to the description is refused only for a bound that isn't in it."""
    if answer.status_code == 400 and case.meta.generation.mode.is_positive:
        error = answer.json()["error"]
        # JSON Schema calls 1.0 an integer, the server doesn't.
        is_whole = isinstance(case.body, dict) and isinstance(case.body.get(error["param"]), float)
        assert is_whole or error["param"] in MODELS_OWN | ENTANGLED, error


@schemathesis.check
def every_code_is_described(
    context: schemathesis.CheckContext, answer: schemathesis.Response, case: schemathesis.Case
) -> None:
    """The description of an error names its code."""
    described = case.operation.definition.raw["responses"].get(str(answer.status_code))
    if described and answer.status_code >= 400:
        error = answer.json()["error"]
        # Of a path that isn't any route's, such as one with a slash in an id.
        assert error["code"] == "not_found" or f"`{error['code']}`" in described["description"]
