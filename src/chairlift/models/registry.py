"""Which adapter serves which pipeline class, and how a model is loaded."""

from __future__ import annotations

import textwrap
from typing import Protocol

import torch
import transformers

from chairlift.errors import ConfigurationError, InvalidRequest, ModelError
from chairlift.models.adapter import Adapter
from chairlift.models.fake import FakeModel
from chairlift.models.source import (
    FAKE_NAME,
    ModelSource,
    Progress,
    find_model,
    require_components,
)
from chairlift.models.stable_diffusion import COMPONENTS, StableDiffusion
from chairlift.request import create_request


class Loader(Protocol):
    """An adapter's class."""

    def load(
        self, source: ModelSource, device: torch.device, dtype: torch.dtype, progress: Progress
    ) -> Adapter: ...


ADAPTERS: dict[str, Loader] = {"StableDiffusionPipeline": StableDiffusion}
"""By ``_class_name`` of ``model_index.json``."""

REQUIRED = {"StableDiffusionPipeline": COMPONENTS}
"""The component folders that a pipeline can't do without."""

MAX_REASON = 300
"""Characters of an error of the libraries that are repeated."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    model: str | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    progress: Progress = lambda part, done, total: None,
) -> Adapter:
    """Load a model.

    Args:
        model: A folder in diffusers format, a hub id, ``fake``, or None for the bundled model.
        device: ``auto``, ``cpu`` or ``cuda[:i]``.
        dtype: ``auto`` (float32 on a CPU, bfloat16 on CUDA) or a name of :data:`DTYPES`.
        progress: Told what is being loaded.

    Raises:
        ModelError: The model is missing, broken or of a family that isn't served.
        ConfigurationError: There is no such device or type.
    """
    chosen_device = choose_device(device)
    chosen_dtype = choose_dtype(dtype, chosen_device)
    if model == FAKE_NAME:
        return FakeModel()
    source = find_model(model)
    if source.pipeline not in ADAPTERS:
        raise ModelError(
            f"{source.name}: {source.pipeline} is not served; supported are {', '.join(ADAPTERS)}"
        )
    require_components(source, REQUIRED[source.pipeline])
    adapter = _load(source, chosen_device, chosen_dtype, progress)
    try:
        create_request(adapter.card, id="defaults", prompt="")
    except InvalidRequest as error:
        raise ModelError(f"{source.name}: the default {error}") from None
    return adapter


def _load(
    source: ModelSource, device: torch.device, dtype: torch.dtype, progress: Progress
) -> Adapter:
    loading = "the model"

    def note(part: str, done: int, total: int) -> None:
        nonlocal loading
        loading = part
        progress(part, done, total)

    try:
        return ADAPTERS[source.pipeline].load(source, device, dtype, note)
    except ModelError:
        raise
    except Exception as error:  # whatever diffusers and transformers make of a broken file
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", MAX_REASON, placeholder=" …")
        raise ModelError(f"{source.name}: {loading} can't be loaded: {reason}") from error


def hide_progress_bars() -> None:
    """Turn off the bars of the libraries in this process, for a program that shows its own."""
    transformers.utils.logging.disable_progress_bar()


def choose_device(name: str) -> torch.device:
    """The device of that name; ``auto`` takes the first CUDA device where there is one."""
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigurationError(f"device is {name!r}; it must be auto, cpu or cuda[:i]") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"device is {name!r}; this machine has {torch.cuda.device_count()} CUDA devices"
        )
    if device.type not in ("cpu", "cuda"):
        raise ConfigurationError(f"device is {name!r}; it must be auto, cpu or cuda[:i]")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The type of that name; ``auto`` is what the device computes well in."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in DTYPES:
        raise ConfigurationError(
            f"dtype is {name!r}; it must be auto or one of {', '.join(DTYPES)}"
        )
    return DTYPES[name]
