"""A real cluster for tests: Ray on this machine, in processes of its own."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil
import pytest

from chairlift.cluster.autoscaling import AutoscalingOptions
from chairlift.cluster.config import ClusterConfig, to_arguments
from chairlift.engine.worker_config import WorkerConfig
from tests.running import GENERATIONS, PATIENCE_SECONDS, connect, wait_until

KEY = "secret"
PROGRAM = Path(__file__).with_name("cluster_process.py")
SETTINGS = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray gives its processes a niceness of 15: beside other tests they hardly get on.
    "RAY_worker_niceness": "0",
    # What the autoscaler sees is as fresh as a test's patience wants it.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.3",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.3",
}
WORKER = WorkerConfig(model="fake:0.02", max_batch_size=16)


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

    def deploy(self, folder: Path, **options: Any) -> None:
        """A cluster of these options, see :func:`create_config`; returns when it takes requests."""
        self.order("deploy", to_arguments(create_config(folder, **options)))

    def replicas(self, node: int | None = None) -> list[psutil.Process]:
        """The processes of the replicas, of all nodes or of the one of this process."""
        return self._actors("Engine", node)

    def front_ends(self) -> list[psutil.Process]:
        """Their processes."""
        return self._actors("FrontEnd")

    def busy(self) -> int:
        """How many replicas have a request."""
        return sum(bool(load["shapes"]) for load in self.order("loads"))

    def _actors(self, name: str, node: int | None = None) -> list[psutil.Process]:
        return [
            process
            for process in psutil.Process(node or self._process.pid).children(recursive=True)
            if f":{name}" in " ".join(_command(process))
        ]


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
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


def create_config(
    folder: Path, *, autoscaling: AutoscalingOptions, **options: Any
) -> ClusterConfig:
    """Of a cluster of slow fakes with a key, and with jobs in the folder."""
    keys = folder / "keys"
    keys.write_text(KEY + "\n")
    keys.chmod(0o600)
    usual: dict[str, Any] = {"worker": WORKER, "gpus": 0, "cpus": 0.25, "shutdown_timeout": 20}
    usual |= {"data_dir": str(folder / "data"), "api_key_file": str(keys)}
    return ClusterConfig(autoscaling=autoscaling, **usual | options)


@contextmanager
def caller_of(http: httpx.Client, body: dict[str, Any]) -> Iterator[socket.socket]:
    """The connection of somebody who waits for an answer, and goes away."""
    content = json.dumps(body)
    lines = [
        f"POST {GENERATIONS} HTTP/1.1",
        "Host: test",
        f"Authorization: Bearer {KEY}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
    ]
    with connect(http) as connection:
        connection.sendall("\r\n".join([*lines, "", content]).encode())
        yield connection


def pictures(answer: httpx.Response) -> list[bytes]:
    """Those in an answer, which must be a good one."""
    assert answer.status_code == 200, answer.text
    return [base64.b64decode(one["b64_json"]) for one in answer.json()["data"]]


class Calls:
    """Callers who each wait for a picture of a seed of their own.

    Args:
        http: Leads to the cluster.
        body: What they want, but for the seed.
    """

    def __init__(self, http: httpx.Client, body: dict[str, Any]) -> None:
        self._http = http
        self._body = body
        self._threads = ThreadPoolExecutor(64)
        self.bodies: list[dict[str, Any]] = []
        self._answers: list[Future[httpx.Response]] = []

    def call(self) -> None:
        """One more."""
        self.bodies.append(self._body | {"seed": len(self.bodies)})
        answer = self._threads.submit(self._http.post, GENERATIONS, json=self.bodies[-1])
        self._answers.append(answer)

    def call_until(self, condition: Callable[[], bool]) -> None:
        """One after the other."""

        def call_and_look() -> bool:
            self.call()
            time.sleep(0.25)
            return condition()

        wait_until(call_and_look)

    def pictures(self) -> list[list[bytes]]:
        """All of them, when they are done."""
        with self._threads:
            return [pictures(answer.result()) for answer in self._answers]
