"""Diffusers' attention backends: which code computes a transformer's attention."""

from __future__ import annotations

from typing import Any

from diffusers.models.attention_dispatch import AttentionBackendName
from diffusers.utils import logging as diffusers_logging

from chairlift.errors import ConfigurationError

DOWNLOADED = "_hub"
"""How the names of those backends end whose code is fetched from a hub when they are chosen."""
NAMES = tuple(backend.value for backend in AttentionBackendName if DOWNLOADED not in backend.value)


def choose_attention(network: Any, name: str) -> None:
    """Let a network compute its attention by the backend of that name.

    Raises:
        ConfigurationError: There is no such backend, its code would be downloaded, this network
            takes none, or what it needs isn't installed.
    """
    if name.endswith(DOWNLOADED):
        raise ConfigurationError(
            f"attention_backend is {name!r}, whose code would be downloaded and run"
        )
    if name not in NAMES:
        raise ConfigurationError(
            f"attention_backend is {name!r}; it must be one of {', '.join(NAMES)}"
        )
    kind = type(network).__name__
    if not any(
        hasattr(getattr(module, "processor", None), "_attention_backend")
        for module in network.modules()
    ):
        raise ConfigurationError(
            f"attention_backend is {name!r}; the attention of {kind} takes no backend"
        )
    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()  # It warns that this is experimental.
    try:
        network.set_attention_backend(name)
    except (RuntimeError, ValueError, ImportError) as error:
        raise ConfigurationError(f"attention_backend is {name!r}: {error}") from None
    finally:
        diffusers_logging.set_verbosity(verbosity)
