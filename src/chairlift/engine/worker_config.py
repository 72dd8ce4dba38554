"""What an engine process is started with. Apart from the worker, so that the front end can say it
without importing torch.
"""

from __future__ import annotations

import msgspec

from chairlift.logs import LogFormat
from chairlift.scheduling.names import DEFAULT_POLICY

CANT_START = 2
"""Exit status of a worker that has said why it can't start."""


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One engine process."""

    endpoint: str = ""
    """ZeroMQ address of the front end's socket; filled in by the client."""
    number: int = 0
    """Which of several workers it is; of several CUDA devices it takes that one."""
    workers: int = 1
    """How many there are, where they share one device."""
    model: str | None = None
    """A folder, a hub id, ``fake``, or None for the bundled model."""
    device: str = "auto"
    dtype: str = "auto"
    load_format: str = "auto"
    loras: list[tuple[str, str]] = []
    """Name and path of each."""
    offload_text_encoders: bool = False
    preview_decoder: str | None = None
    """Folder of an ``AutoencoderTiny`` that makes the previews."""
    attention_backend: str | None = None
    """One of diffusers' names; None is torch's own attention."""
    compile: bool = False
    """Whether the denoiser is compiled, which takes a while at the start."""
    batching: str = "continuous"
    policy: str = DEFAULT_POLICY
    costs: str | None = None
    """Path of a cost table; without one, costs are learned from nothing."""
    strict: bool = False
    """Whether requests that can't meet their deadline are refused."""
    max_batch_size: int | None = None
    """None fills forwards to the knee."""
    batch_delay: float = 0.0
    """Seconds."""
    metadata: bool = True
    """Whether files carry their picture's settings."""
    log_format: LogFormat = "text"
    """How the lines on standard error look."""
