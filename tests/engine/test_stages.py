"""The stages around the denoiser: encoding, decoding, the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import Colorspace
from numpy.typing import NDArray
from torch import Tensor

from chairlift.engine.decoder import Decoded, Decoder
from chairlift.engine.encoder import Encoder
from chairlift.engine.files import encode_file
from chairlift.engine.ledger import Ledger
from chairlift.engine.loop import Loop
from chairlift.engine.messages import Finished, FromEngine, Submit
from chairlift.errors import DecodeFailed, IllegalTransition, NumericalError
from chairlift.models.adapter import Conditioning, ForwardBatch
from chairlift.models.fake import FakeModel
from chairlift.request import IMAGE_FORMATS, OutputFormat, Prompt, RowId, Status
from chairlift.scheduling.scheduler import Scheduler
from tests.builders import a_request, file_pixels, largest_difference
from tests.company import psnr


class CountingModel(FakeModel):
    """Remembers what it was asked to encode and to decode."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[list[str]] = []
        self.decoded: list[int] = []
        self.forwards = 0

    def predict(self, batch: ForwardBatch) -> Tensor:
        self.forwards += 1
        return super().predict(batch)

    def encode(self, prompts: Sequence[Prompt]) -> list[Conditioning]:
        self.encoded.append([prompt.text or "" for prompt in prompts])
        return super().encode(prompts)

    def decode(self, latents: Tensor) -> Tensor:
        self.decoded.append(len(latents))
        if bool((latents == 13).any()):
            raise RuntimeError("no picture")
        return super().decode(latents)


def test_a_prompt_is_encoded_once_and_newcomers_together() -> None:
    model = CountingModel()
    encoder = Encoder(model)
    encoder.encode([Prompt("a"), Prompt("b"), Prompt("a"), Prompt("")])
    encoder.encode([Prompt("b"), Prompt("c")])
    assert model.encoded == [["a", "b", ""], ["c"]]


def test_the_cache_has_a_bound_and_forgets_the_least_recently_used() -> None:
    model = CountingModel()
    size = model.encode([Prompt("a")])[0].nbytes
    encoder = Encoder(model, max_bytes=2 * size)
    for prompt in ("a", "b", "a", "c", "a", "b"):
        encoder.encode([Prompt(prompt)])
        assert encoder.cached_bytes <= 2 * size
    assert model.encoded == [["a"], ["a"], ["b"], ["c"], ["b"]]


def test_more_prompts_at_once_than_the_cache_holds_are_all_answered() -> None:
    encoder = Encoder(FakeModel(), max_bytes=1)
    found = encoder.encode([Prompt("a"), Prompt("b"), Prompt("c")])
    assert [prompt.text for prompt in found] == ["a", "b", "c"]
    assert encoder.cached_bytes <= 1
    assert encoder.largest_bytes == FakeModel().encode([Prompt("a")])[0].nbytes


def create_decoder(model: FakeModel | None = None) -> Decoder:
    model = model or FakeModel()
    model.max_decode_rows = 2
    return Decoder(model)


def test_rows_are_decoded_in_chunks_of_one_shape() -> None:
    model = CountingModel()
    decoder = create_decoder(model)
    for number, side in enumerate([8, 8, 8, 4, 8]):
        decoder.submit(RowId(str(number), 0), torch.zeros(4, side, side))
    rows = []
    while len(decoder):
        rows.append([decoded.row.request_id for decoded in decoder.run(wait=False)])
    assert rows == [["0", "1"], ["2"], ["3"], ["4"]]
    assert decoder.run(wait=False) == []


def test_latents_that_are_not_finite_fail_alone() -> None:
    decoder = create_decoder()
    decoder.submit(RowId("bad", 0), torch.full((4, 8, 8), torch.inf))
    decoder.submit(RowId("good", 0), torch.zeros(4, 8, 8))
    bad, good = decoder.run(wait=False)
    assert isinstance(bad.outcome, NumericalError)
    assert not isinstance(good.outcome, NumericalError)


def test_a_row_that_can_not_be_decoded_fails_alone() -> None:
    decoder = create_decoder(CountingModel())
    decoder.submit(RowId("good", 0), torch.zeros(4, 8, 8))
    decoder.submit(RowId("bad", 0), torch.full((4, 8, 8), 13.0))
    good, bad = decoder.run(wait=False)
    assert isinstance(bad.outcome, DecodeFailed)
    assert not isinstance(good.outcome, DecodeFailed)


class LateMark:
    """Of a device that has come so far when the test says so, or when somebody waits for it."""

    def __init__(self) -> None:
        self.reached = False

    def wait(self) -> None:
        self.reached = True

    def seconds_since(self, earlier: LateMark) -> float:
        return 0.0


@pytest.fixture
def marks(monkeypatch: pytest.MonkeyPatch) -> list[LateMark]:
    """Of everything that a device decodes from here on."""
    made: list[LateMark] = []

    def make_mark(device: torch.device) -> LateMark:
        made.append(LateMark())
        return made[-1]

    monkeypatch.setattr("chairlift.engine.decoder.make_mark", make_mark)
    return made


def decoded_ids(decoded: list[Decoded]) -> list[str]:
    return [one.row.request_id for one in decoded]


def test_nobody_waits_for_a_device_that_decodes(marks: list[LateMark]) -> None:
    decoder = create_decoder()
    for name in "abc":
        decoder.submit(RowId(name, 0), torch.zeros(4, 8, 8))
    assert decoder.run(wait=False) == []
    assert decoder.run(wait=False) == []
    assert (len(marks), len(decoder)) == (2, 3)  # Where it begins, and where it ends.
    marks[1].reached = True
    assert decoded_ids(decoder.run(wait=False)) == ["a", "b"]
    assert (len(marks), len(decoder)) == (4, 1)


def test_without_anything_else_to_do_the_device_is_waited_for(marks: list[LateMark]) -> None:
    decoder = create_decoder()
    decoder.submit(RowId("a", 0), torch.zeros(4, 8, 8))
    assert decoder.run(wait=True) == []
    assert decoded_ids(decoder.run(wait=True)) == ["a"]
    assert len(decoder) == 0


def test_rows_step_on_while_the_device_decodes(marks: list[LateMark]) -> None:
    said: list[FromEngine] = []
    model = CountingModel()
    loop = Loop(model, Scheduler(), said.append)
    for id, steps in (("short", 1), ("long", 9)):
        loop.send(Submit(request=a_request(id=id, steps=steps)))
    for _ in range(6):  # In the first there is nobody yet.
        loop.turn()
    assert model.forwards == 5
    assert [mark.reached for mark in marks[1::2]] == [False]
    while sum(isinstance(message, Finished) for message in said) < 2:
        loop.turn()
    assert model.forwards == 9


@pytest.mark.parametrize("output_format", IMAGE_FORMATS)
def test_pictures_are_written_in_the_format_that_is_asked_for(output_format: OutputFormat) -> None:
    pixels = FakeModel().decode(torch.ones(1, 4, 8, 8))[0].numpy()
    request = a_request(output_format=output_format, output_compression=95)
    data = encode_file(pixels, request)
    tolerance = 0 if output_format == "png" else 6
    assert largest_difference(file_pixels(data), torch.from_numpy(pixels)) <= tolerance


def moving_picture(frames: int, width: int, height: int) -> NDArray[np.uint8]:
    """Saturated colours that pass from right to left."""
    y, x = np.mgrid[:height, :width]
    waves = [
        np.stack([2 * x, 255 - 2 * y, 127 + 127 * np.sin((x + y + 8 * frame) / 20)], axis=-1)
        for frame in range(frames)
    ]
    return np.stack(waves).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("frames", [1, 9])
def test_a_video_is_h264_in_an_mp4_that_plays_from_its_beginning(frames: int) -> None:
    pixels = moving_picture(frames, width=128, height=96)
    request = replace(a_request(), output_format="mp4", frames_per_second=24)
    data = encode_file(pixels, request)
    assert data.find(b"moov") < data.find(b"mdat")  # The index comes first.
    with av.open(BytesIO(data)) as container:
        [stream] = container.streams
        codec = stream.codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
        assert (codec.width, codec.height) == (128, 96)
        # BT.709, which is 1, said three times.
        assert (codec.colorspace, codec.color_primaries, codec.color_trc) == (1, 1, 1)
        assert (stream.frames, stream.average_rate) == (frames, 24)
        decoded = [
            frame.to_ndarray(format="rgb24", src_colorspace=Colorspace.ITU709)
            for frame in container.decode(stream)
        ]
    assert len(decoded) == frames
    for before, after in zip(pixels, decoded, strict=True):
        assert psnr(torch.from_numpy(before), torch.from_numpy(after)) > 34


def test_the_ledger_keeps_the_times_and_pictures_of_a_request() -> None:
    ledger, request = Ledger(), a_request("x", n=2)
    ledger.open(request, evaluations=5, now=10.0)
    first, second = request.row_ids
    for row, offset in ((first, 0.0), (second, 1.0)):
        ledger.move(row, Status.ENCODING, 11.0 + offset)
        ledger.move(row, Status.DENOISING, 11.5 + offset)
        ledger.move(row, Status.DECODING, 15.0 + offset)
    assert ledger.finish(second, b"two", 18.0) is None
    done = ledger.finish(first, b"one", 17.0)
    assert done is not None
    timings = done.timings
    assert done.images == [b"one", b"two"]
    assert (timings.queue_s, timings.encode_s, timings.denoise_s) == (2.0, 0.5, 3.5)
    assert (timings.decode_s, timings.total_s) == (2.0, 8.0)
    assert "x" not in ledger
    assert len(ledger) == 0


def test_the_ledger_refuses_an_illegal_move() -> None:
    ledger = Ledger()
    ledger.open(a_request("x"), evaluations=5, now=0.0)
    with pytest.raises(IllegalTransition):
        ledger.move(RowId("x", 0), Status.FINISHED, 1.0)


def test_an_abandoned_request_is_gone_with_all_its_rows() -> None:
    ledger, request = Ledger(), a_request("x", n=3)
    ledger.open(request, evaluations=5, now=0.0)
    ledger.move(request.row_ids[1], Status.ENCODING, 1.0)
    assert ledger.abandon("x", Status.CANCELLED, 2.0) == request.row_ids
    assert ledger.abandon("x", Status.CANCELLED, 2.0) == ()
    assert ledger.finish(request.row_ids[0], b"late", 3.0) is None
    assert "x" not in ledger
    assert "x" not in ledger.requests
