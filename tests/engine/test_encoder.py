"""What the encoder keeps."""

from __future__ import annotations

from collections.abc import Sequence

from chairlift.engine.encoder import MAX_ENTRIES, Encoder
from chairlift.models.adapter import Conditioning
from chairlift.models.fake import FakeModel
from chairlift.request import Prompt


class CountingModel(FakeModel):
    """Counts the prompts that it encodes."""

    encoded = 0

    def encode(self, prompts: Sequence[Prompt]) -> list[Conditioning]:
        self.encoded += len(prompts)
        return super().encode(prompts)


def test_small_conditionings_are_not_kept_without_bound() -> None:
    model = CountingModel()
    encoder = Encoder(model)
    for number in range(MAX_ENTRIES + 100):
        encoder.encode([Prompt(f"number {number}")])
    encoder.encode([Prompt(f"number {number}") for number in range(100, MAX_ENTRIES + 100)])
    assert model.encoded == MAX_ENTRIES + 100
    encoder.encode([Prompt("number 0")])
    assert model.encoded == MAX_ENTRIES + 101
    # One conditioning is 32 bytes.
    assert encoder.cached_bytes == 32 * MAX_ENTRIES


def test_more_than_are_kept_may_be_encoded_together() -> None:
    prompts = [Prompt(f"number {number}") for number in range(MAX_ENTRIES + 100)]
    assert list(Encoder(FakeModel()).encode(prompts)) == prompts
