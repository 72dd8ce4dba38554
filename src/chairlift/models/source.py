"""Where a model comes from: the bundled folder, a local folder or a hub id.

Everything here is checked before any weights are read, and without torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chairlift.errors import ModelError

Progress = Callable[[str, int, int], None]
"""Called with the name of the part that is being loaded, its number, and how many there are."""

BUNDLED_NAME = "chairlift-postcards"
BUNDLED_FOLDER = Path(__file__).parent / "bundled"
FAKE_NAME = "fake"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_DOWNLOAD = ["*.json", "*.safetensors", "*.txt", "*.model"]
_NOT_LOADED = ("safety_checker", "feature_extractor", "image_encoder")
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
_SETTINGS: dict[str, type | tuple[type, ...]] = {
    "steps": int,
    "guidance_scale": (int, float),
    "sampler": str,
    "max_pixels": int,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """A checkpoint folder that has been looked at."""

    name: str
    folder: Path
    pipeline: str
    """``_class_name`` of ``model_index.json``."""
    settings: Mapping[str, Any]
    """The defaults that ``chairlift.json`` in the folder sets, where there is one: ``steps``,
    ``guidance_scale``, ``sampler``, ``max_pixels``."""


def find_model(model: str | None) -> ModelSource:
    """The folder of a model; a hub id is downloaded.

    Args:
        model: A folder in diffusers format or a hub id; None is the bundled model.

    Raises:
        ModelError: There is no such model, or its folder is broken.
    """
    if model is not None and is_hub_id(model):
        return inspect_folder(_download(model), model)
    return find_local_model(model)


def find_local_model(model: str | None) -> ModelSource:
    """The folder of a model that is on this machine.

    Raises:
        ModelError: There is no such folder, or it is broken.
    """
    if model is None:
        return inspect_folder(BUNDLED_FOLDER, BUNDLED_NAME)
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise ModelError(f"model {model!r} is neither a folder nor a hub id (owner/name)")
    return inspect_folder(folder, folder.resolve().name)


def is_hub_id(model: str) -> bool:
    """Whether this is to be looked for on the hub: nothing here has that name."""
    return bool(_HUB_ID.fullmatch(model)) and not Path(model).expanduser().exists()


def inspect_folder(folder: Path, name: str) -> ModelSource:
    """Check that the folder has an index, and every component that the index names.

    Raises:
        ModelError: It says which file is missing or broken.
    """
    index = _read_json(folder, "model_index.json", name)
    pipeline = index.get("_class_name")
    if not isinstance(pipeline, str):
        raise ModelError(f"{name}: model_index.json names no pipeline (_class_name)")
    for component, entry in index.items():
        is_there = isinstance(entry, list) and entry[:1] not in ([], [None])
        if is_there and not component.startswith("_") and component not in _NOT_LOADED:
            _check_component(folder / component, name)
    return ModelSource(
        name=name, folder=folder, pipeline=pipeline, settings=_read_settings(folder, name)
    )


def require_components(source: ModelSource, components: Sequence[str]) -> None:
    """Check what a family needs, whether or not the index names it.

    Raises:
        ModelError: It says which file is missing or broken.
    """
    for component in components:
        _check_component(source.folder / component, source.name)


def _check_component(component: Path, name: str) -> None:
    if not component.is_dir():
        raise ModelError(f"{name}: the folder {component.name} is missing")
    if component.name == "scheduler":
        _read_json(component.parent, "scheduler/scheduler_config.json", name)
    elif component.name.startswith("tokenizer"):
        if not any((component / file).exists() for file in _VOCABULARIES):
            raise ModelError(f"{name}: {component.name} has none of {', '.join(_VOCABULARIES)}")
    else:
        _read_json(component.parent, f"{component.name}/config.json", name)
        if not any(component.glob("*.safetensors")):
            pickled = any(component.glob("*.bin")) or any(component.glob("*.ckpt"))
            why = "; pickled weights are not loaded" if pickled else ""
            raise ModelError(f"{name}: {component.name} has no safetensors weights{why}")


def _read_settings(folder: Path, name: str) -> Mapping[str, Any]:
    if not (folder / "chairlift.json").exists():
        return {}
    settings = _read_json(folder, "chairlift.json", name)
    for key, value in settings.items():
        if key not in _SETTINGS:
            raise ModelError(f"{name}: chairlift.json has an unknown setting {key!r}")
        if not isinstance(value, _SETTINGS[key]):
            raise ModelError(f"{name}: chairlift.json: {key} is {value!r}, which has a wrong type")
    return settings


def _read_json(folder: Path, file: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads((folder / file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{name}: {file} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{name}: {file} can't be read: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{name}: {file} is not a JSON object")
    return value


def _download(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=_DOWNLOAD))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{model} can't be downloaded: {reason}") from None
