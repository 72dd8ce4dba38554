"""Write the trained parts as an ordinary diffusers folder, ``src/chairlift/models/bundled``.

python -m training.export
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline
from transformers import CLIPTextModel, CLIPTokenizer

from training.denoiser import BETAS, RUNS, create_unet, load_pictures
from training.vae import load_vae

FOLDER = Path(__file__).parent.parent / "src" / "chairlift" / "models" / "bundled"


def create_pipeline(name: str, channels: tuple[int, ...], layers: int) -> StableDiffusionPipeline:
    """The stock pipeline around the averaged weights."""
    _, _, scaling_factor = load_pictures()
    vae = load_vae()
    vae.register_to_config(scaling_factor=scaling_factor)
    unet = create_unet(channels, layers)
    unet.load_state_dict(torch.load(RUNS / f"{name}.pt", weights_only=True)["average"])
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel.from_pretrained(RUNS / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(RUNS / "tokenizer"),
        unet=unet.eval(),
        scheduler=EulerDiscreteScheduler(
            prediction_type="v_prediction", timestep_spacing="trailing", **BETAS
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def export(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Save in half precision: 16 bits hold these weights to a thousandth, in half the space."""
    pipeline.to(torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    # transformers loads in the type that the config names; the type to compute in is float32.
    config = folder / "text_encoder" / "config.json"
    settings = json.loads(config.read_text())
    settings["dtype"] = "float32"
    config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, nargs="+", default=[96, 192])
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--name", default="denoiser", help="name of the checkpoint")
    parser.add_argument("-o", "--output", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    made = create_pipeline(arguments.name, tuple(arguments.channels), arguments.layers)
    export(made, arguments.output)
    weights = sum(path.stat().st_size for path in arguments.output.rglob("*.safetensors"))
    print(f"{arguments.output}: {weights / 1e6:.1f} MB of weights")
