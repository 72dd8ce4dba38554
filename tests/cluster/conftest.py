"""One cluster for all tests that need a real one: Ray on this machine, in processes of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil
import pytest

from tests.running import PATIENCE_SECONDS

KEY = "secret"
PROGRAM = Path(__file__).with_name("cluster_process.py")
SETTINGS = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    # What the autoscaler sees is as fresh as a test's patience wants it.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.3",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.3",
}


class Cluster:
    """Two connections to it: commands, and HTTP."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=PATIENCE_SECONDS,
        )

    def order(self, command: str, argument: Any = None) -> Any:
        """Have something done, see :mod:`tests.cluster.cluster_process`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([command, argument]) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith('["done"'):
                return json.loads(line)[1]
        pytest.fail("the cluster has ended")

    def replicas(self) -> list[psutil.Process]:
        """The processes of the replicas."""
        return [
            process
            for process in psutil.Process(self._process.pid).children(recursive=True)
            if ":Engine" in " ".join(_command(process))
        ]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Ray on this machine; no process of it is left afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Its sockets have long names already.
    with (
        TemporaryDirectory(prefix="ray-") as temporary,
        Path(temporary, "stderr").open("w+") as said,
    ):
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(PROGRAM), temporary, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=os.environ | SETTINGS | {"PYTHONPATH": str(PROGRAM.parents[2])},
            text=True,
        )
        try:
            with process:
                cluster = Cluster(process, port)
                yield cluster
                others = psutil.Process(process.pid).children(recursive=True)
                cluster.http.close()
        finally:
            process.kill()
            said.seek(0)
            sys.stderr.write(said.read())
        assert process.returncode == 0
        assert psutil.wait_procs(others, timeout=PATIENCE_SECONDS)[1] == []


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster
