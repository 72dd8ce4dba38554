"""Chairlift: a server for diffusion models, batched at every denoising step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chairlift.errors import ChairliftError, ModelError, RequestError
from chairlift.request import GenerationRequest

if TYPE_CHECKING:
    from chairlift.engine.engine import Engine, GeneratedImage

__version__ = "0.1.0"

__all__ = [
    "ChairliftError",
    "Engine",
    "GeneratedImage",
    "GenerationRequest",
    "ModelError",
    "RequestError",
]


def __getattr__(name: str) -> Any:
    # The engine brings torch; the server's front end must not.
    if name in ("Engine", "GeneratedImage"):
        from chairlift.engine import engine

        return getattr(engine, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
