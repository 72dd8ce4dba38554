"""What it costs to mix LoRAs in one forward.

    python -m benchmarks.loras

Eight rows of the bundled model's denoiser, two for each of four LoRAs (rank 16, all attention
layers), three ways: Chairlift's hook in one forward; PEFT's mixed batches in one forward, which
know no scales of rows; and one forward for each LoRA, as if it were part of the batch key. And one
forward without any LoRA, as the floor. The four alternate, and ratios are taken round by round.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor

from benchmarks.machine import describe_machine, spread
from chairlift.models.lora import Loras
from chairlift.models.source import BUNDLED_FOLDER

ROWS = 8
NAMES = ["a", "b", "c", "d"]
OF_ROW = [NAMES[row * len(NAMES) // ROWS] for row in range(ROWS)]


def create_denoiser() -> UNet2DConditionModel:
    """The bundled model's, with four LoRAs of random weights."""
    denoiser = UNet2DConditionModel.from_pretrained(BUNDLED_FOLDER / "unet").float().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns at the second one.
        for name in NAMES:
            modules = ["to_q", "to_k", "to_v", "to_out.0"]
            denoiser.add_adapter(LoraConfig(r=16, target_modules=modules), name)
    torch.manual_seed(0)
    for name, weights in denoiser.named_parameters():
        if "lora_B" in name:
            weights.data.normal_(std=0.02)
    return denoiser.requires_grad_(False)


def layers(denoiser: Any) -> list[Any]:
    return [module for module in denoiser.modules() if isinstance(module, LoraLayer)]


@contextmanager
def mixed_by_peft(denoiser: Any) -> Iterator[None]:
    """Every layer is told the LoRA of each row."""

    def tell(layer: Any, arguments: Any, options: dict[str, Any]) -> Any:
        return arguments, options | {"adapter_names": OF_ROW}

    hooks = [layer.register_forward_pre_hook(tell, with_kwargs=True) for layer in layers(denoiser)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class Ways:
    """Each way as a function that makes the same eight predictions."""

    def __init__(self) -> None:
        self.denoiser = create_denoiser()
        torch.manual_seed(1)
        config = self.denoiser.config
        side = config.sample_size
        self.latents = torch.randn(ROWS, config.in_channels, side, side)
        self.text = torch.randn(ROWS, 32, config.cross_attention_dim)
        self.loras = Loras("StableDiffusionPipeline")
        self.loras.names = tuple(NAMES)
        self.scales = torch.tensor([[float(name == own) for name in NAMES] for own in OF_ROW])

    def forward(self, rows: slice = slice(None)) -> Tensor:
        output: Tensor = self.denoiser(
            self.latents[rows], 500, encoder_hidden_states=self.text[rows], return_dict=False
        )[0]
        return output

    def without(self) -> Tensor:
        self.denoiser.disable_adapters()
        return self.forward()

    def hooked(self) -> Tensor:
        self.denoiser.disable_adapters()
        hooks = [layer.register_forward_hook(self.loras._add) for layer in layers(self.denoiser)]
        with self.loras.applied(NAMES, self.scales):
            output = self.forward()
        for hook in hooks:
            hook.remove()
        return output

    def peft(self) -> Tensor:
        self.denoiser.enable_adapters()
        with mixed_by_peft(self.denoiser):
            return self.forward()

    def apart(self) -> Tensor:
        self.denoiser.enable_adapters()
        outputs = []
        for name in NAMES:
            self.denoiser.set_adapter(name)
            start = OF_ROW.index(name)
            outputs.append(self.forward(slice(start, start + OF_ROW.count(name))))
        return torch.cat(outputs)


def seconds(way: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    ways = Ways()
    exact = ways.apart()
    print(f"{ROWS} rows, {len(NAMES)} LoRAs of rank 16, on {describe_machine()}\n")
    print("| way | beside no LoRA | largest difference to LoRA by LoRA |\n| --- | --- | --- |")
    alternatives = {"one hook": ways.hooked, "PEFT, mixed": ways.peft, "LoRA by LoRA": ways.apart}
    times = [
        {name: seconds(way) for name, way in {"none": ways.without, **alternatives}.items()}
        for _ in range(rounds + 3)
    ][3:]
    for name, way in alternatives.items():
        ratio = spread([one[name] / one["none"] for one in times])
        print(f"| {name} | {ratio} | {float((way() - exact).abs().max()):.1e} |")


if __name__ == "__main__":
    main()
