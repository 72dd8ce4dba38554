"""The settings in pictures: exact for every prompt, in the words of the community's tools."""

from __future__ import annotations

import logging
from dataclasses import fields, replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from chairlift import __version__
from chairlift.card import Guidance, ModelCard
from chairlift.engine.files import encode_file
from chairlift.engine.messages import Finished
from chairlift.engine.worker_config import WorkerConfig
from chairlift.errors import InvalidRequest
from chairlift.infotext import MAX_CHARACTERS
from chairlift.metadata import PictureSettings, embed, extract
from chairlift.request import IMAGE_FORMATS, GenerationRequest, LoraUse, OutputFormat
from chairlift.validation import create_request
from tests.builders import a_request, create_card, create_video_card
from tests.running import EngineThread

CUNNING = [
    "",
    " spaces at the ends \t",
    "\n\nlines\r\n\n above and below\n",
    "a boat\nNegative prompt: a cabin",
    "Negative prompt:",
    "Negative prompt: a\nNegative prompt: b",
    "a boat\nSteps: 3, Sampler: Euler, CFG scale: 7, Seed: 1",
    "Steps: 3",
    'quotes " and \\ and \\" and "all"',
    "猫がいる、☃ 😀 \u202e \ufeff",
    "très bien \xa0",
    "null \0, bell \a, escape \x1b[0m, line \u2028 and \x85",
]

nasty = st.lists(st.sampled_from([*CUNNING, "\n", " ", ",", ":", '"', "\\"]) | st.text()).map(
    "".join
)
lora_uses = st.builds(LoraUse, nasty, st.floats(-10, 10))


def a_picture(**changes: object) -> PictureSettings:
    plain = PictureSettings(
        prompt="a boat", steps=20, sampler="euler", cfg_scale=7.0, seed=1, width=512, height=768
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def opened(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data))


# ---------------------------------------------------------------------- the text


def test_the_text_is_the_community_s() -> None:
    request = a_request(
        prompt="a boat, (red:1.2)", negative_prompt="fog, rain", sampler="dpmpp_2m_karras"
    )
    assert str(PictureSettings.of(request, 0, create_card())) == (
        "a boat, (red:1.2)\n"
        "Negative prompt: fog, rain\n"
        "Steps: 10, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 3, Seed: 1, Size: 64x64, "
        f"Model: fake, Version: chairlift {__version__}"
    )


@settings(deadline=None)
@given(prompt=nasty, negative_prompt=st.none() | nasty, model=nasty, loras=st.lists(lora_uses))
def test_a_text_says_exactly_what_it_was_made_from(
    prompt: str, negative_prompt: str | None, model: str, loras: list[LoraUse]
) -> None:
    made = a_picture(
        prompt=prompt, negative_prompt=negative_prompt, model=model, loras=tuple(loras)
    )
    assert PictureSettings.parse(str(made)) == made


@settings(deadline=None)
@given(prompt=nasty, negative_prompt=st.none() | nasty)
def test_a_reader_that_splits_at_commas_and_colons_gets_the_numbers(
    prompt: str, negative_prompt: str | None
) -> None:
    made = a_picture(prompt=prompt, negative_prompt=negative_prompt, model='a: "b", c')
    text = str(made)
    line = text[text.rindex("\nSteps: ") + 1 :]
    pairs = dict(pair.split(": ") for pair in line.split(", "))
    assert (pairs["Steps"], pairs["Seed"], pairs["Size"]) == ("20", "1", "512x768")


def test_no_negative_prompt_is_not_an_empty_one() -> None:
    assert PictureSettings.parse(str(a_picture())).negative_prompt is None
    assert PictureSettings.parse(str(a_picture(negative_prompt=""))).negative_prompt == ""


def test_a_text_of_another_tool_is_read() -> None:
    text = (
        "girl, beret, ((eyeshadow))\nin two lines\n"
        "Negative prompt: ugly, [blurry]\nbad anatomy\n"
        "Steps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 965400086, Size: 512x640, "
        'Model hash: 45dee52b, Model: v1-5, Lora hashes: "a: 1, b: 2", Version: v1.10.1'
    )
    assert PictureSettings.parse(text) == PictureSettings(
        prompt="girl, beret, ((eyeshadow))\nin two lines",
        negative_prompt="ugly, [blurry]\nbad anatomy",
        steps=20,
        sampler="euler_ancestral",
        cfg_scale=7.5,
        seed=965400086,
        width=512,
        height=640,
        model="v1-5",
        unused=("Model hash", "Lora hashes"),
    )


@pytest.mark.parametrize(
    ("names", "ours"),
    [
        ("Sampler: DPM++ 2M Karras", "dpmpp_2m_karras"),
        ("Sampler: DPM++ 2M, Schedule type: Karras", "dpmpp_2m_karras"),
        ("Sampler: DPM++ 2M, Schedule type: Automatic", "dpmpp_2m_karras"),
        ("Sampler: DPM++ 2M, Schedule type: Uniform", "dpmpp_2m"),
        ("Sampler: DPM++ 2M", "dpmpp_2m"),
        ("Sampler: DPM++ 2M Karras, Schedule type: Automatic", "dpmpp_2m_karras"),
        ("Sampler: Euler a, Schedule type: Automatic", "euler_ancestral"),
        ("Sampler: dpmpp_2m", "dpmpp_2m"),
        ("Sampler: Euler A", "euler_ancestral"),
        ("Sampler: Euler, Schedule type: Karras", "Euler Karras"),
        ("Sampler: LCM", "LCM"),
    ],
)
def test_the_community_s_samplers_are_known(names: str, ours: str) -> None:
    assert PictureSettings.parse(f"Steps: 3, {names}").sampler == ours


@pytest.mark.parametrize("sampler", create_card().samplers)
def test_our_samplers_come_back(sampler: str) -> None:
    assert PictureSettings.parse(str(a_picture(sampler=sampler))) == a_picture(sampler=sampler)


def test_a_spacing_that_we_can_not_make_is_named() -> None:
    read = PictureSettings.parse("Steps: 3, Sampler: Euler, Schedule type: Beta")
    assert (read.sampler, read.unused) == ("euler", ("Schedule type",))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "its text has no line of settings"),
        ("a boat\nof wood: oak, sails: 2, crew: 3", "its text has no line of settings"),
        ("a boat\nSteps: many, Seed: 1", "Steps is 'many'; it must be a whole number"),
        ("a boat\nSteps: 3, Seed: 1.5", "Seed is '1.5'; it must be a whole number"),
        ("a boat\nSteps: 3, CFG scale: high", "CFG scale is 'high'; it must be a number"),
        ("a boat\nSteps: 3, Size: 512", "Size is '512'; it must be width x height"),
        ("a boat\nSteps: " + "9" * 5000, "Steps is '9999"),
        ("x" * (MAX_CHARACTERS + 1), "its text has 1000001 characters; at most 1000000 are read"),
    ],
)
def test_a_wrong_text_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        PictureSettings.parse(text)
    assert refused.value.message.startswith(reason)
    assert len(refused.value.message) < 200


@pytest.mark.parametrize("piece", ["a", "ab: ", 'ab: "', 'ab: "\\', "\n", " ", 'ab: "x" y,'])
def test_a_malicious_text_ends(piece: str) -> None:
    # With time that grows as the square of the length, this would take hours.
    text = "x\nSteps: 3, " + piece * ((MAX_CHARACTERS - 100) // len(piece))
    assert PictureSettings.parse(text + "\nSteps: 3").steps == 3
    assert PictureSettings.parse(text.replace("\n", " ") + "\nSteps: 3").steps == 3
    if "\n" not in piece:
        assert PictureSettings.parse(text).steps == 3


# ---------------------------------------------------------------------- requests


def a_card(guidance: Guidance) -> ModelCard:
    return replace(create_card(), guidance=guidance, loras=("sketch", "ink"))


OPTIONS = ("guidance_rescale", "guidance_scale_2", "cfg_truncation", "cfg_normalization")
GUIDANCES = [
    Guidance(options=OPTIONS),
    Guidance(cfg_offset=1.0, options=OPTIONS),
    Guidance(cfg_field="true_cfg_scale"),
    Guidance(cfg_field="true_cfg_scale", embedded=True),
]
scales = st.floats(0, 100)


@st.composite
def requests(draw: st.DrawFn) -> tuple[GenerationRequest, ModelCard]:
    card = a_card(draw(st.sampled_from(GUIDANCES)))
    given: dict[str, Any] = {}
    if card.guidance.takes_guidance_scale:
        given["guidance_scale"] = draw(scales)
    if card.guidance.cfg_field == "true_cfg_scale":
        given["true_cfg_scale"] = draw(scales)
    for name in card.guidance.options:
        given[name] = draw(st.floats(1, 10) if name == "guidance_scale_2" else st.floats(0, 1))
    request = create_request(
        card,
        id="a",
        prompt=draw(nasty),
        negative_prompt=draw(st.none() | nasty),
        width=draw(st.integers(1, 64)) * 8,
        height=draw(st.integers(1, 64)) * 8,
        steps=draw(st.integers(1, 200)),
        sampler=draw(st.sampled_from(card.samplers)),
        seed=draw(st.integers(0, 2**63 - 4)),
        n=3,
        loras=draw(
            st.sampled_from([[], [LoraUse("ink", 0.1)], [LoraUse("sketch"), LoraUse("ink", -2.5)]])
        ),
        output_format=draw(st.sampled_from(IMAGE_FORMATS)),
        output_compression=draw(st.integers(0, 100)),
        **given,
    )
    return request, card


@settings(deadline=None)
@given(requests())
def test_a_request_for_a_picture_comes_back(made: tuple[GenerationRequest, ModelCard]) -> None:
    request, card = made
    text = str(PictureSettings.of(request, 2, card))
    arguments = PictureSettings.parse(text).arguments(card.guidance)
    again = create_request(card, id="a", output_format=request.output_format, **arguments)
    assert str(PictureSettings.of(again, 0, card)) == text
    alike = replace(
        request,
        n=1,
        seed=request.seed + 2,
        # What comes back is cfg_scale; with an offset between them, the other may round.
        guidance_scale=pytest.approx(request.guidance_scale),
        output_compression=again.output_compression,
    )
    assert again == alike
    assert request.output_format == "png" or again.output_compression == request.output_compression


def test_the_frames_of_a_video_are_a_setting() -> None:
    card = create_video_card()
    request = create_request(card, id="a", prompt="a boat", frames=5)
    text = str(PictureSettings.of(request, 0, card))
    assert "Frames: 5" in text
    assert PictureSettings.parse(text).arguments(card.guidance)["frames"] == 5


def test_no_field_of_a_request_is_forgotten() -> None:
    under_other_names = {"guidance_scale", "n"}
    without_effect = {"id", "preview_steps", "deadline", "priority", "caller", "owner", "warnings"}
    without_effect |= {"is_promised"}
    of_the_file = {"output_format", "frames_per_second"}
    known = {field.name for field in fields(PictureSettings)}
    known |= under_other_names | without_effect | of_the_file
    assert {field.name for field in fields(GenerationRequest)} <= known


# ---------------------------------------------------------------------- files


PIXELS = np.random.default_rng(0).integers(0, 256, (40, 24, 3), dtype=np.uint8)


@pytest.mark.parametrize("output_format", IMAGE_FORMATS)
@pytest.mark.parametrize("prompt", CUNNING)
def test_a_file_carries_its_settings(output_format: OutputFormat, prompt: str) -> None:
    request = a_request(prompt=prompt, output_format=output_format)
    made = PictureSettings.of(request, 0, create_card())
    text = extract(opened(encode_file(PIXELS, request, str(made))))
    assert text is not None
    assert PictureSettings.parse(text) == made


@pytest.mark.parametrize("output_format", IMAGE_FORMATS)
def test_settings_change_no_pixel(output_format: OutputFormat) -> None:
    request = a_request(output_format=output_format)
    plain, carrying = encode_file(PIXELS, request), encode_file(PIXELS, request, "Steps: 3")
    assert len(carrying) > len(plain)
    assert opened(carrying).tobytes() == opened(plain).tobytes()
    assert extract(opened(plain)) is None


def test_a_video_carries_its_settings_as_its_comment() -> None:
    av = pytest.importorskip("av")
    request = create_request(create_video_card(), id="a", prompt="a boat\n😀")
    text = str(PictureSettings.of(request, 0, create_video_card()))
    frames = np.zeros((9, 64, 64, 3), dtype=np.uint8)
    with av.open(BytesIO(encode_file(frames, request, text))) as container:
        assert container.metadata["comment"] == text


def test_exif_is_as_the_community_s_readers_want_it() -> None:
    exif = embed("Steps: 3", "webp")["exif"]
    user_comment_of_type_undefined = b"\x92\x86\x00\x07"
    assert user_comment_of_type_undefined in exif
    assert exif.endswith(b"UNICODE\0" + "Steps: 3".encode("utf-16-be"))


@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + "猫\nSteps: 3".encode("utf-16-le"),
        b"ASCII\0\0\0" + "猫\nSteps: 3".encode(),
        "猫\nSteps: 3".encode(),
    ],
    ids=["little-endian", "ASCII", "bare"],
)
def test_comments_of_other_writers_are_read(comment: bytes) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    file = BytesIO()
    Image.fromarray(PIXELS).save(file, format="jpeg", exif=exif)
    assert extract(opened(file.getvalue())) == "猫\nSteps: 3"


def test_what_a_jpeg_can_not_hold_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    request = a_request(output_format="jpeg")
    text = "Steps: " + "猫" * 33_000
    with caplog.at_level(logging.WARNING):
        file = encode_file(PIXELS, request, text)
    assert "a JPEG is written without its settings: they have 66" in caplog.text
    assert file == encode_file(PIXELS, request)
    assert (
        extract(opened(encode_file(PIXELS, replace(request, output_format="webp"), text))) == text
    )


@pytest.mark.parametrize(("metadata", "seeds"), [(True, [5, 6]), (False, [None, None])])
def test_a_worker_s_pictures_carry_each_its_own_seed_unless_told_not_to(
    metadata: bool, seeds: list[int | None]
) -> None:
    async def ride() -> Finished:
        return await engine.client.submit(a_request(seed=5, n=2)).answer

    with EngineThread(WorkerConfig(model="fake", metadata=metadata)) as engine:
        texts = [extract(opened(image)) for image in engine.wait_for(ride()).images]
    assert [text and PictureSettings.parse(text).seed for text in texts] == seeds
