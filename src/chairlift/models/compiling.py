"""Compiled denoisers: what is compiled, for which forwards, so that rows come and go without
anything being compiled again.

A transformer's kernels are large. What is won is that they are fused, for which its repeated blocks
are enough; they are compiled for any number of entries, any size and any length of text. A UNet is
hundreds of small kernels, so that it is compiled as a whole, for any number of entries of one size,
and on CUDA each forward is one graph. A graph has a fixed number of entries, a power of two, to
which a forward is filled up. Without graphs nothing is filled up: it would cost more than is won.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from chairlift.models.adapter import ForwardBatch

RECOMPILE_LIMIT = 64
"""Ways in which one block may be compiled; torch's own limit of 8 is soon reached where masks and
single rows come and go, and beyond it everything would silently run as before."""


class Compilation:
    """The compiled denoisers of a model.

    Args:
        networks: They are compiled in place, each when it is first called.
        whole: Each as a whole, and not block by block.
        graphs: Forwards are CUDA graphs.
        backend: Of ``torch.compile``.
    """

    def __init__(
        self, networks: Iterable[Any], *, whole: bool, graphs: bool, backend: str = "inductor"
    ) -> None:
        self.whole = whole
        self.graphs = graphs
        torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
        settings: dict[str, Any] = {"backend": backend}
        if graphs and backend == "inductor":
            settings["mode"] = "reduce-overhead"
        for network in networks:
            if whole:
                network.compile(**settings)
            else:
                network.compile_repeated_blocks(dynamic=True, **settings)

    def entries(self, most: int) -> tuple[int, ...]:
        """With how many entries the denoiser must have run before it takes any number up to
        ``most``: powers of two. Each is a graph; without graphs few of them are compiled, since
        what is compiled for one holds until a library chooses another kernel (at 2, 16 and 64).
        """
        powers = [2**power for power in range((most - 1).bit_length() + 1)]
        return tuple(power for power in powers if self.graphs or power <= most)

    def prepare(self, batch: ForwardBatch) -> ForwardBatch:
        """The batch that the denoiser gets for this one: a graph's is filled up."""
        if self.graphs:
            # What the last forward has put out is read no more.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            batch = batch.repeated(1 << (len(batch.latents) - 1).bit_length())
        return batch


def uncompiled() -> AbstractContextManager[Any]:
    """Forwards in this block run as if nothing were compiled."""
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def mark_entries(*tensors: Tensor) -> None:
    """Tell the compiler that there may be any number of entries, where there is more than one."""
    for tensor in tensors:
        if len(tensor) > 1:
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
