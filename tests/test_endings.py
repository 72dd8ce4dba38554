"""However a server ends, nobody is left behind: no process, no socket, no folder."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.running import GENERATIONS, LONG, PATIENCE_SECONDS, wait_until

PLAIN = {"NO_COLOR": "1", "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}


class Server:
    """A ``chairlift serve`` of its own, with a folder for its temporary files."""

    def __init__(self, process: subprocess.Popen[str], temporary: Path) -> None:
        self.process = process
        self.url = ""
        self._temporary = temporary

    def wait_until_said(self, pattern: str) -> re.Match[str]:
        """Read what it says up to a line with this in it."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"it never said {pattern}")

    def wait_until_ready(self) -> str:
        self.url = self.wait_until_said(r"^fake \(.*\) is served at (http://127\.0\.0\.1:\d+)$")[1]
        return self.url

    def wait_until_spawned(self) -> None:
        wait_until(lambda: psutil.Process(self.process.pid).children())

    def wait_until_loading(self) -> None:
        """There is a worker, which has spoken: its socket has no file any more."""
        self.wait_until_spawned()
        wait_until(lambda: not self.files)

    def ride(self, body: dict[str, Any]) -> None:
        """A job, of which a step is made."""
        job = httpx.post(f"{self.url}/v1/jobs", json=body).json()
        wait_until(
            lambda: httpx.get(f"{self.url}/v1/jobs/{job['id']}").json()["status"] != "queued"
        )

    @property
    def worker(self) -> psutil.Process:
        [worker] = psutil.Process(self.process.pid).children()
        return worker

    def end(self, number: signal.Signals) -> tuple[int, str]:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        """The exit code, and what was said on standard error up to its end: that comes when
        nobody is left who has inherited it, and so no worker.
        """
        _, said = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, said

    def check_nothing_is_left(self) -> None:
        assert not self.processes
        assert not self.files

    @property
    def files(self) -> list[Path]:
        return list(self._temporary.iterdir())

    @property
    def processes(self) -> list[psutil.Process]:
        """Itself and all who come from it, also if it has ended."""
        return [one for one in psutil.process_iter() if _temporary(one) == str(self._temporary)]


def _temporary(process: psutil.Process) -> str | None:
    with contextlib.suppress(psutil.Error):
        folder: str | None = process.environ().get("TMPDIR")
        return folder
    return None


@contextmanager
def serving(folder: Path, *options: str, model: str = "fake", port: int = 0) -> Iterator[Server]:
    # Not in the test's own folder: the path of a socket has at most 107 characters.
    temporary = Path(tempfile.mkdtemp(prefix="endings-"))
    command = [sys.executable, "-m", "chairlift", "serve", model, "--port", str(port)]
    command += ["--data-dir", str(folder / "data"), *options]
    # What torch keeps for later is no leftover.
    folders = {"TMPDIR": str(temporary), "TORCHINDUCTOR_CACHE_DIR": str(folder / "cache")}
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | PLAIN | folders
    )
    server = Server(process, temporary)
    with process:
        try:
            yield server
        finally:
            for one in server.processes:
                one.kill()
            shutil.rmtree(temporary, ignore_errors=True)


# ---------------------------------------------------------------------- ways to end


def by_sigterm(server: Server) -> None:
    server.wait_until_ready()
    server.process.send_signal(signal.SIGTERM)


def by_sigterm_while_it_loads(server: Server) -> None:
    server.wait_until_loading()
    server.process.send_signal(signal.SIGTERM)


def by_sigterm_while_the_worker_is_stopped(server: Server) -> None:
    server.wait_until_ready()
    server.worker.suspend()
    server.process.send_signal(signal.SIGTERM)


def by_sigkill(server: Server) -> None:
    server.wait_until_ready()
    server.process.kill()


def by_sigkill_under_load(server: Server) -> None:
    server.wait_until_ready()
    server.ride(LONG)
    server.process.kill()


def by_sigkill_before_the_worker_is_connected(server: Server) -> None:
    server.wait_until_spawned()
    server.process.kill()


def by_sigkill_while_it_loads(server: Server) -> None:
    server.wait_until_loading()
    server.process.kill()


def by_sigkill_while_the_worker_is_stopped(server: Server) -> None:
    server.wait_until_ready()
    server.worker.suspend()
    server.process.kill()


def by_sigkill_while_the_worker_is_stopped_and_loads(server: Server) -> None:
    server.wait_until_loading()
    server.worker.suspend()
    server.process.kill()


def by_sigkill_between_two_workers(server: Server) -> None:
    server.wait_until_ready()
    server.worker.kill()
    server.wait_until_said("a new one starts in 0.5 s")
    server.process.kill()


def by_sigterm_after_a_worker_was_killed_while_it_loaded(server: Server) -> None:
    server.wait_until_loading()
    server.worker.kill()
    server.wait_until_said("ended with status -9; a new one starts in")
    server.wait_until_ready()
    server.process.send_signal(signal.SIGTERM)


KILLED = -signal.SIGKILL

ENDINGS = [
    (by_sigterm, 0),
    (by_sigterm_while_it_loads, 0),
    (by_sigterm_while_the_worker_is_stopped, 0),
    (by_sigkill, KILLED),
    (by_sigkill_under_load, KILLED),
    (by_sigkill_before_the_worker_is_connected, KILLED),
    (by_sigkill_while_it_loads, KILLED),
    (by_sigkill_while_the_worker_is_stopped, KILLED),
    (by_sigkill_while_the_worker_is_stopped_and_loads, KILLED),
    (by_sigkill_between_two_workers, KILLED),
    (by_sigterm_after_a_worker_was_killed_while_it_loaded, 0),
]


@pytest.mark.parametrize(
    ("ending", "status"), ENDINGS, ids=[ending.__name__ for ending, _ in ENDINGS]
)
def test_nothing_is_left_behind(
    tmp_path: Path, ending: Callable[[Server], None], status: int
) -> None:
    if "stopped" in ending.__name__ and status == KILLED and sys.platform != "linux":
        pytest.skip("only Linux continues a process whose parent has died")
    with serving(tmp_path) as server:
        ending(server)
        assert server.wait()[0] == status
        server.check_nothing_is_left()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--device", "cuda:77"], "device is 'cuda:77'"),
        (["--lora", "a=/nowhere"], "the fake model has no LoRAs"),
    ],
)
def test_a_model_that_can_not_be_loaded_leaves_nothing_behind(
    tmp_path: Path, options: list[str], reason: str
) -> None:
    with serving(tmp_path, *options) as server:
        code, said = server.wait()
        assert code == 2
        assert said.startswith(f"chairlift: {reason}")
        server.check_nothing_is_left()


def test_a_port_in_use_is_one_line_before_anything_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with serving(tmp_path, port=port) as server:
            code, said = server.wait()
            assert code == 2
            [line] = said.splitlines()
            assert line.startswith(f"chairlift: can't listen on 127.0.0.1 port {port}: ")
            server.check_nothing_is_left()


# ---------------------------------------------------------------------- who is aboard


def ride(url: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(url + GENERATIONS, json=body, timeout=PATIENCE_SECONDS)


def listens(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").is_success
    except httpx.TransportError:
        return False


def wait_for_a_rider(lift: httpx.Response) -> Iterator[str]:
    """Read the events of the lift up to the first tick; what is left of them."""
    lines = lift.iter_lines()
    assert any('"riders"' in line for line in lines)
    return lines


def test_a_signal_lets_those_who_ride_arrive(tmp_path: Path) -> None:
    with serving(tmp_path) as server, ThreadPoolExecutor() as pool:
        url = server.wait_until_ready()
        with httpx.stream("GET", f"{url}/v1/lift", timeout=PATIENCE_SECONDS) as lift:
            answer = pool.submit(ride, url, LONG | {"size": "128x128", "sampler": "euler"})
            lines = wait_for_a_rider(lift)
            ended = pool.submit(server.end, signal.SIGTERM)
            rest = list(lines)  # to the end of the stream
            assert any('"running":0' in line for line in rest)
        assert len(answer.result().json()["data"]) == LONG["n"]
        code, said = ended.result()
        [line] = said.splitlines()
        assert code == 0
        assert "outcome=finished" in line
        server.check_nothing_is_left()


def check_ended_early(server: Server, lift: Iterator[str]) -> None:
    """A signal ends it, with a line for the one who rides, and the lift's stream with it."""
    code, said = server.end(signal.SIGINT)
    [line] = said.splitlines()
    assert code == 0
    assert "code=unavailable" in line
    assert list(lift)[-1] == ""


def check_told(answer: httpx.Response) -> None:
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "unavailable"


def test_a_signal_tells_those_who_can_not_arrive(tmp_path: Path) -> None:
    with serving(tmp_path, "--shutdown-timeout", "0") as server, ThreadPoolExecutor() as pool:
        url = server.wait_until_ready()
        with httpx.stream("GET", f"{url}/v1/lift", timeout=PATIENCE_SECONDS) as lift:
            answer = pool.submit(ride, url, LONG)
            lines = wait_for_a_rider(lift)
            check_ended_early(server, lines)
        check_told(answer.result())
        server.check_nothing_is_left()


def test_a_second_signal_tells_them_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, model="fake:0.05") as server, ThreadPoolExecutor() as pool:
        url = server.wait_until_ready()
        with httpx.stream("GET", f"{url}/v1/lift", timeout=PATIENCE_SECONDS) as lift:
            answer = pool.submit(ride, url, LONG | {"size": "64x64"})
            lines = wait_for_a_rider(lift)
            server.process.send_signal(signal.SIGINT)
            wait_until(lambda: not listens(url))
            assert not answer.done()
            check_ended_early(server, lines)
        check_told(answer.result())
        server.check_nothing_is_left()


def test_the_second_signal_ends_it_at_once_and_jobs_go_on_at_the_next_start(tmp_path: Path) -> None:
    with serving(tmp_path, model="fake:0.05") as server:
        url = server.wait_until_ready()
        jobs = [
            httpx.post(f"{url}/v1/jobs", json={"prompt": "a", "seed": seed}).json()
            for seed in range(3)
        ]
        long = httpx.post(f"{url}/v1/jobs", json={"prompt": "b", "num_inference_steps": 200}).json()
        wait_until(lambda: httpx.get(f"{url}/v1/jobs/{long['id']}").json()["status"] == "running")
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: not listens(url))
        assert server.process.poll() is None
        code, _ = server.end(signal.SIGINT)
        assert code == 0
        server.check_nothing_is_left()
    with serving(tmp_path) as server:
        url = server.wait_until_ready()
        for job in (*jobs, long):
            wait_until(
                lambda job=job: (
                    httpx.get(f"{url}/v1/jobs/{job['id']}").json()["status"] == "succeeded"
                )
            )
