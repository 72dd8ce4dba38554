"""Stable Diffusion 1.x and 2.x, and every checkpoint of ``StableDiffusionPipeline``.

The bundled model is one of them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from chairlift.card import Defaults, Limits, ModelCard
from chairlift.errors import ModelError
from chairlift.models.adapter import Conditioning, ForwardBatch, combine_guidance
from chairlift.models.source import ModelSource, Progress
from chairlift.request import GenerationRequest
from chairlift.sampling.schedule import DIFFUSION_SAMPLERS, Schedule, diffusion_schedule
from chairlift.scheduling.batch_key import BatchKey

logger = logging.getLogger(__name__)

MAX_STEPS = 200
COMPONENTS = ("tokenizer", "text_encoder", "unet", "vae", "scheduler")

_SAMPLER_OF_SCHEDULER = {
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
    "HeunDiscreteScheduler": "heun",
    "DDIMScheduler": "ddim",
    "PNDMScheduler": "plms",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
}


class StableDiffusion:
    """The adapter. See :class:`chairlift.models.adapter.Adapter`."""

    def __init__(
        self,
        *,
        name: str,
        tokenizer: CLIPTokenizer,
        text_encoder: CLIPTextModel,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        scheduler_config: Mapping[str, Any],
        settings: Mapping[str, Any],
    ) -> None:
        self.device, self.dtype = unet.device, unet.dtype
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder.eval()
        self._unet = unet.eval().to(memory_format=torch.channels_last)
        self._vae = vae.eval().to(memory_format=torch.channels_last)
        self._scheduler_config = scheduler_config
        self._scale = 2 ** (len(vae.config.block_out_channels) - 1)
        self._text_shape = f"{tokenizer.model_max_length}x{unet.config.cross_attention_dim}"
        self.card = self._create_card(name, settings)

    @classmethod
    def load(
        cls, source: ModelSource, device: torch.device, dtype: torch.dtype, progress: Progress
    ) -> StableDiffusion:
        """Load the networks of a checkpoint folder."""
        folder = source.folder
        parts: dict[str, Any] = {}
        options: dict[str, Any] = {"use_safetensors": True, "torch_dtype": dtype}
        loaders: dict[str, Callable[[], Any]] = {
            "tokenizer": lambda: CLIPTokenizer.from_pretrained(folder / "tokenizer"),
            "text_encoder": lambda: CLIPTextModel.from_pretrained(
                folder / "text_encoder", use_safetensors=True, dtype=dtype
            ).to(device),
            "unet": lambda: UNet2DConditionModel.from_pretrained(folder / "unet", **options).to(
                device
            ),
            "vae": lambda: AutoencoderKL.from_pretrained(folder / "vae", **options).to(device),
        }
        for index, (name, load) in enumerate(loaders.items()):
            progress(name, index, len(loaders))
            parts[name] = load()
        progress("ready", len(loaders), len(loaders))
        if parts["unet"].config.time_cond_proj_dim is not None:
            raise ModelError(f"{source.name}: guidance-distilled UNets (LCM) are not supported")
        config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        return cls(name=source.name, scheduler_config=config, settings=source.settings, **parts)

    def batch_key(self, request: GenerationRequest) -> BatchKey:
        shape = (
            int(self._unet.config.in_channels),
            request.height // self._scale,
            request.width // self._scale,
        )
        return BatchKey(self.card.id, shape, f"text {self._text_shape}")

    def is_guided(self, request: GenerationRequest) -> bool:
        return request.guidance_scale > 1

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str]) -> list[Conditioning]:
        tokens = self._tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).to(self.device)
        use_mask = getattr(self._text_encoder.config, "use_attention_mask", False)
        hidden = self._text_encoder(
            tokens.input_ids, attention_mask=tokens.attention_mask if use_mask else None
        ).last_hidden_state
        return [Conditioning({"text": row.clone()}) for row in hidden]

    def schedule(self, request: GenerationRequest) -> Schedule:
        return diffusion_schedule(request.sampler, request.steps, self._scheduler_config)

    def initial_noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=self.dtype).float()

    @torch.inference_mode()
    def predict(self, batch: ForwardBatch) -> Tensor:
        output = self._unet(
            batch.latents.contiguous(memory_format=torch.channels_last),
            batch.timesteps,
            encoder_hidden_states=batch.conditioning["text"],
            return_dict=False,
        )[0]
        return combine_guidance(output.contiguous(), batch)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        latents = (latents.to(self.dtype) / self._vae.config.scaling_factor).contiguous(
            memory_format=torch.channels_last
        )
        pixels = self._vae.decode(latents, return_dict=False)[0].float()
        levels = (pixels / 2 + 0.5).clamp(0, 1) * 255
        decoded: Tensor = levels.round().to(torch.uint8).permute(0, 2, 3, 1)
        return decoded

    def _create_card(self, name: str, settings: Mapping[str, Any]) -> ModelCard:
        side = int(self._unet.config.sample_size) * self._scale
        networks = (self._text_encoder, self._unet, self._vae)
        return ModelCard(
            id=name,
            pipeline="StableDiffusionPipeline",
            parameters=sum(p.numel() for network in networks for p in network.parameters()),
            dtype=str(self.dtype).removeprefix("torch."),
            device=str(self.device),
            defaults=Defaults(
                width=side,
                height=side,
                steps=settings.get("steps", 30),
                guidance_scale=settings.get("guidance_scale", 7.5),
                sampler=settings.get("sampler", self._default_sampler()),
            ),
            limits=Limits(
                # The stock pipeline refuses sides that aren't multiples of 8.
                size_multiple=max(8, self._scale),
                max_pixels=settings.get("max_pixels", 4 * side * side),
                max_steps=MAX_STEPS,
            ),
            samplers=DIFFUSION_SAMPLERS,
        )

    def _default_sampler(self) -> str:
        scheduler = str(self._scheduler_config.get("_class_name"))
        sampler = _SAMPLER_OF_SCHEDULER.get(scheduler)
        if sampler is None:
            logger.warning("%s isn't offered as a sampler; the default is euler", scheduler)
            return "euler"
        if sampler == "dpmpp_2m" and self._scheduler_config.get("use_karras_sigmas"):
            return "dpmpp_2m_karras"
        return sampler
