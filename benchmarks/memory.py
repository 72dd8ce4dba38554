"""How much memory the weights of the shipped configs take.

    python -m benchmarks.memory

The networks are built without memory (torch's meta device), so this needs neither weights nor a
large machine; activations are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from chairlift.models.checkpoint import random_network
from chairlift.models.registry import find_family
from chairlift.models.source import LoadFormat, ModelSource, find_local_model, shipped_configs

BYTES = 2
"""Of a weight in bfloat16."""


def networks(source: ModelSource) -> Iterator[tuple[str, nn.Module]]:
    """The networks of a checkpoint by name, without their weights."""
    for name, cls in find_family(source).classes.items():
        if source.has(name) and issubclass(cls, nn.Module):
            folder = source.folder / name
            yield name, random_network(folder, cls, torch.device("meta"), torch.bfloat16)


def gibibytes(parameters: int) -> str:
    return f"{parameters * BYTES / 2**30:.1f}"


def main() -> None:
    print("| config | denoiser | text encoders | VAE | together, GiB in bfloat16 |")
    print("| --- | --- | --- | --- | --- |")
    for config in shipped_configs():
        source = find_local_model(config, LoadFormat.DUMMY)
        counts = {"denoiser": 0, "text": 0, "vae": 0}
        for name, network in networks(source):
            kind = "text" if name.startswith("text") else "vae" if name == "vae" else "denoiser"
            counts[kind] += sum(weights.numel() for weights in network.parameters())
        cells = " | ".join(gibibytes(count) for count in counts.values())
        print(f"| `{config}` | {cells} | {gibibytes(sum(counts.values()))} |", flush=True)


if __name__ == "__main__":
    main()
