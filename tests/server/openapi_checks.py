"""What Schemathesis is told beside the description; it loads this file by ``schemathesis.toml``."""

from __future__ import annotations

from typing import Any

import schemathesis

MODELS_OWN = {
    "cfg_normalization",
    "cfg_truncation",
    "guidance_rescale",
    "guidance_scale",
    "loras",
    "model",
    "num_inference_steps",
    "preview_every",
    "sampler",
    "size",
    "true_cfg_scale",
}
"""The fields whose bounds are the served model's, and stand in ``/v1/models``."""
ENTANGLED = {
    "partial_images",  # needs a stream, or that preview_every is missing
    "seed",  # its bound depends on n
    "stream",  # not of a job
    "after",  # must be the id of a job
}
"""The fields whose bounds depend on something else."""


@schemathesis.hook
def before_call(
    context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]
) -> None:
    """In scenarios, which begin with a new job, leave out what may be refused."""
    if case.meta.phase.name == "stateful" and isinstance(case.body, dict):
        case.headers.pop("Idempotency-Key", None)
        for name in MODELS_OWN | ENTANGLED:
            case.body.pop(name, None)


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
