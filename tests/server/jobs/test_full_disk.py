"""A server whose disk is full, and then isn't any more."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.running import GENERATIONS, PATIENCE_SECONDS, wait_until

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="only Linux bounds other processes"
)
JOBS = "/v1/jobs"


@contextmanager
def served(folder: Path) -> Iterator[tuple[httpx.Client, Callable[[int], None]]]:
    """A server, and what bounds the size of every file that it writes."""
    command = [sys.executable, "-m", "chairlift", "serve", "fake", "--port", "0", "--data-dir"]
    with subprocess.Popen([*command, folder], stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        said: list[str] = []
        reading = threading.Thread(target=said.extend, args=(server.stderr,))
        reading.start()

        def limit(size: int) -> None:
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        def address() -> re.Match[str] | None:
            assert server.poll() is None, said
            return re.search(r"is served at (\S+)", "".join(said))

        try:
            wait_until(address)
            found = address()
            assert found
            with httpx.Client(base_url=found[1], timeout=PATIENCE_SECONDS) as http:
                yield http, limit
            server.send_signal(signal.SIGTERM)
            assert server.wait(PATIENCE_SECONDS) == 0
        finally:
            server.kill()
            reading.join()
    assert "Traceback" not in "".join(said)


def test_a_full_disk_refuses_jobs_and_nothing_else(tmp_path: Path) -> None:
    body = {"prompt": "a boat", "seed": 1, "num_inference_steps": 2}

    def submit(**more: Any) -> httpx.Response:
        return http.post(JOBS, json=body | more)

    def look(id: str) -> dict[str, Any]:
        job: dict[str, Any] = http.get(f"{JOBS}/{id}").raise_for_status().json()
        return job

    with served(tmp_path) as (http, limit):
        first = submit().raise_for_status().json()["id"]
        wait_until(lambda: look(first)["status"] == "succeeded")
        slow = submit(size="512x512", num_inference_steps=150, n=4).raise_for_status().json()["id"]
        limit(0)
        refused = submit()
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "storage_failed"
        assert refused.headers["Retry-After"]
        assert str(tmp_path) not in refused.text
        keyed = http.post(GENERATIONS, json=body, headers={"Idempotency-Key": "one"})
        assert keyed.status_code == 503
        # What needs no disk goes on.
        assert http.post(GENERATIONS, json=body).status_code == 200
        assert http.get(f"{JOBS}/{first}/images/0").status_code == 200
        assert http.get(JOBS).json()["data"][-1]["id"] == first
        assert http.get("/health").status_code == 200
        limit(resource.RLIM_INFINITY)
        assert submit().status_code == 202
        wait_until(lambda: look(slow)["status"] == "succeeded")
        assert len(look(slow)["images"]) == 4
        again = http.post(GENERATIONS, json=body, headers={"Idempotency-Key": "one"})
        assert again.status_code == 200
