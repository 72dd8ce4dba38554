"""Where a model comes from: the bundled folder, a local folder or a hub id.

Everything here is checked before any weights are read, and without torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
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
    if model is None:
        return inspect_folder(BUNDLED_FOLDER, BUNDLED_NAME)
    folder = Path(model).expanduser()
    if folder.is_dir():
        return inspect_folder(folder, folder.resolve().name)
    if folder.exists() or not _HUB_ID.fullmatch(model):
        raise ModelError(f"model {model!r} is neither a folder nor a hub id (owner/name)")
    return inspect_folder(_download(model), model)


def inspect_folder(folder: Path, name: str) -> ModelSource:
    """Check that the folder has an index, and every component that the index names.

    Raises:
        ModelError: It says which file is missing or broken.
    """
    index = _read_json(folder / "model_index.json", name)
    pipeline = index.get("_class_name")
    if not isinstance(pipeline, str):
        raise ModelError(f"{name}: model_index.json names no pipeline (_class_name)")
    for component, entry in index.items():
        if component.startswith("_") or not isinstance(entry, list) or entry[0] is None:
            continue
        if component not in ("safety_checker", "feature_extractor", "image_encoder"):
            _check_component(folder / component, name)
    return ModelSource(
        name=name, folder=folder, pipeline=pipeline, settings=_read_settings(folder, name)
    )


def _check_component(component: Path, name: str) -> None:
    if not component.is_dir():
        raise ModelError(f"{name}: the folder {component.name} is missing")
    if (component / "config.json").exists():
        _read_json(component / "config.json", name)
        if not any(component.glob("*.safetensors")):
            pickled = any(component.glob("*.bin")) or any(component.glob("*.ckpt"))
            why = "; pickled weights are not loaded" if pickled else ""
            raise ModelError(f"{name}: {component.name} has no safetensors weights{why}")
    elif not any(component.iterdir()):
        raise ModelError(f"{name}: the folder {component.name} is empty")
    elif component.name != "scheduler" and not component.name.startswith("tokenizer"):
        raise ModelError(f"{name}: {component.name}/config.json is missing")


def _read_settings(folder: Path, name: str) -> Mapping[str, Any]:
    path = folder / "chairlift.json"
    if not path.exists():
        return {}
    settings = _read_json(path, name)
    for key, value in settings.items():
        if key not in _SETTINGS:
            raise ModelError(f"{name}: chairlift.json has an unknown setting {key!r}")
        if not isinstance(value, _SETTINGS[key]):
            raise ModelError(f"{name}: chairlift.json: {key} is {value!r}, which has a wrong type")
    return settings


def _read_json(path: Path, name: str) -> dict[str, Any]:
    where = path.relative_to(path.parent.parent) if path.parent.name != path.stem else path.name
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{name}: {where} is missing") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: {where} can't be read: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{name}: {where} is not a JSON object")
    return value


def _download(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=_DOWNLOAD))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{model} can't be downloaded: {reason}") from None
