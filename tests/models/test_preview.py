"""Previews are small pictures that look like what the decoder would make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import save_file
from torch import Tensor

from chairlift.engine.runner import Runner
from chairlift.errors import ConfigurationError, ModelError
from chairlift.models.adapter import Adapter, ForwardBatch
from chairlift.models.preview import LatentPreview, Layer, Previewer
from chairlift.models.preview_decoder import TinyDecoder
from chairlift.models.preview_fit import PICTURES, LearnedPreview, PreviewFit
from chairlift.models.registry import load_model
from chairlift.scheduling.plan import Plan
from chairlift.validation import create_request
from tests.builders import save_tiny_stable_diffusion
from tests.tiny.flux import save_tiny_flux
from tests.tiny.qwen_image import save_tiny_qwen_image
from tests.tiny.sd3 import save_tiny_sd3
from tests.tiny.sdxl import save_tiny_sdxl
from tests.tiny.wan import save_tiny_wan
from tests.tiny.z_image import save_tiny_z_image

CPU = torch.device("cpu")
PROMPTS = [
    "a red cabin on the left at night, a moon, snowy mountains",
    "a blue boat in the middle by day, a sun, no mountains",
    "a yellow tent on the right at sunset, no sun or moon, green hills",
    "a white lighthouse on the left by day, no sun or moon, snowy mountains",
]
PICTURE_FAMILIES: dict[str, Callable[[Path], Path]] = {
    "stable diffusion": lambda folder: save_tiny_stable_diffusion(folder, steps_offset=1),
    "sdxl": save_tiny_sdxl,
    "sd3": save_tiny_sd3,
    "flux": save_tiny_flux,
    "qwen-image": save_tiny_qwen_image,
    "z-image": save_tiny_z_image,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_stable_diffusion(tmp_path_factory.mktemp("preview") / "tiny", steps_offset=1)


@pytest.fixture(scope="module")
def bundled() -> Adapter:
    return load_model(device="cpu")


def random_layer(inputs: int, outputs: int, side: int = 3) -> Layer:
    return torch.randn(outputs, inputs, side, side) / 10, torch.rand(outputs)


def run(adapter: Adapter, width: int, height: int, prompts: list[str], steps: int) -> list[Tensor]:
    """What is predicted at each step, ``(rows, …)``; the last are the final latents."""
    requests = {
        prompt: replace(
            create_request(
                adapter.card, id=prompt, prompt=prompt, width=width, height=height, steps=steps
            ),
            preview_steps=tuple(range(1, steps + 1)),
        )
        for prompt in prompts
    }
    rows = tuple(row for request in requests.values() for row in request.row_ids)
    key, runner = adapter.batch_key(requests[prompts[0]]), Runner(adapter)
    predicted = []
    for step in range(steps):
        joining = () if step else rows
        finishing = frozenset(rows) if step == steps - 1 else frozenset()
        plan = Plan(key=key, joining=joining, running=rows, finishing=finishing)
        previews = runner.run(plan, requests).previews
        predicted.append(torch.stack([previews[row] for row in rows]))
    return predicted


def previewer_of(adapter: Adapter) -> Previewer:
    assert adapter.previewer is not None
    return adapter.previewer


def mean_error(previews: Tensor, pixels: Tensor) -> float:
    """In 255ths, between the decodes and the previews enlarged to their size."""
    enlarged = F.interpolate(previews.movedim(-1, 1).float(), pixels.shape[1:3], mode="bicubic")
    return float((enlarged - pixels.movedim(-1, 1)).abs().mean())


def correlation(a: Tensor, b: Tensor) -> float:
    """Of two pictures' values, over all pixels and colours."""
    return float(torch.corrcoef(torch.stack([a.flatten().float(), b.flatten().float()]))[0, 1])


# ---------------------------------------------------------------------------- the layers


def test_pixels_lie_where_their_latents_lie() -> None:
    latents = torch.randn(2, 3, 4, 5)
    weight = torch.zeros(12, 3, 1, 1)
    for colour in range(3):
        weight[4 * colour : 4 * colour + 4, colour] = 0.1
    preview = LatentPreview([(weight, torch.full((12,), 0.5))]).render(latents)
    assert preview.dtype == torch.uint8
    expected = (255 * (0.1 * latents + 0.5)).round().clamp(0, 255).repeat_interleave(2, 2)
    assert torch.equal(preview, expected.repeat_interleave(2, 3).movedim(1, -1).to(torch.uint8))


def test_a_further_layer_sees_the_pixel_and_the_mean_of_the_picture() -> None:
    identity = torch.eye(3)[..., None, None]
    behind = torch.cat([identity, -identity], dim=1), torch.full((3,), 0.5)
    preview = LatentPreview([(identity, torch.zeros(3)), behind])
    latents = torch.randn(2, 3, 4, 5) / 4
    values = latents.relu()
    expected = values - values.mean((2, 3), keepdim=True) + 0.5
    torch.testing.assert_close(preview.colours(latents), expected.movedim(1, -1))


def test_a_saved_preview_renders_the_same(tmp_path: Path) -> None:
    layers = [random_layer(4, 8), random_layer(16, 12, side=1)]
    preview = LatentPreview(
        [(weight.half().float(), bias.half().float()) for weight, bias in layers]
    )
    preview.save(tmp_path / "preview.safetensors")
    loaded = LatentPreview.load(tmp_path / "preview.safetensors", 4, CPU)
    latents = torch.randn(2, 4, 6, 8)
    assert torch.equal(loaded.render(latents), preview.render(latents))
    assert loaded.render(latents).shape == (2, 12, 16, 3)


@pytest.mark.parametrize("shape", [(4, 8, 8), (1, 5, 8, 8), (1, 4, 2, 8, 8)])
def test_latents_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    preview = LatentPreview([random_layer(4, 12)])
    with pytest.raises(
        ValueError, match=r"latents have the shape .*; the preview is for \(rows, 4, "
    ):
        preview.render(torch.zeros(shape))


def test_rendering_reads_nothing_back_from_the_device(tmp_path: Path) -> None:
    """Tensors on the meta device have no values, so reading one raises."""
    preview = LatentPreview([random_layer(4, 8), random_layer(16, 12, side=1)])
    preview.layers = tuple((weight.to("meta"), bias.to("meta")) for weight, bias in preview.layers)
    network = AutoencoderTiny.from_pretrained(save_tiny_decoder(tmp_path / "taesd"))
    latents = torch.zeros(2, 4, 8, 6, device="meta")
    assert preview.render(latents).shape == (2, 16, 12, 3)
    assert TinyDecoder(network.to("meta")).render(latents).shape == (2, 16, 12, 3)


def tensors(layers: list[Layer]) -> dict[str, Tensor]:
    return {
        f"layers.{i}.{part}": tensor
        for i, layer in enumerate(layers)
        for part, tensor in zip(("weight", "bias"), layer, strict=True)
    }


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, r"has the tensors none; a preview has layers\.0\.weight"),
        ({"weight": torch.zeros(12, 4, 3, 3)}, r"has the tensors weight; a preview has"),
        (tensors([random_layer(16, 12)]), r"is for latents of 16 channels; the model's have 4"),
        (
            tensors([random_layer(4, 12, side=2)]),
            r"layers\.0\.weight has the shape \(12, 4, 2, 2\); it must be \(n, m, odd, odd\)",
        ),
        (
            tensors([random_layer(4, 8), random_layer(8, 12, side=1)]),
            r"layers\.1\.weight has the shape \(12, 8, 1, 1\); .* must be \(n, 16, 1, 1\)",
        ),
        (
            tensors([(torch.zeros(12, 4, 1, 1), torch.zeros(11))]),
            r"layers\.0\.bias has the shape \(11,\); it must be \(12,\)",
        ),
        (
            tensors([random_layer(4, 15)]),
            "the last layer has 15 outputs; it must be 3 times a square",
        ),
        (
            tensors([(torch.full((12, 4, 1, 1), torch.nan), torch.zeros(12))]),
            r"layers\.0 has numbers that are not finite",
        ),
        (None, "can't be read"),
    ],
)
def test_a_wrong_file_is_refused_precisely(
    content: dict[str, Tensor] | None, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "preview.safetensors"
    if content is None:
        path.write_bytes(b"nothing")
    else:
        save_file(content, path)
    with pytest.raises(ModelError, match=expected) as refused:
        LatentPreview.load(path, 4, CPU)
    assert str(path) in str(refused.value)


# ---------------------------------------------------------------------------- the fit


def linear_pictures(count: int) -> tuple[LatentPreview, Tensor, Tensor]:
    """A linear map, latents, and pixels of twice the preview's size that it makes of them."""
    torch.manual_seed(0)
    known = LatentPreview([(torch.randn(12, 4, 3, 3) * 0.02, torch.full((12,), 0.5))])
    latents = torch.randn(count, 4, 16, 12)
    pixels = known.render(latents).repeat_interleave(2, 1).repeat_interleave(2, 2)
    return known, latents, pixels


def test_the_fit_recovers_a_linear_map() -> None:
    known, latents, pixels = linear_pictures(10)
    fit = PreviewFit(channels=4, prior=0)
    for picture, colours in zip(latents, pixels, strict=True):
        fit.observe(picture, colours)
    [(weight, bias)] = fit.solve(CPU).layers
    [(known_weight, known_bias)] = known.layers
    # The pixels are rounded to 255ths.
    torch.testing.assert_close(weight, known_weight, atol=5e-4, rtol=0)
    torch.testing.assert_close(bias, known_bias, atol=5e-4, rtol=0)


def test_pictures_one_by_one_count_as_all_at_once() -> None:
    _, latents, pixels = linear_pictures(2)
    single, parts = PreviewFit(channels=4), PreviewFit(channels=4)
    positions = np.random.default_rng(0).permutation(16 * 12)
    single.observe(latents[0], pixels[0])
    for part in np.split(positions, 3):
        parts.observe(latents[0], pixels[0], part)
    single.observe(latents[1], pixels[1])
    parts.observe(latents[1], pixels[1])
    for ours, theirs in zip(single.solve(CPU).layers[0], parts.solve(CPU).layers[0], strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", [(33, 24, 3), (32, 48, 3), (32, 24, 4), (16, 12, 3)])
def test_pixels_that_dont_go_with_the_latents_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=r"of latents of 16x12 it must be a multiple of \(32, 24\)"
    ):
        PreviewFit(channels=4).observe(torch.zeros(4, 16, 12), torch.zeros(shape).byte())


# ---------------------------------------------------------------------------- learning


def test_it_is_ready_after_one_picture_and_done_after_some() -> None:
    known, latents, pixels = linear_pictures(PICTURES)
    learned = LearnedPreview(CPU)
    assert learned.learning
    assert not learned.ready
    with pytest.raises(RuntimeError, match="no preview before the first finished picture"):
        learned.render(latents)
    errors = {}
    for number in range(PICTURES):
        assert learned.learning
        learned.observe(latents[number, None], pixels[number, None])
        assert learned.ready
        difference = learned.render(latents).float() - known.render(latents)
        errors[number + 1] = float(difference.abs().mean())
    assert not learned.learning
    assert errors[1] < 2, "in 255ths"
    assert errors[PICTURES] < errors[1] / 5
    assert errors[3] == errors[2], "between powers of two nothing is solved"
    before = learned.render(latents)
    learned.observe(latents[:2], 255 - pixels[:2])
    assert torch.equal(learned.render(latents), before)


def test_the_same_pictures_give_the_same_previews() -> None:
    _, latents, pixels = linear_pictures(4)
    one, other = LearnedPreview(CPU), LearnedPreview(CPU)
    for number in range(4):
        one.observe(latents[number, None], pixels[number, None])
    other.observe(latents, pixels)
    assert torch.equal(one.render(latents), other.render(latents))


def test_latents_that_are_not_finite_teach_nothing() -> None:
    _, latents, pixels = linear_pictures(2)
    learned = LearnedPreview(CPU)
    learned.observe(latents[:1] * torch.inf, pixels[:1])
    assert not learned.ready
    learned.observe(latents, pixels)
    assert learned.ready


# ---------------------------------------------------------------------------- families


@pytest.mark.parametrize("family", PICTURE_FAMILIES)
def test_every_family_learns_from_its_first_picture(family: str, tmp_path: Path) -> None:
    adapter = load_model(str(PICTURE_FAMILIES[family](tmp_path / "tiny")), device="cpu")
    previewer = previewer_of(adapter)
    assert not previewer.ready
    *half_made, final = run(adapter, 64, 32, ["a boat"], steps=3)
    pixels = adapter.decode(final)
    previewer.observe(final, pixels)
    height, width = final.shape[2:]
    preview = previewer.render(half_made[0])
    assert preview.shape == (1, 2 * height, 2 * width, 3)
    assert preview.dtype == torch.uint8
    grey = pixels.float().mean((1, 2), keepdim=True).expand_as(pixels)
    assert mean_error(previewer.render(final), pixels) < 0.9 * mean_error(grey, pixels)


def test_videos_have_no_previews(tmp_path: Path) -> None:
    folder = save_tiny_wan(tmp_path / "tiny")
    assert load_model(str(folder), device="cpu").previewer is None
    with pytest.raises(ConfigurationError, match="a preview decoder is for pictures"):
        load_model(str(folder), device="cpu", preview_decoder=tmp_path)


def test_the_fakes_previews_are_its_pictures() -> None:
    adapter = load_model("fake")
    latents = torch.randn(2, 4, 3, 5)
    pixels = adapter.decode(latents)
    assert torch.equal(previewer_of(adapter).render(latents), pixels[:, ::8, ::8])


def test_the_file_in_a_models_folder_is_its_preview(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.symlink_to(tiny)
    path = tiny / "preview.safetensors"
    LatentPreview([random_layer(4, 27)]).save(path)
    try:
        previewer = previewer_of(load_model(str(folder), device="cpu"))
        assert previewer.ready
        assert not previewer.learning
        assert previewer.render(torch.zeros(1, 4, 8, 6)).shape == (1, 24, 18, 3)
    finally:
        path.unlink()


# ---------------------------------------------------------------------------- the bundled model


def test_the_bundled_previews_look_like_the_decodes(bundled: Adapter) -> None:
    [*_, final] = run(bundled, 128, 128, PROMPTS, steps=8)
    pixels, previews = bundled.decode(final), previewer_of(bundled).render(final)
    assert previews.shape == (4, 64, 64, 3)
    grey = torch.full_like(pixels, 128)
    assert mean_error(previews, pixels) < 8
    assert mean_error(grey, pixels) > 40


def test_half_way_a_preview_looks_more_like_the_picture_than_the_noise_does(
    bundled: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy: list[Tensor] = []
    predict = bundled.predict

    def remember(batch: ForwardBatch) -> Tensor:
        noisy.append(batch.latents[batch.guided :].clone())
        return predict(batch)

    monkeypatch.setattr(bundled, "predict", remember)
    predicted = run(bundled, 128, 128, PROMPTS, steps=8)
    pixels = F.avg_pool2d(bundled.decode(predicted[-1]).movedim(-1, 1).float(), 2).movedim(1, -1)
    render = previewer_of(bundled).render
    of_prediction = correlation(render(predicted[3]), pixels)
    of_noise = correlation(render(noisy[3]), pixels)
    assert of_prediction > 0.9
    assert of_prediction > of_noise + 0.3


def test_a_row_looks_the_same_in_company(bundled: Adapter) -> None:
    latents = torch.randn(5, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    together = previewer_of(bundled).render(latents).to(torch.int16)
    alone = torch.cat([previewer_of(bundled).render(row[None]) for row in latents])
    assert (together - alone).abs().max() <= 1


# ---------------------------------------------------------------------------- a decoder


def save_tiny_decoder(folder: Path, latent_channels: int = 4) -> Path:
    torch.manual_seed(0)
    AutoencoderTiny(
        latent_channels=latent_channels,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        scaling_factor=0.5,
        shift_factor=0.1,
    ).save_pretrained(folder)
    return folder


def test_a_named_decoder_makes_the_previews(tiny: Path, tmp_path: Path) -> None:
    folder = save_tiny_decoder(tmp_path / "taesd")
    adapter = load_model(str(tiny), device="cpu", preview_decoder=folder)
    previewer = previewer_of(adapter)
    assert isinstance(previewer, TinyDecoder)
    latents = torch.randn(6, 4, 8, 5)
    network = AutoencoderTiny.from_pretrained(folder).eval()
    with torch.inference_mode():
        expected = network.decode(latents / 0.5 + 0.1).sample.movedim(1, -1) / 2 + 0.5
    previews = previewer.render(latents)
    assert previews.shape == (6, 16, 10, 3)
    assert (previews - 255 * expected.clamp(0, 1)).abs().max() <= 0.51
    with pytest.raises(ValueError, match=r"shape \(1, 3, 8, 8\); the preview is for \(rows, 4, "):
        previewer.render(torch.zeros(1, 3, 8, 8))


def test_a_wrong_decoder_is_refused_in_one_line(tiny: Path, tmp_path: Path) -> None:
    cases = {
        "missing": "has no config.json",
        "vae": "is a AutoencoderKL; it must be an AutoencoderTiny",
        "weightless": "has no safetensors weights",
        "larger": "makes 3 colours of latents of 16 channels; the model's have 4",
        "cut": "the preview decoder can't be loaded",
    }
    AutoencoderKL(norm_num_groups=4, block_out_channels=(8,)).save_pretrained(tmp_path / "vae")
    save_tiny_decoder(tmp_path / "larger", latent_channels=16)
    for name in ("weightless", "cut"):
        [weights] = save_tiny_decoder(tmp_path / name).glob("*.safetensors")
        weights.write_bytes(weights.read_bytes()[:-100])
        if name == "weightless":
            weights.rename(weights.with_suffix(".bin"))
    for name, expected in cases.items():
        with pytest.raises(ModelError, match=expected) as refused:
            load_model(str(tiny), device="cpu", preview_decoder=tmp_path / name)
        assert "\n" not in str(refused.value)


def test_the_fake_takes_no_decoder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the fake model has no preview decoder"):
        load_model("fake", preview_decoder=tmp_path)
