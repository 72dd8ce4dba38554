"""What all families whose networks come from a checkpoint folder have in common."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from chairlift.card import Defaults, Guidance, Limits, ModelCard
from chairlift.errors import ConfigurationError
from chairlift.models.adapter import Adapter, Conditioning, ForwardBatch
from chairlift.models.checkpoint import Checkpoint
from chairlift.models.lora import LoraFile, Loras
from chairlift.models.preview import PREVIEW_FILE, LatentPreview
from chairlift.models.preview_fit import LearnedPreview
from chairlift.request import GenerationRequest, Prompt

MAX_STEPS = 200

logger = logging.getLogger(__name__)


def default_sampler(scheduler_config: Mapping[str, Any], known: Mapping[str, str]) -> str:
    """The sampler of a checkpoint's own scheduler; euler, and a warning, where it isn't offered.

    Args:
        scheduler_config: Names the scheduler's class.
        known: Samplers by the class of their scheduler.
    """
    scheduler = str(scheduler_config.get("_class_name"))
    if scheduler not in known:
        logger.warning("%s isn't offered as a sampler; the default is euler", scheduler)
    return known.get(scheduler, "euler")


class Family(Adapter):
    """An adapter of a checkpoint in diffusers format.

    Args:
        checkpoint: Its networks and tokenizers.
    """

    classes: ClassVar[Mapping[str, Any]]
    """The class of each component."""
    optional: ClassVar[frozenset[str]] = frozenset()
    """Components that a checkpoint can do without."""
    denoisers: ClassVar[tuple[str, ...]] = ("transformer",)
    """The components that predict, the one for the highest noise first."""
    shared_modules: ClassVar[tuple[str, ...]] = ()
    """Modules of the denoiser in which the rows of a forward lie in one sequence."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.device = checkpoint.device
        self.dtype = self.noise_dtype = checkpoint.dtype
        self._checkpoint = checkpoint
        self._loras = Loras(checkpoint.source.pipeline, self.shared_modules)

    # ------------------------------------------------------------------ what a family writes

    @abstractmethod
    def encode_texts(self, texts: Sequence[str | None]) -> list[Conditioning]:
        """The conditioning of each text; None stands for a negative prompt that wasn't given."""

    @abstractmethod
    def denoise(self, batch: ForwardBatch) -> Tensor:
        """One denoiser forward with guidance combined: ``(rows, …)``."""

    @abstractmethod
    def decode_latents(self, latents: Tensor) -> Tensor:
        """As :meth:`Adapter.decode`."""

    def row_conditioning(self, request: GenerationRequest) -> Mapping[str, Tensor]:
        """As :meth:`Adapter.added_conditioning`."""
        return {}

    # ------------------------------------------------------------------ the adapter

    @torch.inference_mode()
    def encode(self, prompts: Sequence[Prompt]) -> list[Conditioning]:
        names = frozenset(lora.name for prompt in prompts for lora in prompt.loras)
        scales = torch.stack([self._loras.scales(prompt.loras) for prompt in prompts])
        with self._awake(), self._loras.applied(names, scales.to(self.device)):
            return self.encode_texts([prompt.text for prompt in prompts])

    def added_conditioning(self, request: GenerationRequest) -> Mapping[str, Tensor]:
        added = dict(self.row_conditioning(request))
        if self._loras:
            added["loras"] = self._loras.scales(request.loras)
        return added

    @torch.inference_mode()
    def predict(self, batch: ForwardBatch) -> Tensor:
        if not batch.loras:
            return self.denoise(batch)
        with self._loras.applied(batch.loras, batch.conditioning["loras"]):
            return self.denoise(batch)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        return self.decode_latents(latents)

    def add_loras(self, files: Sequence[LoraFile]) -> None:
        """Read LoRAs into the networks that they change.

        Raises:
            ModelError: A file is missing or broken, or doesn't fit this model.
        """
        networks = {
            name: part
            for name, part in self._checkpoint.parts.items()
            if part is not None and (name in self.denoisers or name.startswith("text_encoder"))
        }
        for file in files:
            self._loras.add(file, networks)
        self.card = replace(self.card, loras=self._loras.names)

    def load_previewer(self, channels: int, decoder: Path | None = None) -> None:
        """Choose what makes previews: the decoder in the folder that the operator names; without,
        the layers in the checkpoint's own folder; without those, what is learned from the first
        finished pictures.

        Args:
            channels: Of the latents.
            decoder: Of an ``AutoencoderTiny``.

        Raises:
            ConfigurationError: The decoder or the file is broken, or is another model's, or a
                decoder is named and the model makes videos.
        """
        file = self._checkpoint.source.folder / PREVIEW_FILE
        if self.card.is_video:
            if decoder is not None:
                raise ConfigurationError(
                    "a preview decoder is for pictures; this model is for videos"
                )
        elif decoder is not None:
            from chairlift.models.preview_decoder import load_tiny_decoder

            self.previewer = load_tiny_decoder(decoder, channels, self.device, self.dtype)
        elif file.exists():
            self.previewer = LatentPreview.load(file, channels, self.device)
        else:
            self.previewer = LearnedPreview(self.device)

    def compile(self) -> None:
        """Compile the denoisers' repeated blocks, for any number of rows; the first forwards of
        each shape take long.
        """
        for name in self.denoisers:
            if self._checkpoint.parts[name] is not None:
                self._checkpoint.parts[name].compile_repeated_blocks(dynamic=True)

    # ------------------------------------------------------------------ for families

    def create_card(
        self,
        *,
        defaults: Defaults,
        limits: Limits,
        samplers: tuple[str, ...],
        guidance: Guidance,
    ) -> ModelCard:
        """The card, in which ``chairlift.json`` has the last word."""
        settings = self._checkpoint.source.settings
        names = {field.name for field in fields(Defaults)}
        chosen = {name: value for name, value in settings.items() if name in names}
        return ModelCard(
            id=self._checkpoint.source.name,
            pipeline=self._checkpoint.source.pipeline,
            components=self._checkpoint.components(),
            dtype=str(self.dtype).removeprefix("torch."),
            device=str(self.device),
            defaults=replace(defaults, **chosen),
            limits=replace(limits, max_pixels=settings.get("max_pixels", limits.max_pixels)),
            samplers=samplers,
            guidance=guidance,
        )

    @contextmanager
    def _awake(self) -> Iterator[None]:
        """Text encoders that rest in main memory are on the device meanwhile."""
        if not self._checkpoint.offload:
            yield
            return
        for encoder in self._checkpoint.text_encoders:
            encoder.to(self.device)
        try:
            yield
        finally:
            for encoder in self._checkpoint.text_encoders:
                encoder.to("cpu")
