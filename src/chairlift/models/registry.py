"""Which adapter serves which pipeline class, and how a model is loaded."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import torch
import transformers

from chairlift.errors import ConfigurationError, InvalidRequest, ModelError
from chairlift.models.adapter import Adapter
from chairlift.models.checkpoint import load_checkpoint
from chairlift.models.fake import FakeModel
from chairlift.models.family import Family
from chairlift.models.lora import LoraFile
from chairlift.models.source import (
    LoadFormat,
    ModelSource,
    Progress,
    find_model,
    is_fake,
    require_components,
)
from chairlift.validation import create_request

FAMILIES = {
    "StableDiffusionPipeline": "stable_diffusion.StableDiffusion",
    "StableDiffusionXLPipeline": "sdxl.StableDiffusionXL",
    "StableDiffusion3Pipeline": "sd3.StableDiffusion3",
    "FluxPipeline": "flux.Flux",
    "QwenImagePipeline": "qwen_image.QwenImage",
    "ZImagePipeline": "z_image.ZImage",
    "WanPipeline": "wan.Wan",
}
"""By ``_class_name`` of ``model_index.json``: module and class. Only the one that is needed is
imported, since their networks take seconds to import.
"""

MAX_REASON = 300
"""Characters of an error of the libraries that are repeated."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    model: str | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    load_format: str = "auto",
    loras: Sequence[LoraFile] = (),
    offload_text_encoders: bool = False,
    preview_decoder: Path | None = None,
    attention_backend: str | None = None,
    compile_rows: int | None = None,
    progress: Progress = lambda part, done, total: None,
) -> Adapter:
    """Load a model.

    Args:
        model: A folder in diffusers format, a hub id (``owner/name`` or ``owner/name@revision``),
            ``fake``, or None for the bundled model.
        device: ``auto``, ``cpu`` or ``cuda[:i]``.
        dtype: ``auto`` (float32 on a CPU, bfloat16 on CUDA) or a name of :data:`DTYPES`.
        load_format: ``auto``, or ``dummy`` for random weights of full size; see
            :class:`~chairlift.models.source.LoadFormat`.
        loras: LoRAs that requests may name.
        offload_text_encoders: Text encoders rest in main memory between prompts.
        preview_decoder: Folder of an ``AutoencoderTiny`` that makes the previews.
        attention_backend: Of diffusers' backends the one that computes a transformer's attention;
            None is torch's own.
        compile_rows: Compile the denoiser, and make its forwards of up to so many rows of the
            default size before the first request needs them, on this thread, which has to be the
            one that runs it; None leaves it as it is.
        progress: Told what is being loaded.

    Raises:
        ModelError: The model is missing, broken or of a family that isn't served.
        ConfigurationError: There is no such device, type or format.
    """
    chosen_device = choose_device(device)
    chosen_dtype = choose_dtype(dtype, chosen_device)
    if model is not None and is_fake(model):
        if loras:
            raise ConfigurationError("the fake model has no LoRAs")
        if preview_decoder is not None:
            raise ConfigurationError("the fake model has no preview decoder")
        if attention_backend is not None:
            raise ConfigurationError("the fake model has no attention")
        if compile_rows is not None:
            raise ConfigurationError("the fake model has nothing to compile")
        return FakeModel.named(model)
    source = find_model(model, choose_load_format(load_format))
    family = find_family(source)
    require_components(source, ["scheduler", *(family.classes.keys() - family.optional)])
    family.require_packages()
    with _explained(source, progress) as note:
        adapter = family(
            load_checkpoint(
                source, family.classes, chosen_device, chosen_dtype, note, offload_text_encoders
            )
        )
        note("LoRAs", 0, 0)
        adapter.add_loras(loras)
    try:
        defaults = create_request(adapter.card, id="defaults", prompt="")
        adapter.schedule(defaults)
    except InvalidRequest as error:
        raise ModelError(f"{source.name}: the default {error}") from None
    except ModelError as error:
        raise ModelError(f"{source.name}: {error}") from None
    with _explained(source, progress) as note:
        note("the preview decoder", 0, 0)
        adapter.load_previewer(adapter.batch_key(defaults).latent_shape[0], preview_decoder)
        if attention_backend is not None:
            adapter.set_attention_backend(attention_backend)
        if compile_rows is not None:
            note("the compiled denoiser", 0, 0)
            adapter.compile()
            adapter.warm_up(compile_rows, note)
    return adapter


def find_family(source: ModelSource) -> type[Family]:
    """The class that serves a checkpoint.

    Raises:
        ModelError: There is none; the message names the pipelines that are served.
    """
    if source.pipeline not in FAMILIES:
        raise ModelError(
            f"{source.name}: {source.pipeline} is not served; supported are {', '.join(FAMILIES)}"
        )
    module, name = FAMILIES[source.pipeline].split(".")
    family: type[Family] = getattr(import_module(f"chairlift.models.{module}"), name)
    return family


@contextmanager
def _explained(source: ModelSource, progress: Progress) -> Iterator[Progress]:
    """Whatever diffusers and transformers raise becomes one line that names the component."""
    loading = "the model"

    def note(part: str, done: int, total: int) -> None:
        nonlocal loading
        loading = part
        if total:
            progress(part, done, total)

    try:
        yield note
    except ConfigurationError:
        raise
    except Exception as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", MAX_REASON, placeholder=" …")
        raise ModelError(f"{source.name}: {loading} can't be loaded: {reason}") from error


def choose_load_format(name: str) -> LoadFormat:
    """The format of that name."""
    try:
        return LoadFormat(name)
    except ValueError:
        raise ConfigurationError(
            f"load_format is {name!r}; it must be one of {', '.join(x.value for x in LoadFormat)}"
        ) from None


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
