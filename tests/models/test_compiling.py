"""Compiled denoisers: nothing is compiled while rows come and go, and their pictures are those that
they have alone.

Most tests stop short of making machine code (``backend="eager"``): which forwards are the same to
the compiler is decided before that, and takes a second instead of half a minute.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from chairlift.errors import ConfigurationError, ModelError
from chairlift.models.adapter import Padded
from chairlift.models.compiling import Compilation, uncompiled
from chairlift.models.family import Family
from chairlift.models.registry import load_model
from chairlift.validation import create_request
from tests.builders import save_tiny_stable_diffusion
from tests.company import compare_with_alone, random_requests, run_company
from tests.tiny.flux import save_tiny_flux

ROWS = 7
"""The most that :func:`tests.company.run_company` has in a forward."""
GUIDANCE_SCALES = [0.0, 1.0, 3.0, 7.5]


@pytest.fixture(autouse=True)
def nothing_compiled() -> None:
    torch.compiler.reset()
    counters.clear()


def compiled(folder: Path | None, **settings: Any) -> Family:
    """A warm model."""
    adapter = load_model(str(folder) if folder else None, device="cpu")
    assert isinstance(adapter, Family)
    defaults = replace(adapter.card.defaults, width=64, height=64)
    adapter.card = replace(adapter.card, defaults=defaults)
    adapter.compile(**settings)
    adapter.warm_up(ROWS)
    return adapter


def check_company(
    adapter: Family, plain: Family, count: int, sizes: Sequence[tuple[int, int]], **choices: Any
) -> None:
    """Random rows in company, compiled, are those of the plain model alone; nothing was compiled
    for them.
    """
    ways = counters["stats"]["unique_graphs"]
    assert ways > 0
    rng = random.Random(1)
    requests = random_requests(adapter, rng, count, sizes, **choices)
    outcome = run_company(adapter, requests, rng)
    assert counters["stats"]["unique_graphs"] == ways
    compare_with_alone(plain, requests, outcome)


def load_plain(folder: Path | None) -> Family:
    adapter = load_model(str(folder) if folder else None, device="cpu")
    assert isinstance(adapter, Family)
    return adapter


def test_the_bundled_model_filled_up_compiles_nothing_while_rows_come_and_go() -> None:
    adapter = compiled(None, graphs=True, backend="eager")
    check_company(adapter, load_plain(None), 12, [(64, 64)], guidance_scale=GUIDANCE_SCALES)


def test_the_blocks_of_a_transformer_take_any_number_of_rows_and_any_size(tmp_path: Path) -> None:
    folder = save_tiny_flux(tmp_path)
    adapter = compiled(folder, backend="eager")
    sizes = [(64, 64), (64, 32), (96, 64)]
    check_company(adapter, load_plain(folder), 12, sizes, true_cfg_scale=[1.0, 4.0])


@pytest.mark.skipif(not shutil.which("g++"), reason="there is no compiler")
def test_machine_code_computes_the_same_for_any_number_of_entries(tmp_path: Path) -> None:
    adapter = load_plain(save_tiny_stable_diffusion(tmp_path, steps_offset=1))
    adapter.compile()
    assert adapter.compilation is not None
    request = create_request(adapter.card, id="a", prompt="a boat", width=64, height=64)
    with torch.inference_mode():
        batch = adapter.one_entry(adapter.batch_key(request), request)
        for entries in (2, 3, 7):
            repeated = batch.repeated(entries)
            with uncompiled():
                expected = adapter.forward(repeated)
            output = adapter.forward(adapter.compilation.prepare(repeated))
            assert torch.allclose(output, expected, atol=1e-4)
    assert counters["stats"]["unique_graphs"] == 1


def test_what_a_forward_is_filled_up_with_is_its_first_entry() -> None:
    padded = Padded(torch.tensor([[1, 2], [3, 0]]), (2, 1), torch.tensor([2, 1]))
    filled = padded.repeated(4)
    assert filled.values.tolist() == [[1, 2], [3, 0], [1, 2], [1, 2]]
    assert filled.lengths == (2, 1, 2, 2)
    assert filled.device_lengths.tolist() == [2, 1, 2, 2]


def test_a_shortened_sequence_has_a_mask() -> None:
    padded = Padded(torch.tensor([[1, 2], [3, 4]]), (2, 2), torch.tensor([2, 2]))
    assert padded.mask is None
    shortened = padded.shortened()
    assert shortened.values.tolist() == [[1, 2], [3, 0]]
    assert shortened.lengths == (2, 1)
    assert shortened.mask is not None
    assert shortened.mask.tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize(
    ("graphs", "most", "entries"),
    [(False, 1, (1,)), (False, 14, (1, 2, 4, 8)), (True, 14, (1, 2, 4, 8, 16)), (True, 2, (1, 2))],
)
def test_warm_up_runs_powers_of_two(graphs: bool, most: int, entries: tuple[int, ...]) -> None:
    assert Compilation([], whole=True, graphs=graphs).entries(most) == entries


def test_the_fake_model_has_nothing_to_compile() -> None:
    with pytest.raises(ConfigurationError, match="nothing to compile"):
        load_model("fake", compile_rows=4)


# ---------------------------------------------------------------------- attention


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fast", "attention_backend is 'fast'; it must be one of"),
        ("flash_hub", "attention_backend is 'flash_hub', whose code would be downloaded and run"),
        ("sage", "attention_backend is 'sage': .*sageattention"),
    ],
)
def test_an_attention_backend_that_cant_be_is_refused(
    name: str, message: str, tmp_path: Path
) -> None:
    folder = save_tiny_flux(tmp_path)
    with pytest.raises((ConfigurationError, ModelError), match=message):
        load_model(str(folder), device="cpu", attention_backend=name)


def test_a_unet_takes_no_attention_backend() -> None:
    with pytest.raises(ConfigurationError, match="UNet2DConditionModel takes no backend"):
        load_model(device="cpu", attention_backend="native")


def test_a_transformer_takes_an_attention_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    active = _AttentionBackendRegistry._active_backend
    monkeypatch.setattr(_AttentionBackendRegistry, "_active_backend", active)
    folder = save_tiny_flux(tmp_path)
    adapter = load_model(str(folder), device="cpu", attention_backend="_native_math")
    assert isinstance(adapter, Family)
    processors = [
        module.processor
        for module in adapter._checkpoint.parts["transformer"].modules()
        if hasattr(module, "processor")
    ]
    assert {processor._attention_backend for processor in processors} == {"_native_math"}
