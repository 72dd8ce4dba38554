"""LoRA (Hu et al. 2021), so that every row of a forward may use other ones at other scales.

PEFT reads the files and puts its layers into the networks, and there its own forward stays
switched off. In its place a hook adds ``scale * B(A(x))`` to each layer's output, with one scale
for each row and LoRA, so that a scale is a tensor row like any other number; a row that doesn't
use a LoRA has scale 0.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from chairlift.errors import ConfigurationError, ModelError
from chairlift.request import LoraUse

MAX_REASON = 200
"""Characters of an error of the libraries that are repeated."""


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA on disk."""

    name: str
    """What requests call it."""
    path: Path
    """A safetensors file in one of the formats that diffusers reads."""


class Loras:
    """The LoRAs of all networks of one model.

    Args:
        pipeline: Name of the diffusers pipeline class; it knows the formats of its family's files,
            and is never run.
        shared: Modules in which the rows of a forward lie in one sequence; a LoRA that changes
            one of them is refused.
    """

    def __init__(self, pipeline: str, shared: Sequence[str] = ()) -> None:
        self.names: tuple[str, ...] = ()
        self._pipeline = pipeline
        self._shared = tuple(shared)
        self._hooked: set[int] = set()
        self._applied: tuple[str, ...] = ()
        self._scales = torch.zeros(0)

    def __len__(self) -> int:
        return len(self.names)

    def add(self, file: LoraFile, networks: Mapping[str, Any]) -> None:
        """Read a LoRA into the networks that it changes.

        Raises:
            ConfigurationError: PEFT is not installed, or the name is taken.
            ModelError: The file is missing or broken, or doesn't fit these networks.
        """
        if file.name in self.names:
            raise ConfigurationError(f"two LoRAs are named {file.name!r}")
        _require_peft()
        weights, alphas = self._read(file, networks)
        adapter = _adapter(len(self.names))
        changed = {key.split(".", 1)[0] for key in weights}
        if strangers := sorted(changed - networks.keys()):
            raise ModelError(f"{file.path}: it changes {strangers[0]}, which the model hasn't")
        for name in sorted(changed):
            own = {key: value for key, value in weights.items() if key.startswith(f"{name}.")}
            self._check(file, own)
            try:
                self._inject(adapter, name, networks[name], own, alphas)
            except (RuntimeError, ValueError, KeyError) as error:
                raise ModelError(f"{file.path} doesn't fit {name}: {_reason(error)}") from None
            self._hook(file, adapter, networks[name], own)
        self.names = (*self.names, file.name)

    def scales(self, uses: Iterable[LoraUse]) -> Tensor:
        """``(len(names),)`` float32: the scale of each LoRA, 0 for those that aren't used."""
        chosen = dict(uses)
        return torch.tensor([chosen.get(name, 0.0) for name in self.names])

    @contextmanager
    def applied(self, names: Iterable[str], scales: Tensor) -> Iterator[None]:
        """Forwards in this block use these LoRAs.

        Args:
            names: Those that any row uses; the others cost nothing.
            scales: ``(rows of the forward, len(self.names))``.
        """
        self._applied, self._scales = tuple(names), scales
        try:
            yield
        finally:
            self._applied = ()

    def _read(self, file: LoraFile, networks: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        try:
            tensors = load_file(file.path)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file.path} can't be read: {_reason(error)}") from None
        if kind := next(
            (kind for kind in ("lokr_", "loha_", "dora_scale") if _has(tensors, kind)), None
        ):
            raise ModelError(f"{file.path} is not a plain LoRA: it has {kind.rstrip('_')} weights")
        options = {"unet_config": networks["unet"].config} if "unet" in networks else {}
        try:
            found = getattr(diffusers, self._pipeline).lora_state_dict(
                tensors, return_alphas=True, **options
            )
        except Exception as error:  # whatever diffusers makes of keys that it doesn't know
            raise ModelError(f"{file.path} is no LoRA of this family: {_reason(error)}") from None
        weights, alphas = found if isinstance(found, tuple) else (found, None)
        if not weights:
            raise ModelError(f"{file.path} is no LoRA of this family: it has no weights for it")
        return weights, alphas

    def _check(self, file: LoraFile, weights: Mapping[str, Tensor]) -> None:
        for key in weights:
            if any(f".{module}." in key for module in self._shared):
                raise ModelError(f"{file.path}: it changes {key}, where rows can't be told apart")

    def _inject(
        self, adapter: str, name: str, network: Any, weights: Mapping[str, Tensor], alphas: Any
    ) -> None:
        with _quiet():
            self._load(adapter, name, network, weights, alphas)
        network.requires_grad_(False)

    def _load(
        self, adapter: str, name: str, network: Any, weights: Mapping[str, Tensor], alphas: Any
    ) -> None:
        if name.startswith("text_encoder"):
            getattr(diffusers, self._pipeline).load_lora_into_text_encoder(
                dict(weights),
                network_alphas=alphas,
                text_encoder=network,
                prefix=name,
                adapter_name=adapter,
            )
        else:
            network.load_lora_adapter(
                dict(weights), prefix=name, network_alphas=alphas, adapter_name=adapter
            )

    def _hook(
        self, file: LoraFile, adapter: str, network: nn.Module, weights: Mapping[str, Tensor]
    ) -> None:
        """Switch off PEFT's forward and hook every layer, each once."""
        from peft.tuners.lora import LoraLayer

        layers = [module for module in network.modules() if isinstance(module, LoraLayer)]
        for layer in layers:
            layer.enable_adapters(False)
            if id(layer) not in self._hooked:
                self._hooked.add(id(layer))
                layer.register_forward_hook(self._add)
        changed = sum(adapter in layer.lora_A for layer in layers)
        wanted = sum("lora_A." in key or ".down." in key for key in weights)
        if changed < wanted:
            raise ModelError(
                f"{file.path} doesn't fit: of the {wanted} layers that it changes, "
                f"the model has {changed}"
            )

    def _add(self, layer: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        for name in self._applied:
            index = self.names.index(name)
            adapter = _adapter(index)
            if adapter in layer.lora_A:
                down, up = layer.lora_A[adapter], layer.lora_B[adapter]
                change = up(down(inputs[0].to(down.weight.dtype)))
                scales = self._scales[:, index] * layer.scaling[adapter]
                ones = (1,) * (output.dim() - 1)
                output = output + change * scales.view(-1, *ones).to(change.dtype)
        return output


def _adapter(index: int) -> str:
    """PEFT's name for a LoRA. Ours may be a path, and torch takes no name with a dot in it."""
    return f"adapter{index}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without PEFT's warnings (at a second LoRA, at names that match more layers than the file
    has), and without the libraries' own reports of what is raised or missing.
    """
    loggers = (diffusers_logging, transformers_logging)
    levels = [logger.get_verbosity() for logger in loggers]
    for logger in loggers:
        logger.set_verbosity(logger.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.set_verbosity(level)


def _require_peft() -> None:
    try:
        import peft  # noqa: F401
    except ImportError:
        raise ConfigurationError("LoRA needs PEFT: pip install 'chairlift[lora]'") from None


def _has(tensors: Mapping[str, Tensor], part: str) -> bool:
    return any(part in key for key in tensors)


def _reason(error: Exception) -> str:
    return textwrap.shorten(str(error) or type(error).__name__, MAX_REASON, placeholder=" …")
