"""What the way through Ray Serve costs: a cluster of one replica against the single server.

    python -m benchmarks.cluster

Both run the fake model, whose steps take no time (``--step-seconds``), so that what is measured is
the way of a request: HTTP, admission, the engine process and back, and in the cluster Serve's
proxy, the front end, Ray's calls and the replica between them. They take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

from benchmarks.batching import new_client
from benchmarks.machine import describe_machine, percentile, spread
from chairlift.server.process import running_server

PATIENCE_SECONDS = 300
CONTESTANTS = ("single server", "cluster")


def body(number: int, stream: bool) -> dict[str, object]:
    """The smallest request there is."""
    return {"prompt": "a boat", "num_inference_steps": 1, "seed": number, "stream": stream}


async def send(http: httpx.AsyncClient, number: int, stream: bool = False) -> float:
    """Seconds from sending to having read all of the answer."""
    start = time.perf_counter()
    answer = await http.post("/v1/images/generations", json=body(number, stream))
    answer.raise_for_status()
    return time.perf_counter() - start


async def one_by_one(url: str, requests: int, stream: bool) -> list[float]:
    """Seconds of each of so many requests, one after the other."""
    async with new_client(url) as http:
        return [await send(http, number, stream) for number in range(requests)]


async def saturate(url: str, clients: int, seconds: float) -> float:
    """Requests a second of so many clients that each wait for their answer."""
    numbers = iter(range(10**9))
    end = time.perf_counter() + seconds
    async with new_client(url) as http:

        async def client() -> int:
            done = 0
            while time.perf_counter() < end:
                await send(http, next(numbers))
                done += 1
            return done

        start = time.perf_counter()
        done = sum(await asyncio.gather(*(client() for _ in range(clients))))
        return done / (time.perf_counter() - start)


@contextlib.contextmanager
def running_cluster(model: str) -> Iterator[str]:
    """A cluster of one replica on this machine, as ``chairlift deploy --run`` makes it.

    Yields:
        Its URL, once it takes requests.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "chairlift", "deploy", model, "--run", "--port", str(port)]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [*command, "--gpus", "0", "--cpus", "0.5", "-o", str(Path(folder, "serve.yaml"))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
        )
        try:
            _await_ready(url, process)
            yield url
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE_SECONDS)


def _await_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/ready").status_code == httpx.codes.OK:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("the cluster doesn't start; run `chairlift deploy --run` to see why")
        time.sleep(0.5)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=200, help="one after the other, a round")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0, help="of all clients, a round")
    parser.add_argument("--step-seconds", type=float, default=0.0)
    options = parser.parse_args(arguments)
    model = f"fake:{options.step_seconds}"
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(model, "--data-dir", folder) as single,
        running_cluster(model) as cluster,
    ):
        urls = dict(zip(CONTESTANTS, (single, cluster), strict=True))
        for url in urls.values():
            asyncio.run(one_by_one(url, 20, stream=False))
        answers: dict[str, list[float]] = {name: [] for name in urls}
        streams: dict[str, list[float]] = {name: [] for name in urls}
        rates: dict[str, list[float]] = {name: [] for name in urls}
        for number in range(options.rounds):
            for name in CONTESTANTS if number % 2 else reversed(CONTESTANTS):
                answers[name] += asyncio.run(one_by_one(urls[name], options.requests, False))
                streams[name] += asyncio.run(one_by_one(urls[name], options.requests, True))
                rates[name].append(
                    asyncio.run(saturate(urls[name], options.clients, options.seconds))
                )
    print(describe_machine())
    print(
        f"{options.rounds} rounds of {options.requests} requests one by one, and "
        f"{options.clients} clients for {options.seconds:g} s\n"
    )
    print("| | answer p50, ms | p95 | stream p50, ms | p95 | requests/s: median (least, most) |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in CONTESTANTS:
        cells = [
            f"{1000 * percentile(seconds[name], share):.1f}"
            for seconds in (answers, streams)
            for share in (0.5, 0.95)
        ]
        print(f"| {name} | {' | '.join(cells)} | {spread(rates[name])} |")


if __name__ == "__main__":
    main()
