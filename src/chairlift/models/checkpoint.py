"""Reads the networks and tokenizers of a checkpoint folder.

Weights come from safetensors only, and no code of a checkpoint is run: a family names the class of
each component itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from chairlift.card import Component
from chairlift.models.dummy import DummyTokenizer
from chairlift.models.source import LoadFormat, ModelSource, Progress, read_config


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """Everything that a family's adapter is made from."""

    source: ModelSource
    parts: Mapping[str, Any]
    """Networks (in evaluation mode) and tokenizers by name; None for those that the checkpoint
    can do without and doesn't have."""
    scheduler_config: Mapping[str, Any]
    device: torch.device
    dtype: torch.dtype
    offload: bool = False
    """Text encoders rest in main memory, and are on the device only while they encode."""

    @property
    def text_encoders(self) -> list[nn.Module]:
        return [
            part
            for name, part in self.parts.items()
            if name.startswith("text_encoder") and part is not None
        ]

    def components(self) -> tuple[Component, ...]:
        """What was loaded, for the model's card."""
        return tuple(
            Component(
                name=name,
                parameters=sum(weights.numel() for weights in part.parameters()),
                bytes=sum(weights.nbytes for weights in part.parameters()),
                device=str(next(part.parameters()).device),
            )
            for name, part in self.parts.items()
            if isinstance(part, nn.Module)
        )


def load_checkpoint(
    source: ModelSource,
    classes: Mapping[str, Any],
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress,
    offload: bool,
) -> Checkpoint:
    """Load every component of ``classes`` that the checkpoint names.

    Raises:
        Exception: Whatever diffusers and transformers make of a broken file.
    """
    named = {name: cls for name, cls in classes.items() if source.has(name)}
    parts: dict[str, Any] = dict.fromkeys(classes)
    for index, (name, cls) in enumerate(named.items()):
        progress(name, index, len(named))
        resting = offload and name.startswith("text_encoder")
        parts[name] = _load(source, name, cls, torch.device("cpu") if resting else device, dtype)
    progress("ready", len(named), len(named))
    return Checkpoint(
        source=source,
        parts=parts,
        scheduler_config=read_config(source, "scheduler/scheduler_config.json"),
        device=device,
        dtype=dtype,
        offload=offload and device.type != "cpu",
    )


def _load(
    source: ModelSource, name: str, cls: Any, device: torch.device, dtype: torch.dtype
) -> Any:
    folder = source.folder / name
    if issubclass(cls, PreTrainedTokenizerBase):
        if source.load_format is LoadFormat.DUMMY:
            return DummyTokenizer(read_config(source, f"{name}/tokenizer_config.json"))
        return cls.from_pretrained(folder)
    if source.load_format is LoadFormat.DUMMY:
        return random_network(folder, cls, device, dtype).eval()
    network = cls.from_pretrained(folder, use_safetensors=True, dtype=dtype)
    return network.to(device).eval()


def random_network(folder: Path, cls: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A network of full size, made where it is to be and in its final type, so that no copy of
    twice the size is made on the way.
    """
    with _made_on(device, dtype):
        if issubclass(cls, PreTrainedModel):
            return cls._from_config(cls.config_class.from_pretrained(folder), dtype=dtype)
        return cls.from_config(cls.load_config(folder))


@contextmanager
def _made_on(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(default)
