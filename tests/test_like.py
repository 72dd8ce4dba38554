"""``chairlift generate --like``: the same picture again, and precise words where that can't be."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from chairlift.card import Guidance
from chairlift.cli import app
from chairlift.cli.like import MAX_FILE_BYTES, LikePicture
from chairlift.errors import ConfigurationError
from chairlift.metadata import embed
from tests.builders import create_card, save_tiny_stable_diffusion
from tests.models.loras import save_lora

PLAIN = "a boat\nSteps: 3, Sampler: Euler, CFG scale: 3, Seed: 5, Size: 64x64, Model: fake"


def generate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["generate", *map(str, arguments)], env={"COLUMNS": "200"})


def made(folder: Path, *arguments: str | Path) -> Path:
    """The one picture that a command makes."""
    done = generate(*arguments, "-o", folder)
    assert done.exit_code == 0, (done.output, done.exception)
    [picture] = folder.iterdir()
    return picture


def a_file(path: Path, text: str | None = PLAIN) -> Path:
    """A picture by another tool."""
    Image.new("RGB", (8, 8)).save(path, **({} if text is None else embed(text, "png")))
    return path


# ---------------------------------------------------------------------- again


@pytest.mark.parametrize(
    ("output_format", "settings"),
    [
        ("png", ["--sampler", "euler_ancestral", "--steps", "7"]),
        ("jpeg", ["--width", "96", "--height", "160", "--steps", "5", "--guidance-scale", "3.3"]),
        ("webp", ["--negative-prompt", "a cabin\nat night, ", "--seed", "9223372036854775807"]),
    ],
)
def test_a_picture_is_made_again_to_the_byte(
    tmp_path: Path, output_format: str, settings: list[str]
) -> None:
    prompt = "a yellow boat in the middle\nNegative prompt: 猫 "
    first = made(tmp_path / "first", prompt, *settings, "--output-format", output_format)
    again = made(tmp_path / "again", "--like", first)
    assert again.suffix == f".{output_format}"
    assert again.read_bytes() == first.read_bytes()


def test_one_of_several_is_made_again_by_its_own_seed(tmp_path: Path) -> None:
    generate("a boat", "--model", "fake", "-n", "3", "--seed", "5", "-o", tmp_path / "first")
    first = tmp_path / "first" / "chairlift-0002.png"
    again = made(tmp_path / "again", "--like", first, "--model", "fake")
    assert again.read_bytes() == first.read_bytes()
    assert LikePicture.read(again).settings.seed == 7


def test_what_is_given_overrides_the_picture(tmp_path: Path) -> None:
    like = a_file(tmp_path / "like.png", f"{PLAIN}, Quality: 70")
    changes = ["--steps", "4", "--output-format", "webp", "--negative-prompt", "fog"]
    options = [*changes, "--model", "fake"]
    picture = LikePicture.read(made(tmp_path / "o", "a cabin", "--like", like, *options))
    assert (picture.output_format, picture.settings.prompt) == ("webp", "a cabin")
    assert (picture.settings.negative_prompt, picture.settings.steps) == ("fog", 4)
    assert (picture.settings.seed, picture.settings.output_compression) == (5, 70)


def test_without_metadata_a_picture_says_nothing(tmp_path: Path) -> None:
    options = ["a boat", "--seed", "5", "--model", "fake"]
    carrying = made(tmp_path / "carrying", *options)
    bare = made(tmp_path / "bare", *options, "--no-metadata")
    with Image.open(carrying) as one, Image.open(bare) as other:
        assert list(one.info) == ["parameters"]
        assert not other.info
        assert one.tobytes() == other.tobytes()


# ---------------------------------------------------------------------- what can't be


def test_a_prompt_or_a_picture_is_needed() -> None:
    done = generate("--model", "fake")
    assert done.exit_code == 2
    assert "Missing argument 'PROMPT…'." in done.output


def bomb(path: Path) -> Path:
    """A text of 100 MB that was compressed to 100 KB."""
    body = b"zTXtparameters\0\0" + zlib.compress(b"x" * 100_000_000)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    data = a_file(path, None).read_bytes()
    after_the_header = 33
    path.write_bytes(data[:after_the_header] + chunk + data[after_the_header:])
    return path


def sparse(path: Path) -> Path:
    path.touch()
    with path.open("r+b") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    return path


def text_file(path: Path) -> Path:
    path.write_text("a boat")
    return path


def gif(path: Path) -> Path:
    Image.new("RGB", (8, 8)).save(path, format="gif")
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path, "can't be read: No such file or directory"),
        (folder, "can't be read: Is a directory"),
        (text_file, "is not a PNG, JPEG or WebP picture"),
        (gif, "is not a PNG, JPEG or WebP picture"),
        (sparse, f"has {MAX_FILE_BYTES + 1} bytes; at most {MAX_FILE_BYTES} are looked through"),
        (bomb, "can't be read: Decompressed data too large for PngImagePlugin.MAX_TEXT_CHUNK"),
        (lambda path: a_file(path, None), "has no settings in it"),
        (lambda path: a_file(path, "a boat"), "its text has no line of settings (Steps: 20, …)"),
        (lambda path: a_file(path, "Steps: x"), "Steps is 'x'; it must be a whole number"),
        (
            lambda path: a_file(path, "x" * 1_000_001),
            "its text has 1000001 characters; at most 1000000 are read",
        ),
    ],
)
def test_a_picture_that_can_not_be_used_is_one_line(
    tmp_path: Path, make: Callable[[Path], Path], reason: str
) -> None:
    path = make(tmp_path / "like.png")
    done = generate("--like", path, "-o", tmp_path / "o")
    assert isinstance(done.exception, ConfigurationError)
    assert str(done.exception) in (f"{path} {reason}", f"{path}: {reason}")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ("Steps: 3, Sampler: LCM", "sampler is 'LCM'; it must be one of euler"),
        ("Steps: 0", "num_inference_steps is 0; it must be from 1 to 200"),
        ("Steps: 3, Size: 100x100", "size is 100x100; each side must be a multiple of 8"),
        ("Steps: 3, CFG truncation: 0.5", "cfg_truncation is 0.5; fake doesn't take it"),
    ],
)
def test_a_setting_that_the_model_does_not_know_is_refused(
    tmp_path: Path, settings: str, reason: str
) -> None:
    done = generate("--like", a_file(tmp_path / "like.png", settings), "--model", "fake")
    assert str(done.exception).startswith(reason)


def test_a_picture_s_loras_are_asked_for_and_not_looked_for(tmp_path: Path) -> None:
    path = a_file(
        tmp_path / "like.png", f"{PLAIN}, Lora 1: my sketch.safetensors, Lora 1 scale: 0.8"
    )
    done = generate("--like", path, "--model", "fake")
    assert str(done.exception) == (
        f"{path} was made with LoRAs, and a picture's files are not looked for; say where they "
        "are: --lora 'my sketch.safetensors=0.8'"
    )


def test_a_picture_with_a_lora_is_made_again_when_its_file_is_named(tmp_path: Path) -> None:
    model = save_tiny_stable_diffusion(tmp_path / "model")
    lora = save_lora(model, tmp_path / "my, lora=1", seed=1)
    settings = ["--steps", "2", "--model", model]
    first = made(tmp_path / "first", "a boat", *settings, "--lora", f"{lora}=0.7")
    elsewhere = lora.rename(tmp_path / lora.name)
    plain = made(
        tmp_path / "plain", "a boat", "--like", first, *settings, "--lora", f"{elsewhere}=0"
    )
    again = made(tmp_path / "again", "--like", first, *settings, "--lora", f"{elsewhere}=0.7")
    assert again.read_bytes() == first.read_bytes()
    assert plain.read_bytes() != first.read_bytes()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("sketch.safetensors", "sketch"),
        ("loras/v1.5.safetensors", "/loras/v1.5.safetensors"),
        ("other.safetensors", "other.safetensors"),
    ],
)
def test_a_lora_keeps_its_name_where_its_file_is_called_so(
    tmp_path: Path, path: str, name: str
) -> None:
    text = f"{PLAIN}, Lora 1: sketch, Lora 2: /loras/v1.5.safetensors"
    picture = LikePicture.read(a_file(tmp_path / "like.png", text))
    assert picture.lora_names([path]) == {path: name}


def test_another_model_and_settings_of_other_tools_are_warnings(tmp_path: Path) -> None:
    text = PLAIN.replace("Model: fake", "Model: v1-5, Clip skip: 2, Hires upscale: 2")
    path = a_file(tmp_path / "like.png", text)
    done = generate("--like", path, "--model", "fake", "-o", tmp_path / "o")
    assert done.exit_code == 0
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert warnings == [
        f"warning: {path} was made by 'v1-5'; this is 'fake'",
        "warning: settings that mean nothing here: Clip skip, Hires upscale",
    ]


def test_an_embedded_guidance_scale_means_nothing_to_others(tmp_path: Path) -> None:
    path = a_file(tmp_path / "like.png", f"{PLAIN}, Distilled CFG Scale: 3.5")
    picture, card = LikePicture.read(path), create_card()
    assert picture.warnings(card) == ["settings that mean nothing here: Distilled CFG Scale"]
    embedded = replace(card, guidance=Guidance(cfg_field="true_cfg_scale", embedded=True))
    assert picture.warnings(embedded) == []
    arguments = picture.arguments(embedded)
    assert (arguments["guidance_scale"], arguments["true_cfg_scale"]) == (3.5, 3.0)
