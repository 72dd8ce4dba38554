"""``Idempotency-Key``: a request that is repeated, because its answer got lost, isn't done again.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from fastapi import Header

from chairlift.errors import InvalidRequest
from chairlift.server.schema import ImageGenerationBody

MAX_KEY_CHARACTERS = 255

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Of one's own choice, for a request that may be repeated.",
        json_schema_extra={"maxLength": MAX_KEY_CHARACTERS, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    ),
]
"""The header, as routes take it."""


def check_key(key: str | None) -> str | None:
    """The key, if it is one.

    Raises:
        InvalidRequest: It is empty, too long, or has characters that can't be seen.
    """
    if key is None:
        return None
    if not (0 < len(key) <= MAX_KEY_CHARACTERS and key.isascii() and key.isprintable()):
        raise InvalidRequest(
            f"Idempotency-Key has {len(key)} characters; it must have from 1 to "
            f"{MAX_KEY_CHARACTERS}, of printable ASCII",
            param="Idempotency-Key",
        )
    return key


def body_digest(body: ImageGenerationBody) -> bytes:
    """Equal for bodies that ask for the same; whether they want a stream doesn't matter."""
    # Not by pydantic, which can't write lone surrogates; they are refused later, and by name.
    # A field that isn't there doesn't count, so that a later version may know more of them.
    given = body.model_dump(exclude={"stream"}, exclude_none=True)
    text = json.dumps(given, sort_keys=True)
    return hashlib.sha256(text.encode()).digest()
