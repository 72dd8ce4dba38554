"""How much memory there is for rows, and what to do when there is none."""

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


def is_out_of_memory(error: Exception) -> bool:
    """Whether a smaller batch may do."""
    # On a CPU, torch raises a plain RuntimeError.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def free_cache(device: torch.device) -> None:
    """Give back what torch keeps for later, which may lie in pieces that are too small."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
