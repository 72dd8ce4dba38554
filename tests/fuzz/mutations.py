"""Bytes that were once right, and how many of them are tried."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis.strategies import (
    SearchStrategy,
    binary,
    builds,
    floats,
    lists,
    sampled_from,
    tuples,
)

EXAMPLES = int(os.environ.get("CHAIRLIFT_FUZZ_EXAMPLES", "0"))
"""How many each test tries; 0 is few, as the suite does."""

_EDITS = ("flip", "insert", "replace", "delete", "repeat", "cut")


def tried(few: int) -> settings:
    """Settings for a test that tries ``few`` examples in the suite."""
    return settings(
        max_examples=EXAMPLES or few,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


def mutated(originals: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    """Such bytes, with some small changes."""
    edit = tuples(sampled_from(_EDITS), floats(0, 1), binary(min_size=1, max_size=8))
    return builds(_mutate, originals, lists(edit, min_size=1, max_size=6))


def _mutate(content: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    for kind, place, junk in edits:
        at = int(place * len(content))
        before, after = content[:at], content[at:]
        match kind:
            case "flip":
                after = (
                    bytes(old ^ new for old, new in zip(after, junk, strict=False))
                    + (after[len(junk) :])
                )
            case "insert":
                after = junk + after
            case "replace":
                after = junk + after[len(junk) :]
            case "delete":
                after = after[len(junk) :]
            case "repeat":
                after = after[: len(junk)] * junk[0] + after
            case "cut":
                after = b""
        content = before + after
    return content
