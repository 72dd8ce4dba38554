"""Nobody waits inside a tick: the host neither reads a tensor nor waits for a copy.

On a CUDA device torch itself tells. Without one, the model is on the meta device, whose tensors are
somewhere else than the host's and can't be read: what would make the host wait for a CUDA device is
then seen by the operations that are called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from chairlift.engine.runner import Runner
from chairlift.models.adapter import Adapter, Conditioning
from chairlift.models.fake import FakeModel
from chairlift.models.family import Family
from chairlift.models.registry import load_model
from chairlift.request import GenerationRequest, Prompt, RowId
from chairlift.scheduling.plan import Plan
from chairlift.validation import create_request
from tests.builders import save_tiny_stable_diffusion
from tests.tiny.flux import save_tiny_flux
from tests.tiny.qwen_image import save_tiny_qwen_image

META = torch.device("meta")
READS = {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "_unique2"}
"""Operations whose result the host has to know."""
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
COPIES = {"_to_copy", "copy_"}


class NoWaiting(TorchDispatchMode):
    """Raises where the host would wait for the device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        kwargs = kwargs or {}
        if name in READS:
            raise AssertionError(f"the host waits for {func}")
        if name in INDEXING and any(_must_be_known(args[0], index) for index in args[1]):
            raise AssertionError(f"the host waits for {func}: an index isn't on the device")
        if name in COPIES and _crosses(name, args, kwargs) and not _is_async(name, args, kwargs):
            raise AssertionError(f"the host waits for {func}: it copies from one to the other")
        return func(*args, **kwargs)


def _must_be_known(values: Tensor, index: Tensor | None) -> bool:
    """Whether the host has to look into an index, or to bring it to the device."""
    return index is not None and (index.dtype is torch.bool or index.device != values.device)


def _crosses(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    if name == "copy_":
        return bool(args[0].device != args[1].device)
    return torch.device(kwargs.get("device") or args[0].device) != args[0].device


def _is_async(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    given = args[2] if name == "copy_" and len(args) > 2 else kwargs.get("non_blocking", False)
    return bool(given)


class FarModel(FakeModel):
    """The fake model on the meta device."""

    device = META


def on_meta(adapter: Adapter) -> Adapter:
    """A model whose denoiser is on the meta device. Its texts are encoded where they were."""
    assert isinstance(adapter, Family)
    encode: Callable[[Sequence[Prompt]], list[Conditioning]] = adapter.encode

    def encode_here(prompts: Sequence[Prompt]) -> list[Conditioning]:
        adapter.device = torch.device("cpu")
        try:
            return [
                Conditioning(
                    {name: values.to(META) for name, values in row.tensors.items()},
                    {name: values.to(META) for name, values in row.sequences.items()},
                )
                for row in encode(prompts)
            ]
        finally:
            adapter.device = META

    adapter.device = META
    adapter.encode = encode_here  # type: ignore[method-assign]
    for name in adapter.denoisers:
        network = adapter._checkpoint.parts[name]
        if isinstance(network, nn.Module):
            network.to(META)
    return adapter


def requests_to(adapter: Adapter, **settings: Any) -> dict[str, GenerationRequest]:
    """With and without guidance, with and without fresh noise, with previews."""
    limits = adapter.card.limits
    side = 4 * limits.size_multiple
    cfg = adapter.card.guidance.cfg_field
    requests = [
        create_request(
            adapter.card,
            id=str(number),
            prompt="a boat " * (1 + number),
            width=side,
            height=side,
            steps=6 + number,
            sampler=["euler", "euler_ancestral", "dpmpp_2m"][number % 3],
            seed=number,
            **{cfg: 3.0 if number % 2 else 1.0},
            **settings,
        )
        for number in range(5)
    ]
    return {request.id: request for request in requests}


def run_ticks(
    adapter: Adapter, requests: dict[str, GenerationRequest], watch: Callable[[], Any]
) -> None:
    """Everybody joins, then rows rest, run and leave while it is watched."""
    runner = Runner(adapter)
    key = runner.legs(requests["0"])[0].key
    ids = tuple(RowId(id, 0) for id in requests)
    runner.run(Plan(key=key, joining=ids, running=ids), requests)
    last = {ids[0], ids[3]}
    plans = [
        Plan(key=key, running=ids),
        Plan(key=key, running=(ids[4], ids[1])),
        Plan(key=key, running=(ids[2],)),
        Plan(key=key, running=ids, finishing=frozenset(last)),
        Plan(key=key, running=tuple(id for id in ids if id not in last)),
    ]
    with watch():
        for plan in plans:
            result = runner.run(plan, requests)
            assert not result.failed
            assert result.finished.keys() == plan.finishing


def test_no_tick_of_the_fake_model_waits() -> None:
    run_ticks(FarModel(), requests_to(FarModel()), NoWaiting)


@pytest.mark.parametrize("save", [save_tiny_stable_diffusion, save_tiny_flux, save_tiny_qwen_image])
def test_no_tick_of_a_family_waits(save: Callable[[Path], Path], tmp_path: Path) -> None:
    adapter = on_meta(load_model(str(save(tmp_path)), device="cpu"))
    run_ticks(adapter, requests_to(adapter), NoWaiting)


@pytest.mark.parametrize(
    "wait",
    [
        lambda far: float(far.sum()),
        lambda far: bool(far.any()),
        lambda far: far.cpu(),
        lambda far: far + torch.ones(3).to(far.device),
        lambda far: far[torch.tensor([0, 1])],
        lambda far: far[far > 0],
    ],
    ids=["a number", "a decision", "to the host", "to the device", "the host's index", "a mask"],
)
def test_what_waits_is_seen(wait: Callable[[Tensor], object]) -> None:
    far = torch.ones(3, device=META)
    with NoWaiting(), pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        wait(far)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_no_tick_on_cuda_waits() -> None:
    class Strict:
        def __enter__(self) -> None:
            torch.cuda.set_sync_debug_mode("error")

        def __exit__(self, *exception: object) -> None:
            torch.cuda.set_sync_debug_mode("default")

    adapter = load_model(device="cuda")
    run_ticks(adapter, requests_to(adapter), Strict)
