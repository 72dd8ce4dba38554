"""``chairlift simulate`` as its user sees it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulate.builders import QWEN

JOB = '{"arrival_s": 0, "width": 512, "height": 512, "steps": 5}'


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chairlift", "simulate", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"NO_COLOR": "1", "COLUMNS": "200"},
    )


@pytest.fixture
def costs(tmp_path: Path) -> str:
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(QWEN))
    return str(path)


def test_it_prints_a_table_and_writes_a_report(tmp_path: Path, costs: str) -> None:
    out = tmp_path / "made" / "here"
    options = ["--policy", "balanced,peers", "--load", "0.5,0.9", "--seeds", "1,2"]
    done = run("--costs", costs, *options, "--requests", "30", "-o", str(out))
    assert done.returncode == 0, done.stderr
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in done.stdout.splitlines()
        if "|" in line
    ]
    assert rows[0][:5] == ["policy", "load", "req/s", "good/s", "mean s"]
    policies = [row[:2] for row in rows[2:]]
    assert policies == [[name, load] for name in ("balanced", "peers") for load in ("0.5", "0.9")]
    report = json.loads((out / "report.json").read_text())
    assert report["options"]["load"] == "0.5,0.9"
    assert [result["mean"]["policy"] for result in report["results"]] == [
        row[0] for row in rows[2:]
    ]
    assert f"{report['results'][0]['mean']['mean_s']:.1f}" == rows[2][4]
    assert len(report["results"][0]["seeds"]) == 2
    assert (out / "load.png").exists() == bool(importlib.util.find_spec("matplotlib"))


def test_it_reads_a_workload(tmp_path: Path, costs: str) -> None:
    path = tmp_path / "jobs"
    path.write_text(f"{JOB}\n{JOB}\n")
    options = ["--router", "least-backlog", "--replicas", "2", "--max-batch-size", "1"]
    done = run("--costs", costs, "--workload", str(path), *options)
    assert done.returncode == 0, done.stderr
    assert "| balanced |    - |" in done.stdout


def test_a_scenario_lets_replicas_come_and_go(tmp_path: Path, costs: str) -> None:
    scenario, out = tmp_path / "scenario.json", tmp_path / "out"
    autoscaling = {"min_replicas": 1, "max_replicas": 3, "target_seconds": 5}
    scenario.write_text(json.dumps({"autoscaling": autoscaling, "start_up_s": 5}))
    options = ["--scenario", str(scenario), "--router", "least-backlog", "--arrivals", "day"]
    done = run("--costs", costs, *options, "--requests", "60", "--load", "0.9", "-o", str(out))
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "|" in line]
    head, _, row = ([cell.strip() for cell in line.split("|")] for line in lines)
    assert float(row[head.index("replica-h")]) > 0
    assert row[head.index("lost")] == "0"
    report = json.loads((out / "report.json").read_text())
    assert report["options"]["scenario"]["autoscaling"]["max_replicas"] == 3
    assert report["results"][0]["mean"]["starts"] >= 1
    assert (out / "fleet.png").exists() == bool(importlib.util.find_spec("matplotlib"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--policy", "best"], "policy is 'best'; it must be one of balanced"),
        (["--router", "best"], "router is 'best'; it must be one of round-robin"),
        (["--mix", "D"], "mix is 'D'; it must be one of qwen, A, B, C"),
        (["--arrivals", "never"], "the arrivals are 'never'; they must be one of poisson"),
        (["--load", "0.5,much"], "--load: 'much' is no number above 0"),
        (["--load", ""], "--load: '' is no number above 0"),
        (["--mix", ""], "mix is ''; it must be one of qwen, A, B, C"),
        (["--load", "0"], "--load: '0' is no number above 0"),
        (["--seeds", "1,"], "--seeds: '' is no whole number from 0 on"),
        (["--workload", "/nowhere"], "the workload /nowhere can't be read"),
        (["--workload", "w", "--mix", "A"], "--mix is of drawn jobs, and --workload gives them"),
        (["--scenario", "s", "--replicas", "2"], "--scenario says how many replicas there are"),
        (["--scenario", "/nowhere"], "the scenario /nowhere can't be read"),
        (["-o", "/dev/null/folder"], "the folder /dev/null/folder can't be made"),
    ],
)
def test_a_wrong_option_is_one_line(costs: str, options: list[str], expected: str) -> None:
    done = run("--costs", costs, *options)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("chairlift: ")
    assert expected in line


def test_a_missing_table_is_one_line() -> None:
    done = run("--costs", "/nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("chairlift: the cost table /nowhere can't be read")
