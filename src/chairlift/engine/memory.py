"""How much memory there is for rows, and what to do when there is none."""

from __future__ import annotations

import contextlib
import ctypes

import psutil
import torch

SHARE = 0.7
"""Of what is free when the model is loaded; the rest is for the denoiser's activations."""

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Numbers of settings in glibc's ``malloc.h``."""
KEPT_BYTES = 2**31 - 1
"""So much may be free before any of it is given back; ``mallopt`` takes no more."""
OWN_MAPPING_BYTES = 2**30
"""Blocks of this size are mapped each by itself, and given back when they are freed."""


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


def keep_freed_memory() -> None:
    """Let the C library keep what this process frees for what it allocates next. By default glibc
    gives large blocks back to the system at once, so that the activations of every forward on a CPU
    are mapped, and zeroed page by page, anew. Other libraries are left as they are.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(MMAP_THRESHOLD, OWN_MAPPING_BYTES)
