"""Wan: lone requests equal the stock pipeline, and rows in company those alone, with one expert,
with two, and as TI2V-5B. What is compared are the frames before they become a video file.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from diffusers import DiffusionPipeline, WanPipeline
from PIL import Image

from chairlift.engine.decoder import Pixels
from chairlift.engine.messages import Cancel, Submit
from chairlift.engine.runner import Runner
from chairlift.errors import ConfigurationError, InvalidRequest, ModelError
from chairlift.models.adapter import Adapter, Conditioning
from chairlift.models.checkpoint import load_checkpoint
from chairlift.models.lora import LoraFile
from chairlift.models.registry import load_model
from chairlift.models.source import LoadFormat, find_model
from chairlift.models.wan import Wan
from chairlift.request import GenerationRequest, LoraUse
from chairlift.sampling.schedule import flow_scheduler
from chairlift.scheduling.plan import Plan
from chairlift.validation import create_request
from tests.builders import file_pixels
from tests.company import (
    compare_with_alone,
    create_loop,
    psnr,
    random_requests,
    run_alone,
    run_company,
)
from tests.models.exactness import (
    check_alone,
    check_bfloat16,
    check_company,
    load_stock,
    run_together,
    stock_pixels,
    stock_settings,
)
from tests.models.loras import trained
from tests.tiny.wan import save_tiny_wan

VARIANTS: dict[str, dict[str, Any]] = {
    "2.1": {},
    "2.2 A14B": {"experts": 2},
    "2.2 TI2V-5B": {"expand_timesteps": True},
}
SETTINGS: dict[str, Any] = {
    "prompt": "a red boat",
    "seed": 7,
    "width": 64,
    "height": 64,
    "frames": 5,
}
LONG = "a boat on a lake, a tent, a very long description " * 5
SIZES = [(64, 64), (96, 32)]


@pytest.fixture(scope="module", autouse=True)
def frames_are_compared() -> Iterator[None]:
    """A lossless picture, each frame below the one before, in the place of the video file."""

    def encode_frames(pixels: Pixels, request: GenerationRequest, settings: str | None) -> bytes:
        assert pixels.shape == (request.frames, request.height, request.width, 3)
        buffer = BytesIO()
        Image.fromarray(pixels.reshape(-1, *pixels.shape[2:])).save(buffer, format="png")
        return buffer.getvalue()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chairlift.engine.loop.encode_file", encode_frames)
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    path = tmp_path_factory.mktemp("wan")
    return {name: save_tiny_wan(path / name, **VARIANTS[name]) for name in VARIANTS}


@pytest.fixture(scope="module")
def adapters(folders: dict[str, Path]) -> dict[str, Adapter]:
    return {name: load_model(str(folder), device="cpu") for name, folder in folders.items()}


@pytest.fixture(scope="module")
def pipelines(folders: dict[str, Path]) -> dict[str, DiffusionPipeline]:
    return {name: load_stock(folder) for name, folder in folders.items()}


def translate(settings: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the stock pipeline."""
    ours = {name: value for name, value in settings.items() if name not in ("loras", "sampler")}
    return {
        "num_frames" if name == "frames" else name: value
        for name, value in stock_settings(ours).items()
    }


def edit(path: Path, **values: Any) -> None:
    """Change values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# ---------------------------------------------------------------------- alone


@pytest.mark.parametrize(("width", "height", "frames"), [(64, 64, 5), (96, 32, 9), (32, 64, 1)])
@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
@pytest.mark.parametrize("steps", [1, 4, 20])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_lone_request_equals_the_stock_pipeline(
    adapters: dict[str, Adapter],
    pipelines: dict[str, DiffusionPipeline],
    name: str,
    steps: int,
    guidance_scale: float,
    width: int,
    height: int,
    frames: int,
) -> None:
    settings = SETTINGS | {"width": width, "height": height, "frames": frames}
    settings |= {"steps": steps, "guidance_scale": guidance_scale, "negative_prompt": "dull"}
    check_alone(adapters[name], pipelines[name], settings, translate)


@pytest.mark.parametrize("sampler", ["unipc", "euler", "dpmpp_2m"])
def test_a_sampler_goes_on_where_the_expert_changes(
    adapters: dict[str, Adapter], folders: dict[str, Path], sampler: str
) -> None:
    pipeline = load_stock(folders["2.2 A14B"])
    pipeline.scheduler = flow_scheduler(sampler, pipeline.scheduler.config)
    settings = SETTINGS | {"steps": 8, "guidance_scale": 4.0, "sampler": sampler}
    check_alone(adapters["2.2 A14B"], pipeline, settings, translate)


@pytest.mark.parametrize("negative_prompt", [None, "", LONG])
@pytest.mark.parametrize(
    "prompt", ["", LONG, "x " * 2000, "🚠 ⛷️", "  a &lt;boat&gt; \n\t &amp;amp; a tent "]
)
def test_any_text_is_a_prompt(
    adapters: dict[str, Adapter],
    pipelines: dict[str, DiffusionPipeline],
    prompt: str,
    negative_prompt: str | None,
) -> None:
    settings = SETTINGS | {"prompt": prompt, "negative_prompt": negative_prompt, "frames": 1}
    settings |= {"steps": 2, "guidance_scale": 4.0}
    check_alone(adapters["2.1"], pipelines["2.1"], settings, translate)


def test_every_setting_matters(adapters: dict[str, Adapter]) -> None:
    base = SETTINGS | {"steps": 4, "guidance_scale": 4.0}
    others: list[dict[str, Any]] = [
        {},
        {"prompt": "a blue boat"},
        {"negative_prompt": "dull"},
        {"guidance_scale": 1.0},
        {"guidance_scale_2": 1.0},
        {"guidance_scale_2": 2.0},
        {"seed": 8},
        {"steps": 5},
        {"sampler": "euler"},
    ]
    card = adapters["2.2 A14B"].card
    videos = [
        run_alone(adapters["2.2 A14B"], create_request(card, id="x", **(base | other)))
        for other in others
    ]
    assert len(set(videos)) == len(others)


# ---------------------------------------------------------------------- two experts


@pytest.mark.parametrize("guidance_scale_2", [None, 1.0, 1.5, 8.0])
@pytest.mark.parametrize("guidance_scale", [0.5, 1.0, 4.0])
def test_each_expert_has_its_own_guidance_as_in_the_stock_pipeline(
    adapters: dict[str, Adapter],
    pipelines: dict[str, DiffusionPipeline],
    guidance_scale: float,
    guidance_scale_2: float | None,
) -> None:
    scales = {"guidance_scale": guidance_scale, "guidance_scale_2": guidance_scale_2}
    settings = SETTINGS | scales | {"steps": 6, "frames": 1}
    check_alone(adapters["2.2 A14B"], pipelines["2.2 A14B"], settings, translate)


@pytest.mark.parametrize("steps", [1, 2, 7, 20])
@pytest.mark.parametrize("sampler", ["unipc", "euler", "dpmpp_2m"])
def test_an_expert_evaluates_as_often_as_in_the_stock_pipeline(
    adapters: dict[str, Adapter], folders: dict[str, Path], sampler: str, steps: int
) -> None:
    pipeline = load_stock(folders["2.2 A14B"])
    pipeline.scheduler = flow_scheduler(sampler, pipeline.scheduler.config)
    calls = {"transformer": 0, "transformer_2": 0}

    def count(name: str) -> None:
        calls[name] += 1

    for name in calls:
        getattr(pipeline, name).register_forward_hook(lambda *_, name=name: count(name))
    settings = SETTINGS | {"steps": steps, "guidance_scale": 1.0, "frames": 1, "sampler": sampler}
    pipeline(**translate(settings), output_type="latent")
    request = create_request(adapters["2.2 A14B"].card, id="x", **settings)
    legs = adapters["2.2 A14B"].legs(request, adapters["2.2 A14B"].schedule(request))
    assert {leg.key.model: leg.evaluations for leg in legs} == {
        name: number for name, number in calls.items() if number
    }
    assert [leg.key.model for leg in legs] == sorted(leg.key.model for leg in legs)


# Timesteps of four steps are 999, 900, 750 and 500, and with Euler 1000, 857.69232178, 602 and 9:
# the boundary of 857.69233 is the same number in float32.
@pytest.mark.parametrize(
    ("sampler", "boundary_ratio", "high"),
    [
        ("unipc", 0.9, 2),
        ("unipc", 0.901, 1),
        ("euler", 0.85769233, 2),
        ("euler", 0.8578, 1),
        ("euler", 1.0, 1),
        ("unipc", 1.0, 0),
        ("unipc", 0.0, 4),
    ],
)
def test_the_boundary_itself_is_high_noise(
    folders: dict[str, Path], tmp_path: Path, sampler: str, boundary_ratio: float, high: int
) -> None:
    folder = Path(shutil.copytree(folders["2.2 A14B"], tmp_path / "tiny"))
    edit(folder / "model_index.json", boundary_ratio=boundary_ratio)
    adapter, pipeline = load_model(str(folder), device="cpu"), load_stock(folder)
    settings = SETTINGS | {"steps": 4, "guidance_scale": 4.0, "frames": 1, "sampler": sampler}
    request = create_request(adapter.card, id="x", **settings)
    legs = adapter.legs(request, adapter.schedule(request))
    counts = {leg.key.model: leg.evaluations for leg in legs}
    assert (counts.get("transformer", 0), counts.get("transformer_2", 0)) == (high, 4 - high)
    pipeline.scheduler = flow_scheduler(sampler, pipeline.scheduler.config)
    check_alone(adapter, pipeline, settings, translate)


@pytest.mark.parametrize(
    ("missing", "boundary_ratio"),
    [("transformer", 1.0), ("transformer_2", None), ("transformer_2", 0.0)],
)
def test_one_of_the_experts_may_be_missing(
    folders: dict[str, Path], tmp_path: Path, missing: str, boundary_ratio: float | None
) -> None:
    folder = Path(shutil.copytree(folders["2.2 A14B"], tmp_path / "tiny"))
    edit(folder / "model_index.json", boundary_ratio=boundary_ratio, **{missing: [None, None]})
    shutil.rmtree(folder / missing)
    adapter = load_model(str(folder), device="cpu")
    assert missing not in {component.name for component in adapter.card.components}
    settings = SETTINGS | {"steps": 4, "guidance_scale": 4.0}
    check_alone(adapter, load_stock(folder), settings, translate)


@pytest.mark.parametrize(
    ("missing", "boundary_ratio", "message"),
    [
        (["transformer"], 0.875, "there is no transformer, and boundary_ratio is 0.875"),
        (["transformer"], None, "there is no transformer, and boundary_ratio is None"),
        (["transformer_2"], 0.875, "there is no transformer_2, and boundary_ratio is 0.875"),
        (
            ["transformer", "transformer_2"],
            1.0,
            "there is no transformer, and boundary_ratio is 1.0",
        ),
    ],
)
def test_an_expert_that_is_needed_is_missed(
    folders: dict[str, Path],
    tmp_path: Path,
    missing: list[str],
    boundary_ratio: float | None,
    message: str,
) -> None:
    folder = Path(shutil.copytree(folders["2.2 A14B"], tmp_path / "tiny"))
    gone = {name: [None, None] for name in missing}
    edit(folder / "model_index.json", boundary_ratio=boundary_ratio, **gone)
    with pytest.raises(ModelError, match=f"^tiny: {message}"):
        load_model(str(folder), device="cpu")


# ---------------------------------------------------------------------- in company


@pytest.mark.parametrize("name", VARIANTS)
def test_neighbours_do_not_matter(
    adapters: dict[str, Adapter], name: str, record_property: Any
) -> None:
    options = {"guidance_scale_2": [None, 1.0, 2.0, 6.0]} if name == "2.2 A14B" else {}
    count, identical = check_company(
        adapters[name],
        [(64, 32), (64, 32), (32, 64)],
        count=45 if options else 30,
        steps=[1, 2, 5, 12],
        frames=[1, 5, 5],
        guidance_scale=[0.0, 1.0, 3.0, 7.5],
        prompt=["a red boat", "", "two cabins", "🚠", LONG, "x " * 2000],
        **options,
    )
    record_property("pictures", count)
    record_property("identical", identical)


@pytest.mark.parametrize("batching", ["dynamic", "off"])
def test_rows_change_experts_in_request_level_batches_too(
    adapters: dict[str, Adapter], batching: str
) -> None:
    adapter, rng = adapters["2.2 A14B"], random.Random(1)
    requests = random_requests(
        adapter, rng, 15, [(64, 32)], steps=[5, 12], frames=[1], guidance_scale=[1.0, 3.0]
    )
    outcome = run_company(adapter, requests, rng, batching)
    assert compare_with_alone(adapter, requests, outcome)[0] >= 15


def test_a_row_that_is_cancelled_between_two_experts_leaves_nothing_behind(
    adapters: dict[str, Adapter],
) -> None:
    adapter = adapters["2.2 A14B"]
    loop, outcome = create_loop(adapter, "continuous", max_batch_size=2)
    request = create_request(adapter.card, id="x", **(SETTINGS | {"steps": 5}))
    high, _ = adapter.legs(request, adapter.schedule(request))
    loop.send(Submit(request=request))
    for _ in range(high.evaluations):  # The first turn only reads the request.
        loop.turn()
    loop.send(Cancel(request_id="x"))
    loop.turn()  # Its last evaluation by the first expert, and then the message is read.
    assert outcome.failed == {"x": "cancelled"}
    assert not loop._runner._changing
    assert not loop._runner._groups
    assert loop._scheduler.snapshot().waiting == 0


@pytest.mark.parametrize("name", VARIANTS)
def test_in_bfloat16_company_costs_no_more_than_in_the_stock_pipeline(
    folders: dict[str, Path], name: str, record_property: Any
) -> None:
    batch = [
        SETTINGS | {"prompt": prompt, "seed": seed, "steps": 8, "guidance_scale": 4.0}
        for seed, prompt in enumerate(["", "a boat", "a boat on a lake", LONG])
    ]
    ours, stock = check_bfloat16(folders[name], batch, translate)
    record_property("PSNR", f"{ours:.1f} dB together against alone, stock {stock:.1f} dB")


def test_a_lone_request_in_bfloat16_is_the_stock_pipelines(folders: dict[str, Path]) -> None:
    folder = folders["2.2 A14B"]
    adapter = load_model(str(folder), device="cpu", dtype="bfloat16")
    settings = SETTINGS | {"steps": 4, "guidance_scale": 4.0}
    video = file_pixels(run_alone(adapter, create_request(adapter.card, id="x", **settings)))
    expected = stock_pixels(load_stock(folder, torch.bfloat16), settings, translate)
    assert psnr(video, expected) > 30
    # What a denoiser in bfloat16 can't see anyway: noise isn't rounded.
    noise = adapter.initial_noise((4, 8, 8), torch.Generator().manual_seed(7))
    assert torch.equal(noise, torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(7)))


def test_a_lora_changes_only_the_rows_that_use_it(folders: dict[str, Path], tmp_path: Path) -> None:
    torch.manual_seed(0)
    modules = ["attn1.to_q", "attn2.to_v", "ffn.net.2", "condition_embedder.time_proj"]
    layers = trained(load_stock(folders["2.1"]).transformer, modules)
    WanPipeline.save_lora_weights(tmp_path, transformer_lora_layers=layers)
    lora = LoraFile("sketch", tmp_path / "pytorch_lora_weights.safetensors")
    pipeline = load_stock(folders["2.1"])
    pipeline.load_lora_weights(lora.path)
    adapter = load_model(str(folders["2.1"]), device="cpu", loras=[lora])
    settings = SETTINGS | {"steps": 4, "guidance_scale": 3.0, "loras": [LoraUse("sketch")]}
    check_alone(adapter, pipeline, settings, translate)
    check_company(
        adapter,
        [(64, 32)],
        count=10,
        steps=[2, 5],
        frames=[5],
        guidance_scale=[1.0, 3.0],
        loras=[[], [LoraUse("sketch")], [LoraUse("sketch", -0.5)]],
    )


# ---------------------------------------------------------------------- limits and loading


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("2.1", {"width": 70, "height": 64}, "a multiple of 16, the nearest is 64x64"),
        ("2.2 TI2V-5B", {"width": 80, "height": 64}, "a multiple of 32, the nearest is 64x64"),
        ("2.1", {"frames": 6}, "1 more than a multiple of 4, the nearest is 5"),
        ("2.1", {"frames": 0}, "num_frames is 0; it must be from 1 to 161"),
        ("2.1", {"frames": 165}, "num_frames is 165; it must be from 1 to 161"),
        ("2.1", {"width": 1040, "height": 16}, "positions for sides of at most 1024"),
        ("2.1", {"width": 960, "height": 976}, "at most 921600 are allowed"),
        ("2.1", {"guidance_scale_2": 3.0}, "guidance_scale_2 is 3.0; 2.1 doesn't take it"),
        ("2.2 A14B", {"guidance_scale_2": 0.5}, "guidance_scale_2 is 0.5; it must be from 1.0"),
        ("2.1", {"output_format": "png"}, "output_format is 'png'; it must be one of mp4"),
    ],
)
def test_what_does_not_fit_is_refused(
    adapters: dict[str, Adapter], name: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        create_request(adapters[name].card, id="x", prompt="", **settings)


@pytest.mark.parametrize(
    ("width", "height", "frames"), [(1024, 16, 1), (16, 1024, 1), (16, 16, 161)]
)
def test_the_longest_sides_have_positions(
    adapters: dict[str, Adapter], width: int, height: int, frames: int
) -> None:
    settings = SETTINGS | {"width": width, "height": height, "frames": frames, "steps": 1}
    video = run_alone(adapters["2.1"], create_request(adapters["2.1"].card, id="x", **settings))
    assert file_pixels(video).shape == (frames * height, width, 3)


def test_the_defaults_are_those_of_the_checkpoint(adapters: dict[str, Adapter]) -> None:
    for name in ("2.1", "2.2 A14B"):
        request = create_request(adapters[name].card, id="x", prompt="")
        assert (request.width, request.height, request.frames) == (832, 480, 81)
        assert (request.steps, request.guidance_scale, request.sampler) == (50, 5.0, "unipc")
        assert (request.frames_per_second, request.output_format) == (16, "mp4")
    request = create_request(adapters["2.2 TI2V-5B"].card, id="x", prompt="")
    assert (request.width, request.height, request.frames) == (1280, 704, 121)
    assert request.frames_per_second == 24


def test_without_pyav_there_are_no_videos(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loading: list[str] = []
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigurationError, match=r"^videos need PyAV: pip install 'chairlift\[vid"):
        load_model(
            str(folders["2.1"]), device="cpu", progress=lambda part, *_: loading.append(part)
        )
    assert loading == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", VARIANTS)
def test_random_weights_run(
    folders: dict[str, Path], tmp_path: Path, name: str, dtype: str
) -> None:
    folder = Path(shutil.copytree(folders[name], tmp_path / "tiny"))
    edit(folder / "text_encoder" / "config.json", vocab_size=30_000)
    adapter = load_model(str(folder), device="cpu", dtype=dtype, load_format="dummy")
    requests = [
        create_request(adapter.card, id=prompt, **(SETTINGS | {"prompt": prompt, "steps": 3}))
        for prompt in ("a red boat", "")
    ]
    videos = run_together(adapter, requests)
    assert [file_pixels(video).shape for video in videos] == [(5 * 64, 64, 3)] * 2
    assert len(set(videos)) == 2


def test_a_size_that_the_stock_pipeline_refuses_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders["2.1"], tmp_path / "tiny"))
    edit(folder / "transformer" / "config.json", patch_size=[1, 1, 1], rope_max_seq_len=128)
    card = load_model(str(folder), device="cpu", load_format="dummy").card
    assert (card.limits.size_multiple, card.limits.max_side) == (16, 128 * 8)


def test_the_shipped_configs_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """At full size, on the meta device: shapes and types, no memory, and nothing that a forward
    would wait for on the host.
    """
    source = find_model("wan2.1-t2v-1.3b", LoadFormat.DUMMY)
    meta, classes = torch.device("meta"), Wan.classes
    adapter = Wan(
        load_checkpoint(source, classes, meta, torch.bfloat16, lambda *_: None, offload=False)
    )
    # Whether all of a text is padding can't be told without data.
    text = Conditioning({"text": torch.zeros(512, 4096, dtype=torch.bfloat16)})
    monkeypatch.setattr(adapter, "encode_texts", lambda texts: [text] * len(texts))
    limits = adapter.card.limits
    assert (limits.size_multiple, limits.frame_multiple, limits.max_frames) == (16, 4, 161)
    assert (limits.max_side, limits.max_pixels) == (1024 * 16, 1280 * 720)
    request = create_request(adapter.card, id="a", prompt="a boat", steps=1, frames=9)
    rows = request.row_ids
    [leg] = adapter.legs(request, adapter.schedule(request))
    plan = Plan(key=leg.key, joining=rows, running=rows, finishing=frozenset(rows))
    result = Runner(adapter).run(plan, {"a": request})
    assert not result.failed
    assert adapter.decode(result.finished[rows[0]][None]).shape == (1, 9, 480, 832, 3)


def test_the_command_line_writes_a_video(folders: dict[str, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "chairlift", "generate", "a boat", "--output", str(tmp_path)]
    options = ["--model", str(folders["2.2 A14B"]), "--frames", "5", "--steps", "3"]
    subprocess.run(
        [*command, *options, "--width", "96", "--height", "32"],
        check=True,
        timeout=60,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    [path] = tmp_path.iterdir()
    assert path.suffix == ".mp4"
    with av.open(path) as container:
        [stream] = container.streams
        assert (stream.codec_context.name, stream.average_rate) == ("h264", 16)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert [frame.shape for frame in frames] == [(32, 96, 3)] * 5
    assert min(frame.std() for frame in frames) > 5
