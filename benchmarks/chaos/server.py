"""A server that can be broken: a child process on a port that it has again after each start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import psutil

START_SECONDS = 120.0
"""How long a server may take to become ready."""
STOP_SECONDS = 60.0
LOOK_SECONDS = 0.05
"""Between two looks whether something has come true."""
RESTARTED = "a new one starts in"
"""What the server logs when it replaces a worker."""


class Server:
    """``chairlift serve`` with all its files in one folder.

    Args:
        folder: Of the data, the temporary files and the log.
        model: As on the command line, or ``bundled``.
        options: More of the command line.
    """

    def __init__(self, folder: Path, model: str, options: Sequence[str] = ()) -> None:
        self.data, self._temporary, self._log = (
            folder / name for name in ("data", "temporary", "server.log")
        )
        self._cache = folder / "cache"  # torch's, which is kept on purpose
        self._temporary.mkdir()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "chairlift", "serve"]
        self._command += [] if model == "bundled" else [model]
        self._command += ["--port", str(port), "--data-dir", str(self.data)]
        self._command += options
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, and wait until it takes requests."""
        with self._log.open("ab") as log:
            environment = os.environ | {
                "TMPDIR": str(self._temporary),
                "TORCHINDUCTOR_CACHE_DIR": str(self._cache),
            }
            self._process = subprocess.Popen(self._command, stderr=log, env=environment)
        await self.wait_until_ready()

    async def wait_until_ready(self) -> None:
        """Wait until there is a worker that takes requests.

        Raises:
            RuntimeError: The server has ended, or it takes longer than ``START_SECONDS``.
        """
        deadline = time.monotonic() + START_SECONDS
        async with httpx.AsyncClient(base_url=self.url, timeout=START_SECONDS) as client:
            while time.monotonic() < deadline:
                if self._running.poll() is not None:
                    break
                try:
                    if (await client.get("/ready")).is_success:
                        return
                except httpx.TransportError:
                    pass  # It doesn't listen yet.
                await asyncio.sleep(LOOK_SECONDS)
        raise RuntimeError(f"the server is not ready; it has said:\n{self.said[-2000:]}")

    @property
    def front_end(self) -> psutil.Process:
        """The process that was started."""
        return psutil.Process(self._running.pid)

    async def worker(self) -> psutil.Process:
        """The worker process, as soon as there is one."""
        while True:
            for child in self.front_end.children():
                try:
                    if "chairlift.engine.worker" in child.cmdline():
                        return child
                except psutil.Error:
                    pass  # It has just ended.
            await asyncio.sleep(LOOK_SECONDS)

    def kill(self) -> None:
        """SIGKILL."""
        self._running.kill()
        self._running.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        if self._running.poll() is None:
            self._running.send_signal(signal.SIGTERM)
        return self._running.wait(STOP_SECONDS)

    @property
    def said(self) -> str:
        """All that was logged."""
        return self._log.read_text()

    @property
    def restarts(self) -> int:
        """How many workers were replaced."""
        return self.said.count(RESTARTED)

    def leftovers(self) -> list[str]:
        """Processes and temporary files that are still there; after the end there is none."""
        processes = [
            f"process {process.pid} {process.name()}"
            for process in psutil.process_iter()
            if _temporary_folder(process) == str(self._temporary)
        ]
        drafts = list(self.data.glob("pictures/*.draft"))
        return processes + [str(path) for path in [*self._temporary.iterdir(), *drafts]]

    def end_processes(self) -> None:
        """End whatever is left of it."""
        for process in psutil.process_iter():
            if _temporary_folder(process) == str(self._temporary):
                process.kill()
        self._running.wait()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was never started"
        return self._process


def _temporary_folder(process: psutil.Process) -> str | None:
    """Which folder for temporary files a process was started with."""
    try:
        folder: str | None = process.environ().get("TMPDIR")
    except psutil.Error:  # Somebody else's, or it has ended.
        return None
    return folder


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port
