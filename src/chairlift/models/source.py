"""Where a model comes from: the bundled folder, a local folder, a hub id, or only its configs.

Everything here is checked before any weights are read, and without torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from chairlift.errors import ModelError

Progress = Callable[[str, int, int], None]
"""Called with the name of the part that is being loaded, its number, and how many there are."""

BUNDLED_NAME = "chairlift-postcards"
BUNDLED_FOLDER = Path(__file__).parent / "bundled"
FAKE_NAME = "fake"
"""The model without weights; ``fake:0.02`` takes 0.02 seconds for a step, ``fake:0.02:0.001`` and
0.001 seconds for each entry of a forward on top of that."""

CONFIGS_FOLDER = Path(__file__).parent / "configs"
"""Folders of well-known checkpoints without weights, for :attr:`LoadFormat.DUMMY`."""

_HUB_ID = re.compile(r"(?P<repository>[A-Za-z0-9][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_DOWNLOAD = ["*.json", "*.safetensors", "*.txt", "*.model"]
_NOT_LOADED = ("safety_checker", "feature_extractor", "image_encoder")
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
_SETTINGS: dict[str, type | tuple[type, ...]] = {
    "width": int,
    "height": int,
    "frames": int,
    "frames_per_second": int,
    "steps": int,
    "guidance_scale": (int, float),
    "true_cfg_scale": (int, float),
    "sampler": str,
    "max_pixels": int,
}


class LoadFormat(Enum):
    """What a checkpoint folder must have."""

    AUTO = "auto"
    """Safetensors weights."""
    DUMMY = "dummy"
    """Configs only: the weights are random and the tokenizers stand-ins, so that speed and memory
    can be measured where no weights are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """A checkpoint folder that has been looked at."""

    name: str
    folder: Path
    pipeline: str
    """``_class_name`` of ``model_index.json``."""
    index: Mapping[str, Any]
    """``model_index.json``."""
    settings: Mapping[str, Any]
    """The defaults that ``chairlift.json`` in the folder sets, where there is one."""
    load_format: LoadFormat = LoadFormat.AUTO

    def has(self, component: str) -> bool:
        """Whether the index names a class for this component."""
        entry = self.index.get(component)
        return isinstance(entry, list) and entry[:1] not in ([], [None])


def find_model(model: str | None, load_format: LoadFormat = LoadFormat.AUTO) -> ModelSource:
    """The folder of a model; a hub id is downloaded.

    Args:
        model: A folder in diffusers format or a hub id (``owner/name`` or
            ``owner/name@revision``); None is the bundled model. With ``DUMMY``, also the name of
            one of the shipped configs.
        load_format: What the folder must have.

    Raises:
        ModelError: There is no such model, or its folder is broken.
    """
    if model is not None and is_hub_id(model):
        return inspect_folder(_download(model, load_format), model, load_format)
    return find_local_model(model, load_format)


def find_local_model(model: str | None, load_format: LoadFormat = LoadFormat.AUTO) -> ModelSource:
    """The folder of a model that is on this machine.

    Raises:
        ModelError: There is no such folder, or it is broken.
    """
    if model is None:
        return inspect_folder(BUNDLED_FOLDER, BUNDLED_NAME, load_format)
    folder = Path(model).expanduser()
    if not folder.is_dir() and load_format is LoadFormat.DUMMY and model in shipped_configs():
        return inspect_folder(CONFIGS_FOLDER / model, model, load_format)
    if not folder.is_dir():
        known = f", nor one of {', '.join(shipped_configs())}"
        raise ModelError(
            f"model {model!r} is neither a folder nor a hub id (owner/name)"
            + (known if load_format is LoadFormat.DUMMY else "")
        )
    return inspect_folder(folder, folder.resolve().name, load_format)


def shipped_configs() -> list[str]:
    """The names of the checkpoints whose configs are in the package."""
    return sorted(path.name for path in CONFIGS_FOLDER.iterdir() if path.is_dir())


def is_fake(model: str | None) -> bool:
    """Whether this names the model without weights."""
    return model is not None and model.partition(":")[0] == FAKE_NAME


def is_hub_id(model: str) -> bool:
    """Whether this is to be looked for on the hub: nothing here has that name."""
    return bool(_HUB_ID.fullmatch(model)) and not Path(model).expanduser().exists()


def inspect_folder(
    folder: Path, name: str, load_format: LoadFormat = LoadFormat.AUTO
) -> ModelSource:
    """Check that the folder has an index, and every component that the index names.

    Raises:
        ModelError: It says which file is missing or broken.
    """
    index = _read_json(folder, "model_index.json", name)
    pipeline = index.get("_class_name")
    if not isinstance(pipeline, str):
        raise ModelError(f"{name}: model_index.json names no pipeline (_class_name)")
    source = ModelSource(
        name=name,
        folder=folder,
        pipeline=pipeline,
        index=index,
        settings=_read_settings(folder, name),
        load_format=load_format,
    )
    for component in index:
        if source.has(component) and component not in _NOT_LOADED:
            _check_component(source, component)
    return source


def require_components(source: ModelSource, components: Sequence[str]) -> None:
    """Check what a family needs, whether or not the index names it.

    Raises:
        ModelError: It says which file is missing or broken.
    """
    for component in components:
        _check_component(source, component)


def read_config(source: ModelSource, file: str) -> dict[str, Any]:
    """A JSON object of the folder.

    Raises:
        ModelError: It is missing or broken.
    """
    return _read_json(source.folder, file, source.name)


def _check_component(source: ModelSource, component: str) -> None:
    folder, name = source.folder / component, source.name
    dummy = source.load_format is LoadFormat.DUMMY
    if not folder.is_dir():
        raise ModelError(f"{name}: the folder {component} is missing")
    if component == "scheduler":
        read_config(source, "scheduler/scheduler_config.json")
    elif component.startswith("tokenizer"):
        if not dummy and not any((folder / file).exists() for file in _VOCABULARIES):
            raise ModelError(f"{name}: {component} has none of {', '.join(_VOCABULARIES)}")
    else:
        read_config(source, f"{component}/config.json")
        if not dummy and not any(folder.glob("*.safetensors")):
            pickled = any(folder.glob("*.bin")) or any(folder.glob("*.ckpt"))
            why = "; pickled weights are not loaded" if pickled else ""
            raise ModelError(f"{name}: {component} has no safetensors weights{why}")


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


def _download(model: str, load_format: LoadFormat) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    id = _HUB_ID.fullmatch(model)
    assert id is not None
    files = ["*.json"] if load_format is LoadFormat.DUMMY else _DOWNLOAD
    try:
        return Path(
            snapshot_download(id["repository"], revision=id["revision"], allow_patterns=files)
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{model} can't be downloaded: {reason}") from None
