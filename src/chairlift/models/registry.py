"""Which adapter serves which pipeline class, and how a model is loaded."""

from __future__ import annotations

from typing import Protocol

import torch
from safetensors import SafetensorError

from chairlift.errors import ConfigurationError, ModelError
from chairlift.models.adapter import Adapter
from chairlift.models.fake import FakeModel
from chairlift.models.source import FAKE_NAME, ModelSource, Progress, find_model
from chairlift.models.stable_diffusion import StableDiffusion


class Loader(Protocol):
    """An adapter's class."""

    def load(
        self, source: ModelSource, device: torch.device, dtype: torch.dtype, progress: Progress
    ) -> Adapter: ...


ADAPTERS: dict[str, Loader] = {"StableDiffusionPipeline": StableDiffusion}
"""By ``_class_name`` of ``model_index.json``."""

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
    if model == FAKE_NAME:
        return FakeModel()
    source = find_model(model)
    if source.pipeline not in ADAPTERS:
        raise ModelError(
            f"{source.name}: {source.pipeline} is not served; supported are {', '.join(ADAPTERS)}"
        )
    chosen_device = choose_device(device)
    chosen_dtype = choose_dtype(dtype, chosen_device)
    try:
        return ADAPTERS[source.pipeline].load(source, chosen_device, chosen_dtype, progress)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{source.name} can't be loaded: {reason}") from error


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
