"""``chairlift bench`` as its user sees it."""

from __future__ import annotations

import asyncio
import json
import os
import pkgutil
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.responses import Response

import chairlift.bench
from chairlift.cli import app
from chairlift.errors import ConfigurationError
from tests.bench.serving import ImagesServer, error, picture, picture_with_timings
from tests.running import PATIENCE_SECONDS, wait_until
from tests.test_imports import HEAVY, modules_after_importing

COMMAND = [sys.executable, "-m", "chairlift", "bench"]
PLAIN = os.environ | {"NO_COLOR": "1", "COLUMNS": "200"}
JOB = '{"arrival_s": 0, "width": 64, "height": 64, "steps": 5}'


@pytest.fixture
def server() -> Iterator[ImagesServer]:
    with ImagesServer(picture_with_timings).running() as server:
        yield server


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env=PLAIN | environment,
    )


def test_it_prints_a_table_and_writes_a_result_and_a_plot(
    server: ImagesServer, tmp_path: Path
) -> None:
    result, plot = tmp_path / "result.json", tmp_path / "plot.png"
    mix = tmp_path / "mix"
    mix.write_text('{"steps": [5, 9]}\n{"width": 64, "height": 32, "steps": 3}')
    done = run(
        *("--base-url", server.url, "--num-prompts", "20", "--request-rate", "200"),
        *("--burstiness", "0.5", "--seed", "3", "--goodput", "e2el:60000", "--slo-scale", "1e6"),
        *("--mix", str(mix), "--save-result", str(result), "--plot", str(plot)),
        CHAIRLIFT_API_KEY="a-secret",
    )
    assert done.returncode == 0, done.stderr
    for line in ("requests completed", "20 of 20", "latency: arrival to answer", "server: queue"):
        assert line in done.stdout
    assert "64x32, 3 steps" in done.stdout
    assert "100.0% of 20" in done.stdout
    assert all(one["authorization"] == "Bearer a-secret" for one in server.headers)
    text = result.read_text()
    assert "a-secret" not in text
    saved = json.loads(text)
    assert saved["settings"]["--request-rate"] == 200.0
    assert saved["summary"]["completed"] == 20
    assert saved["summary"]["goodput"] == pytest.approx(saved["summary"]["throughput"])
    assert [record["number"] for record in saved["records"]] == list(range(20))
    for record in saved["records"]:
        assert record["error"] is None
        assert record["service_s"] == 1.75
        assert record["alone_s"] > 0
        assert record["body"] in server.bodies
    with Image.open(plot) as image:
        assert image.format == "PNG"
        assert image.size[0] > 1000


def test_it_takes_the_keys_as_they_are_given_to_the_server(server: ImagesServer) -> None:
    options = ("--num-prompts", "1", "--num-warmups", "0")
    done = run("--base-url", server.url, *options, CHAIRLIFT_API_KEY="a-secret, another\n")
    assert done.returncode == 0, done.stderr
    assert [one["authorization"] for one in server.headers] == ["Bearer a-secret"]


def test_it_replays_a_workload(server: ImagesServer, tmp_path: Path) -> None:
    path = tmp_path / "jobs"
    path.write_text(f"{JOB}\n{JOB}\n")
    done = run("--base-url", server.url, "--workload", str(path), "--num-warmups", "0")
    assert done.returncode == 0, done.stderr
    assert "2 of 2" in done.stdout
    assert [body["size"] for body in server.bodies] == ["64x64", "64x64"]


def test_it_fails_when_nothing_was_completed() -> None:
    async def refuse(body: dict[str, Any]) -> Response:
        return error(429, "queue_full", "come later")

    with ImagesServer(refuse).running() as server:
        done = run("--base-url", server.url, "--num-prompts", "3", "--num-warmups", "0")
    assert done.returncode == 1
    assert re.search(r"http 429 queue_full +\| +3 \| come later", done.stdout)


def test_an_interrupt_ends_it_early_with_a_report(tmp_path: Path) -> None:
    async def answer(body: dict[str, Any]) -> Response:
        if len(server.bodies) > 3:
            await asyncio.sleep(0.5)
        return await picture(body)

    result = tmp_path / "result.json"
    options = ["--num-prompts", "1000", "--max-concurrency", "1", "--save-result", str(result)]
    with ImagesServer(answer).running() as server:
        bench = subprocess.Popen(
            [*COMMAND, "--base-url", server.url, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=PLAIN,
        )
        wait_until(lambda: len(server.bodies) > 3)
        bench.send_signal(signal.SIGINT)
        out, complaint = bench.communicate(timeout=PATIENCE_SECONDS)
    assert bench.returncode == 130
    assert "of 1000" in out
    assert "ended early: 1 under way are left out" in " ".join(complaint.split())
    assert json.loads(result.read_text())["summary"]["unfinished"] == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--base-url", "localhost"], "--base-url is 'localhost'; it must be like http://host"),
        (["--request-rate", "0"], "--request-rate is 0; it must be a number above 0, or inf"),
        (["--request-rate", "nan"], "--request-rate is nan; it must be a number above 0, or inf"),
        (["--burstiness", "2"], "--burstiness has no effect without a --request-rate"),
        (
            ["--burstiness", "-1", "--request-rate", "1"],
            "--burstiness is -1; it must be a number above 0",
        ),
        (["--goodput", "ttft:5"], "--goodput is 'ttft:5'; it must be milliseconds, like 5000"),
        (["--goodput", "-5"], "--goodput is -5 ms; it must be a number above 0"),
        (["--slo-scale", "inf"], "--slo-scale is inf; it must be a number above 0"),
        (["--timeout", "0"], "--timeout is 0; it must be a number above 0"),
        (["--guidance-scale", "inf"], "--guidance-scale is inf; it must be 0 or more"),
        (["--costs", "cost.json"], "--costs has no effect without --slo-scale"),
        (
            ["--costs", "/nowhere", "--slo-scale", "3"],
            "the cost table /nowhere can't be read",
        ),
        (["--width", "64"], "width is 64 and height None; both must be given, or neither"),
        (["--mix", "/nowhere"], "the mix /nowhere can't be read"),
        (["--mix", "C", "--steps", "5"], "--steps has no effect with --mix C"),
        (["--workload", "w", "--num-prompts", "5"], "--num-prompts has no effect with --workload"),
        (["--workload", "w", "--mix", "C"], "--mix has no effect with --workload"),
        (["--workload", "/nowhere"], "the workload /nowhere can't be read"),
        (["--prompts", "/nowhere"], "the prompts /nowhere can't be read"),
        (["--extra-body", "{"], "--extra-body is no JSON"),
        (["--extra-body", "[1]"], "--extra-body is [1]; it must be a JSON object"),
        (["--extra-body", '{"n": 2}', "-n", "3"], "'n' is in the extra body, and set already"),
        (["--save-result", "/nowhere/file"], "/nowhere/file can't be written: No such file"),
        (["--plot", "/nowhere/file"], "/nowhere/file can't be written: No such file"),
    ],
)
def test_a_wrong_flag_is_refused(options: list[str], expected: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(expected)):
        app(["bench", "--base-url", "http://127.0.0.1:1", *options], standalone_mode=False)


def test_a_server_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    done = run("--base-url", "http://127.0.0.1:1", "--save-result", str(result))
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("chairlift: a warm-up failed: not connected: ")
    assert not result.exists()


def test_without_aiohttp_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['aiohttp'] = None; from chairlift.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "bench"], capture_output=True, text=True, env=PLAIN
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.endswith("the load generator needs aiohttp: pip install 'chairlift[bench]'")


def test_it_imports_no_torch() -> None:
    modules = [
        module.name
        for module in pkgutil.walk_packages(chairlift.bench.__path__, "chairlift.bench.")
    ]
    assert "chairlift.bench.run" in modules
    assert not modules_after_importing([*modules, "chairlift.cli.bench"]) & HEAVY


def test_every_option_is_documented() -> None:
    text = run("--help").stdout
    options = set(re.findall(r"--[a-z][a-z-]+", text)) - {"--help"}
    guide = (Path(__file__).parents[2] / "docs/bench.md").read_text(encoding="utf-8")
    assert {"--base-url", "--slo-scale"} < options
    assert {option for option in options if f"`{option}`" not in guide} == set()
