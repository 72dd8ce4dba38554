"""A contestant as a child process: started, waited for, and ended with all that it has started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import psutil

from benchmarks.peers.contestants import Contestant
from benchmarks.peers.settings import Place, Settings

ROOT = Path(__file__).resolve().parents[2]
MARK = "CHAIRLIFT_PEERS_PROCESS"
"""An environment variable that a contestant's processes inherit, by which they are found."""
START_SECONDS = 180.0
STOP_SECONDS = 30.0
LOOK_SECONDS = 0.1
"""Between two looks whether something has come true."""
QUOTED = 3000
"""Characters of what a contestant has said, in messages."""


@contextmanager
def running(
    contestant: Contestant, settings: Settings, *, folder: str, python: Path
) -> Iterator[str]:
    """Run a contestant, and end it afterwards.

    Args:
        contestant: Which.
        settings: With which.
        folder: Of the model.
        python: Of the peers' environment.

    Yields:
        Its URL, once all its processes can answer.

    Raises:
        RuntimeError: It has ended before, or isn't ready in time.
    """
    # Not under TMPDIR, which may be long: Ray makes sockets here, whose paths are short.
    with tempfile.TemporaryDirectory(prefix="peer-", dir="/tmp", ignore_cleanup_errors=True) as own:
        log = Path(own) / "log"
        place = Place(port=free_ports(1)[0], folder=folder, temporary=own)
        url = f"http://127.0.0.1:{place.port}"
        with log.open("wb") as output:
            process = subprocess.Popen(
                contestant.command(place, settings, python),
                cwd=ROOT,
                env=_environment(own, settings.threads if contestant.is_peer else None),
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,  # No new session: the kernel would give it a share of its own.
            )
        try:
            _wait_until_ready(process, url + contestant.ready_path, contestant.name, log)
            yield url
        finally:
            _end(process, own)


def _environment(mark: str, threads: int | None) -> dict[str, str]:
    environment = os.environ | {
        MARK: mark,
        "TMPDIR": mark,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "HF_HUB_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # By default Ray's workers give way to everybody.
    }
    if threads is not None:  # Chairlift chooses for itself.
        environment["OMP_NUM_THREADS"] = str(threads)
    return environment


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, name: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, timeout=START_SECONDS).is_success:
                return
        except httpx.TransportError:
            pass  # It doesn't listen yet.
        time.sleep(LOOK_SECONDS)
    said = log.read_text(errors="replace")[-QUOTED:]
    raise RuntimeError(f"{name} is not ready; it has said:\n{said}")


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    """Ask it to end, and kill what is left after a while."""
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    _gone, alive = psutil.wait_procs(_processes(mark), timeout=3)
    for left in alive:
        left.kill()
    process.wait()
    psutil.wait_procs(alive, timeout=STOP_SECONDS)


def _processes(mark: str) -> list[psutil.Process]:
    """Everything that the contestant has started and that still runs."""
    return [one for one in psutil.process_iter() if _mark_of(one) == mark]


def _mark_of(process: psutil.Process) -> str | None:
    try:
        mark: str | None = process.environ().get(MARK)
    except psutil.Error:  # Somebody else's, or it has ended.
        return None
    return mark


def free_ports(count: int) -> list[int]:
    """On which nobody listens, all different."""
    with ExitStack() as open_ones:
        listening = [
            open_ones.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [one.getsockname()[1] for one in listening]
