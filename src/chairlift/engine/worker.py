"""The engine as a process of its own: a loop, and a courier that moves messages.

Started by :class:`chairlift.engine.supervisor.Supervisor` as ``python -m chairlift.engine.worker``;
its argument is its configuration as JSON. When standard input ends, the front end is gone, and so
goes the worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
import threading
from pathlib import Path

import msgspec

from chairlift.engine.courier import Courier
from chairlift.engine.messages import Devices, Loading, Ready, StartFailed
from chairlift.engine.worker_config import CANT_START, WorkerConfig
from chairlift.errors import ConfigurationError
from chairlift.logs import LineWriter

PR_SET_PDEATHSIG = 1


def run(config: WorkerConfig, courier: Courier) -> int:
    """Load the model, say so, and turn the loop until told to stop; the exit status."""
    # Only here: importing torch takes seconds, in which the courier shows that we are alive.
    import torch

    from chairlift.engine.devices import choose_threads, count_devices, count_sharers, own_device
    from chairlift.engine.loop import Loop
    from chairlift.engine.memory import free_memory, keep_freed_memory
    from chairlift.engine.warm_up import warm_up
    from chairlift.models.lora import LoraFile
    from chairlift.models.registry import hide_progress_bars, load_model
    from chairlift.scheduling.scheduler import MAX_BATCH_SIZE, Scheduler
    from chairlift.tables import load_costs

    def progress(part: str, done: int, total: int) -> None:
        courier.send(Loading(part=part, done=done, total=total))

    keep_freed_memory()
    rows = config.max_batch_size or MAX_BATCH_SIZE
    hide_progress_bars()
    courier.send(Devices(count=count_devices(config)))
    try:
        device = own_device(config)
        if device.index is not None:
            torch.cuda.set_device(device)  # So that no other one is touched by mistake.
        sharers = count_sharers(config)
        torch.set_num_threads(choose_threads(sharers))
        adapter = load_model(
            config.model,
            device=str(device),
            dtype=config.dtype,
            load_format=config.load_format,
            loras=[LoraFile(name, Path(path)) for name, path in config.loras],
            offload_text_encoders=config.offload_text_encoders,
            preview_decoder=Path(config.preview_decoder) if config.preview_decoder else None,
            attention_backend=config.attention_backend,
            compile_rows=rows if config.compile else None,
            progress=progress,
        )
        scheduler = Scheduler(
            batching=config.batching,
            policy=config.policy,
            costs=load_costs(config.costs, adapter.card.row_entries, adapter.card.id),
            max_batch_size=config.max_batch_size,
            batch_delay=config.batch_delay,
        )
    except ConfigurationError as error:
        courier.send(StartFailed(reason=str(error)))
        courier.close()
        return CANT_START
    scheduler.limit_memory(free_memory(adapter.device) / sharers)
    warm_up(adapter, scheduler.costs, small=not config.compile)
    loop = Loop(adapter, scheduler, courier.send, strict=config.strict, metadata=config.metadata)
    courier.deliver_to(loop.send)
    # What was imported and loaded stays, and is a few hundred thousand objects: looking through
    # them for garbage now and then would hold up a tick for half a second.
    gc.collect()
    gc.freeze()
    courier.send(Ready(card=adapter.card))
    loop.run()
    return 0


def _wake_with_parent_death() -> None:
    """A process that is stopped sees no end of its standard input: if the front end dies then, the
    kernel shall continue it. Only Linux does.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # A C library without it.
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGCONT)


def _exit_with_parent(endpoint: str) -> None:
    # Not by sys.stdin, whose lock this thread would still hold while the interpreter ends.
    while os.read(0, 4096):
        pass
    # A front end that was killed before it has heard from us has left its socket.
    socket = Path(endpoint.removeprefix("ipc://"))
    with contextlib.suppress(OSError):
        socket.unlink(missing_ok=True)
        socket.parent.rmdir()
    os._exit(0)


def main() -> None:
    _wake_with_parent_death()
    # An interrupt on the terminal reaches every process, and what ends a service may; the front end
    # decides what it means.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    config = msgspec.json.decode(sys.argv[1], type=WorkerConfig)
    logging.basicConfig(level=logging.INFO, handlers=[LineWriter(config.log_format)])
    threading.Thread(
        target=_exit_with_parent, args=(config.endpoint,), name="parent", daemon=True
    ).start()
    sys.exit(run(config, Courier(config.endpoint)))


if __name__ == "__main__":
    main()
