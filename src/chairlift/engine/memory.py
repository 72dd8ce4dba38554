"""How much memory there is for rows."""

from __future__ import annotations

import psutil
import torch

SHARE = 0.7
"""Of what is free when the model is loaded; the rest is for the denoiser's activations."""


def free_memory(device: torch.device) -> float:
    """Bytes for rows and for decoding them, on the device that the model is on."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    else:
        free = psutil.virtual_memory().available
    return SHARE * free
