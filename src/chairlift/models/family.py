"""What all families whose networks come from a checkpoint folder have in common."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from chairlift.card import Defaults, Guidance, Limits, ModelCard
from chairlift.errors import ConfigurationError
from chairlift.models.adapter import (
    Adapter,
    Conditioning,
    ForwardBatch,
    Padded,
    combine_guidance,
)
from chairlift.models.attention import choose_attention
from chairlift.models.checkpoint import Checkpoint
from chairlift.models.compiling import Compilation, uncompiled
from chairlift.models.lora import LoraFile, Loras
from chairlift.models.preview import PREVIEW_FILE, LatentPreview
from chairlift.models.preview_fit import LearnedPreview
from chairlift.models.source import Progress
from chairlift.request import GenerationRequest, Prompt
from chairlift.scheduling.batch_key import BatchKey
from chairlift.validation import create_request

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
    compile_whole: ClassVar[bool] = False
    """Whether the denoisers are compiled as a whole, and not block by block."""
    shared_modules: ClassVar[tuple[str, ...]] = ()
    """Modules of the denoiser in which the rows of a forward lie in one sequence."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.device = checkpoint.device
        self.dtype = self.noise_dtype = checkpoint.dtype
        self._checkpoint = checkpoint
        self.compilation: Compilation | None = None
        """How the denoisers are compiled, if they are."""
        self._loras = Loras(checkpoint.source.pipeline, self.shared_modules)

    # ------------------------------------------------------------------ what a family writes

    @classmethod
    def require_packages(cls) -> None:
        """Look for what only this family needs, before anything is loaded.

        Raises:
            ConfigurationError: A package is missing.
        """

    @abstractmethod
    def encode_texts(self, texts: Sequence[str | None]) -> list[Conditioning]:
        """The conditioning of each text; None stands for a negative prompt that wasn't given."""

    @abstractmethod
    def forward(self, batch: ForwardBatch) -> Tensor:
        """One denoiser forward: the output of each entry, ``(guided + rows, …)``. It takes no
        notice of which entries belong together.
        """

    def guide(self, output: Tensor, batch: ForwardBatch) -> Tensor:
        """The denoiser's output with guidance combined: ``(rows, …)``, float32."""
        return combine_guidance(output, batch)

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
        if batch.loras:
            with self._uncompiled(), self._loras.applied(batch.loras, batch.conditioning["loras"]):
                return self.guide(self.forward(batch), batch)
        prepared = batch if self.compilation is None else self.compilation.prepare(batch)
        return self.guide(self.forward(prepared)[: len(batch.latents)], batch)

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

    def compile(self, *, graphs: bool | None = None, backend: str = "inductor") -> None:
        """Compile the denoisers; the first forwards take long, of which :meth:`warm_up` makes
        those that it can.

        Args:
            graphs: Forwards of a denoiser that is compiled as a whole are filled up to a power of
                two, for which there are CUDA graphs; None where they are on CUDA.
            backend: Of ``torch.compile``.
        """
        if graphs is None:
            graphs = self.compile_whole and self.device.type == "cuda"
        self.compilation = Compilation(
            self._denoisers(), whole=self.compile_whole, graphs=graphs, backend=backend
        )

    @torch.inference_mode()
    def warm_up(self, rows: int, progress: Progress = lambda part, done, total: None) -> None:
        """Make a forward of every kind that up to ``rows`` rows of the default size need, so that
        nothing is compiled when they come. Where memory ends, so does it; such forwards are split
        while serving too.
        """
        if self.compilation is None:
            raise ValueError("there is nothing to warm up: the denoiser isn't compiled")
        request = create_request(self.card, id="warm-up", prompt="")
        legs = self.legs(request, self.schedule(request))
        sizes = self.compilation.entries(2 * rows)
        for index, (entries, leg) in enumerate(product(sizes, legs)):
            progress(f"compiled forwards of {entries}", index, len(legs) * len(sizes))
            batch = self.one_entry(leg.key, request).repeated(entries)
            try:
                self.forward(self.compilation.prepare(batch))
                if batch.sequences and entries > 1:  # Not all of one length: there is a mask.
                    texts = {name: texts.shortened() for name, texts in batch.sequences.items()}
                    self.forward(self.compilation.prepare(replace(batch, sequences=texts)))
            except torch.OutOfMemoryError:
                logger.warning("there is no memory for forwards of %d entries", entries)
                return

    def set_attention_backend(self, name: str) -> None:
        """Let the denoisers compute their attention by another of diffusers' backends.

        Raises:
            ConfigurationError: There is no such backend, this denoiser takes none, or what it
                needs isn't installed.
        """
        for network in self._denoisers():
            choose_attention(network, name)

    def _denoisers(self) -> list[Any]:
        parts = (self._checkpoint.parts[name] for name in self.denoisers)
        return [part for part in parts if part is not None]

    def one_entry(self, key: BatchKey, request: GenerationRequest) -> ForwardBatch:
        """The positive side of a row, with nothing in its latents."""
        [text] = self.encode([request.positive])
        tensors = {**text.tensors, **self.added_conditioning(request)}
        return ForwardBatch(
            key=key,
            latents=torch.zeros(1, *key.latent_shape, device=self.device, dtype=self.dtype),
            timesteps=torch.full((1,), 500.0, device=self.device),
            conditioning={name: values.to(self.device)[None] for name, values in tensors.items()},
            sequences={
                name: Padded(
                    values[None], (len(values),), torch.tensor([len(values)], device=self.device)
                )
                for name, values in text.sequences.items()
            },
            guided=0,
            loras=frozenset(),
            cfg_scales=torch.zeros(0, *(1,) * len(key.latent_shape), device=self.device),
        )

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

    def _uncompiled(self) -> AbstractContextManager[Any]:
        """Which LoRAs a forward uses is decided layer by layer, which can't be compiled."""
        return nullcontext() if self.compilation is None else uncompiled()

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
