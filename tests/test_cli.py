"""The command line as its user sees it: exit codes, single lines, files."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import chairlift
from chairlift.scheduling.costs import Costs
from tests.builders import save_tiny_stable_diffusion
from tests.running import PATIENCE_SECONDS

COMMAND = [sys.executable, "-m", "chairlift"]
PLAIN = {"NO_COLOR": "1", "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env=os.environ | PLAIN,
    )


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a failed command says, apart from what it has loaded."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("loading ")]
    [line] = lines
    return line


# ---------------------------------------------------------------------- a model that is broken


@pytest.fixture(scope="module")
def good_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_stable_diffusion(tmp_path_factory.mktemp("good") / "tiny", steps_offset=1)


def without_index(folder: Path) -> None:
    (folder / "model_index.json").unlink()


def with_broken_index(folder: Path) -> None:
    (folder / "model_index.json").write_text('{"_class_name": ')


def of_an_unknown_family(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "MagicPipeline"}))


def without_vae(folder: Path) -> None:
    shutil.rmtree(folder / "vae")


def with_pickled_weights(folder: Path) -> None:
    [weights] = (folder / "unet").glob("*.safetensors")
    weights.rename(weights.with_suffix(".bin"))


def with_truncated_weights(folder: Path) -> None:
    [weights] = (folder / "unet").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (without_index, "tiny: model_index.json is missing"),
        (with_broken_index, "tiny: model_index.json can't be read: Expecting value"),
        (of_an_unknown_family, "tiny: MagicPipeline is not served; supported are StableDiff"),
        (without_vae, "tiny: the folder vae is missing"),
        (
            with_pickled_weights,
            "tiny: unet has no safetensors weights; pickled weights are not loaded",
        ),
        (with_truncated_weights, "tiny: unet can't be loaded: "),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_broken_model_is_one_line(
    good_folder: Path, tmp_path: Path, damage: Callable[[Path], None], expected: str
) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(good_folder, folder)
    damage(folder)
    line = complaint(run("serve", str(folder), "--port", "0", "--device", "cpu"))
    assert line.startswith(f"chairlift: {expected}")


@pytest.mark.parametrize("model", ["nothing", "a/b/c", "[/red]", __file__])
def test_a_missing_model_is_one_line(model: str) -> None:
    line = complaint(run("serve", model))
    assert line == f"chairlift: model {model!r} is neither a folder nor a hub id (owner/name)"


# ---------------------------------------------------------------------- options


def test_a_port_in_use_is_one_line_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "fake", "--port", str(port))
    assert complaint(done).startswith(f"chairlift: can't listen on 127.0.0.1 port {port}: ")
    assert "loading" not in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "bound"),
    [
        ("--batching", "nonsense", "'continuous', 'dynamic', 'off'"),
        ("--dtype", "int3", "'auto', 'float32', 'bfloat16', 'float16'"),
        ("--device", "tpu", "'tpu' is not auto, cpu or cuda[:i]"),
        ("--max-batch-size", "0", "'0' is neither a whole number from 1 on nor auto"),
        ("--max-batch-size", "many", "'many' is neither a whole number from 1 on nor auto"),
        ("--batch-delay-ms", "-1", "-1.0 is not 0 or more"),
        ("--batch-delay-ms", "nan", "nan is not 0 or more"),
        ("--max-queue", "0", "Input should be greater than or equal to 1"),
        ("--port", "http", "Input should be a valid integer"),
        ("--api-key", "", "the key is empty"),
        ("--magic", "1", "No such option"),
    ],
)
def test_a_bad_option_is_a_usage_error(option: str, value: str, bound: str) -> None:
    done = run("serve", "fake", option, value)
    assert done.returncode == 2
    assert option in done.stderr
    assert bound in done.stderr
    assert "Traceback" not in done.stderr


def test_version() -> None:
    done = run("version")
    assert (done.returncode, done.stdout.strip()) == (0, chairlift.__version__)


# ---------------------------------------------------------------------- generate


def test_generate_writes_pictures_and_overwrites_none(tmp_path: Path) -> None:
    folder = tmp_path / "my [red] pictures"
    folder.mkdir()
    (folder / "chairlift-0001.webp").write_text("mine")
    settings = ["--model", "fake", "-o", str(folder), "--output-format", "webp"]
    settings += ["-n", "2", "--seed", "5", "--steps", "3", "--width", "96", "--height", "64"]
    done = run("generate", "a boat", "a cabin", *settings)
    assert done.returncode == 0, done.stderr
    names = ["chairlift-0000.webp", "chairlift-0002.webp", "chairlift-0003.webp"]
    names += ["chairlift-0004.webp"]
    seeds = [5, 6, 5, 6]
    assert done.stdout.splitlines() == [
        f"{folder / name}  seed {seed}" for name, seed in zip(names, seeds, strict=True)
    ]
    assert re.fullmatch(r"4 in \d+\.\d\d s\n", done.stderr)
    assert {path.name for path in folder.iterdir()} == {*names, "chairlift-0001.webp"}
    assert (folder / "chairlift-0001.webp").read_text() == "mine"
    pictures = [Image.open(folder / name) for name in names]
    assert {(picture.format, picture.size) for picture in pictures} == {("WEBP", (96, 64))}
    assert len({picture.tobytes() for picture in pictures}) == 4


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["--steps", "0"], "num_inference_steps is 0; it must be from 1 to 200"),
        (["-o", __file__], f"the folder {__file__} can't be made: File exists"),
    ],
    ids=["setting", "folder"],
)
def test_what_generate_can_not_do_is_one_line(
    tmp_path: Path, settings: list[str], expected: str
) -> None:
    done = run("generate", "a boat", "--model", "fake", "-o", str(tmp_path), *settings)
    assert complaint(done) == f"chairlift: {expected}"
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- profile


def test_profile_writes_a_cost_table_that_serve_takes(tmp_path: Path) -> None:
    table, plot = tmp_path / "cost.json", tmp_path / "cost.png"
    measure = ["--size", "64x64", "--size", "32x64", "--rows", "1,2", "--repeats", "1"]
    done = run("profile", "fake", *measure, "-o", str(table), "--plot", str(plot))
    assert done.returncode == 0, done.stderr
    written = json.loads(table.read_text())
    assert (written["counts"], written["row_entries"]) == ("forward_rows", 2)
    shapes = written["shapes"]
    assert [(shape["width"], shape["height"]) for shape in shapes] == [(64, 64), (32, 64)]
    assert list(shapes[0]["step_seconds"]) == ["1", "2", "4"]
    with Image.open(plot) as picture:
        assert picture.size[0] > 300
    assert "64x64: the knee is" in done.stderr
    Costs(json.loads(table.read_text()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "1,two"], "is not a list of whole numbers from 1 on"),
        (["--size", "33x33"], "each side must be a multiple of 8, the nearest is 32x32"),
    ],
)
def test_a_wrong_profile_is_refused(arguments: list[str], message: str) -> None:
    done = run("profile", "fake", *arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", "magic"], "policy is 'magic'; it must be one of balanced"),
        (["--costs", "/nowhere.json"], "the cost table /nowhere.json can't be read"),
        (["--lora", "sketch"], "'sketch' is not NAME=PATH"),
        (["--workers", "0"], "'0' is neither a whole number from 1 on nor auto"),
        (["--workers", "2", "--device", "cuda:1"], "--device is cuda:1, which is one device"),
    ],
)
def test_a_wrong_option_of_serve_is_refused(arguments: list[str], message: str) -> None:
    done = run("serve", "fake", "--port", "0", *arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())
