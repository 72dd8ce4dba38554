"""A checkpoint that is incomplete or broken is refused in one line that says what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from chairlift.errors import ConfigurationError, ModelError
from chairlift.models.fake import FakeModel
from chairlift.models.registry import load_model
from chairlift.models.source import find_local_model, is_hub_id
from tests.builders import save_tiny_stable_diffusion

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def good_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_stable_diffusion(tmp_path_factory.mktemp("good") / "tiny", steps_offset=1)


@pytest.fixture
def folder(good_folder: Path, tmp_path: Path) -> Path:
    """One to damage."""
    return Path(shutil.copytree(good_folder, tmp_path / "tiny"))


def write(file: str, content: Any) -> Damage:
    """Replace a file; what isn't text is written as JSON."""
    text = content if isinstance(content, str) else json.dumps(content)
    return lambda folder: (folder / file).write_text(text)


def change(file: str, **values: Any) -> Damage:
    """Change values of a JSON file; None takes one out."""

    def damage(folder: Path) -> None:
        old = json.loads((folder / file).read_text()) | values
        new = {name: value for name, value in old.items() if value is not None}
        (folder / file).write_text(json.dumps(new))

    return damage


def remove(name: str) -> Damage:
    def damage(folder: Path) -> None:
        [path] = folder.glob(name)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def resize_weights(component: str, size: int) -> Damage:
    """Cut a component's weights to so many bytes; a negative size cuts off the end."""

    def damage(folder: Path) -> None:
        [weights] = (folder / component).glob("*.safetensors")
        weights.write_bytes(weights.read_bytes()[:size])

    return damage


def without_a_tensor(folder: Path) -> None:
    [weights] = (folder / "unet").glob("*.safetensors")
    tensors = load_file(weights)
    del tensors["conv_in.weight"]
    save_file(tensors, weights)


def both(*damages: Damage) -> Damage:
    return lambda folder: [damage(folder) for damage in damages]


DAMAGES: dict[str, tuple[Damage, str]] = {
    "no index": (remove("model_index.json"), "model_index.json is missing"),
    "index of nothing": (write("model_index.json", {}), "model_index.json names no pipeline"),
    "index is a list": (write("model_index.json", []), "model_index.json is not a JSON object"),
    "index too deep": (write("model_index.json", "[" * 100_000), "model_index.json can't be read"),
    "index not text": (write("model_index.json", "\x00"), "model_index.json can't be read"),
    "unknown family": (
        change("model_index.json", _class_name="MagicPipeline"),
        "MagicPipeline is not served; supported are StableDiffusionPipeline",
    ),
    "no component": (remove("vae"), "the folder vae is missing"),
    "component not named": (
        both(remove("vae"), change("model_index.json", vae=None)),
        "the folder vae is missing",
    ),
    "component of nothing": (
        both(remove("vae"), change("model_index.json", vae=[])),
        "the folder vae is missing",
    ),
    "no config": (remove("unet/config.json"), "unet/config.json is missing"),
    "broken config": (write("unet/config.json", "{"), "unet/config.json can't be read"),
    "wrong config": (
        change("text_encoder/config.json", hidden_size="large"),
        "text_encoder can't be loaded: .*hidden_size",
    ),
    "config of another": (
        change("unet/config.json", block_out_channels=[16, 32]),
        "unet can't be loaded: .*shape",
    ),
    "no scheduler": (
        remove("scheduler/scheduler_config.json"),
        "scheduler/scheduler_config.json is missing",
    ),
    "broken scheduler": (
        write("scheduler/scheduler_config.json", "nope"),
        "scheduler/scheduler_config.json can't be read",
    ),
    "no weights": (remove("unet/*.safetensors"), "unet has no safetensors weights$"),
    "pickled weights": (
        both(remove("unet/*.safetensors"), write("unet/diffusion_pytorch_model.bin", "")),
        "unet has no safetensors weights; pickled weights are not loaded",
    ),
    "truncated weights": (resize_weights("unet", -1000), "unet can't be loaded: .*safetensors"),
    "truncated header": (resize_weights("text_encoder", 100), "text_encoder can't be loaded: "),
    "empty weights": (resize_weights("vae", 0), "vae can't be loaded: .*safetensors"),
    "missing tensor": (without_a_tensor, "unet can't be loaded: "),
    "unknown setting": (
        write("chairlift.json", {"speed": 1}),
        "chairlift.json has an unknown setting 'speed'",
    ),
    "setting of a wrong type": (
        write("chairlift.json", {"steps": "many"}),
        "chairlift.json: steps is 'many', which has a wrong type",
    ),
    "setting out of bounds": (
        write("chairlift.json", {"steps": -5}),
        "the default num_inference_steps is -5; it must be from 1 to 200",
    ),
    "unknown sampler": (
        write("chairlift.json", {"sampler": "magic"}),
        "the default sampler is 'magic'; it must be one of euler",
    ),
}


@pytest.mark.filterwarnings("ignore")  # what diffusers says about it is not ours
@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_wrong_is_said_in_one_line(folder: Path, name: str) -> None:
    damage, expected = DAMAGES[name]
    damage(folder)
    with pytest.raises(ModelError, match=f"^tiny: {expected}") as refused:
        load_model(str(folder), device="cpu")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


def test_no_vocabulary_is_not_an_empty_one(folder: Path) -> None:
    for file in (folder / "tokenizer").iterdir():
        file.unlink()
    with pytest.raises(ModelError, match=r"^tiny: tokenizer has none of tokenizer\.json, "):
        load_model(str(folder), device="cpu")


def test_the_settings_of_a_folder_are_its_defaults(folder: Path) -> None:
    settings = {"steps": 7, "guidance_scale": 2, "sampler": "ddim", "max_pixels": 128 * 128}
    (folder / "chairlift.json").write_text(json.dumps(settings))
    card = load_model(str(folder), device="cpu").card
    defaults = card.defaults
    assert (defaults.steps, defaults.guidance_scale, defaults.sampler) == (7, 2, "ddim")
    assert card.limits.max_pixels == 128 * 128


def test_a_folder_is_told_from_a_hub_id(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    (folder.parent / "owner" / "name").mkdir(parents=True)
    assert not is_hub_id("owner/name")  # a folder of that name is here
    assert is_hub_id("owner/other")
    assert not is_hub_id("tiny")
    assert find_local_model("tiny").name == "tiny"
    assert find_local_model("./tiny/../tiny").name == "tiny"


@pytest.mark.parametrize("model", ["fake", None])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"device": "tpu"}, r"device is 'tpu'; it must be auto, cpu or cuda\[:i\]"),
        ({"device": "mps"}, r"device is 'mps'; it must be auto, cpu or cuda\[:i\]"),
        ({"device": "cuda:99"}, r"device is 'cuda:99'; this machine has \d CUDA devices"),
        (
            {"dtype": "int3"},
            "dtype is 'int3'; it must be auto or one of float32, bfloat16, float16",
        ),
    ],
    ids=str,
)
def test_bad_options_are_refused_whatever_the_model(
    model: str | None, options: dict[str, str], expected: str
) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        load_model(model, **options)


def test_the_fake_needs_no_folder() -> None:
    assert isinstance(load_model("fake"), FakeModel)
