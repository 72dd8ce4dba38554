"""Chairlift beside its peers: the same model, machine, requests and arrivals.

    python -m benchmarks.peers

makes an environment for what the peers need, checks that all draw the same pictures, looks for the
best settings of each peer, then lets all run in rounds, one after the other on the very same
arrivals, and writes a table, JSON and plots. Ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.peers.competition import Competition
from benchmarks.peers.contestants import CONTESTANTS
from benchmarks.peers.environment import REQUIREMENTS, prepare_environment
from benchmarks.peers.plots import plot_latencies, plot_throughputs
from benchmarks.peers.report import Report
from benchmarks.peers.results import Results
from benchmarks.peers.settings import PeerSettings
from benchmarks.peers.sweep import Choices, Trial
from benchmarks.peers.workloads import QUICK_WORKLOADS, WORKLOADS
from chairlift.models.source import BUNDLED_FOLDER

BUILD = Path(__file__).resolve().parents[2] / "build" / "peers"
THREADS = (2, 1)
"""Of torch, where OMP_NUM_THREADS doesn't say it."""
TERMINATED = 143
"""Exit code."""
FULL = Choices(
    networks=(*((threads, True) for threads in THREADS), (THREADS[0], False)),
    batch_sizes=(16, 8, 32),
    batch_timeouts=(0.05, 0.01, 0.2),
)
QUICK = Choices(networks=((THREADS[0], True),), batch_sizes=(16, 8), batch_timeouts=(0.05,))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, with what ``--quick`` means filled in."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=[*CONTESTANTS])
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS)
    parser.add_argument("--rounds", type=int, help="left out, 3")
    parser.add_argument("--seconds", type=float, help="of a workload, about; left out, 8")
    parser.add_argument("--quick", action="store_true", help="1 round, 3 s, few workloads")
    parser.add_argument("--settings", type=Path, help="results.json of a run; nothing is swept")
    parser.add_argument("--model", default=str(BUNDLED_FOLDER), help="a folder")
    parser.add_argument("--environment", type=Path, default=BUILD / "environment")
    parser.add_argument("-o", "--output", type=Path, default=BUILD / "results")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (3.0 if options.quick else 8.0)
    options.workloads = options.workloads or (QUICK_WORKLOADS if options.quick else [*WORKLOADS])
    if not any(CONTESTANTS[name].is_peer for name in options.contestants):
        parser.error("of the contestants one must be a peer: loads are shares of its capacity")
    return options


def choices(quick: bool) -> Choices:
    """What is swept."""
    chosen = QUICK if quick else FULL
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads is None:
        return chosen
    formats = dict.fromkeys(channels_last for _, channels_last in chosen.networks)
    return Choices(
        networks=[(int(threads), channels_last) for channels_last in formats],
        batch_sizes=chosen.batch_sizes,
        batch_timeouts=chosen.batch_timeouts,
    )


def read_settings(path: Path, peers: Sequence[str]) -> tuple[dict[str, PeerSettings], float]:
    """Settings and capacity of a former run."""
    former = json.loads(path.read_text())
    return {name: PeerSettings(**former["settings"][name]) for name in peers}, former["capacity"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all of it; 0, whether targets are hit or missed."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # Contestants are ended then.
    python = prepare_environment(options.environment)
    competition = Competition(
        [CONTESTANTS[name] for name in CONTESTANTS if name in options.contestants],
        [WORKLOADS[name] for name in WORKLOADS if name in options.workloads],
        folder=options.model,
        python=python,
        seconds=options.seconds,
    )
    chosen = choices(options.quick)
    differences = competition.check_pictures(PeerSettings(threads=chosen.networks[0][0]))
    peers = [peer.name for peer in competition.peers]
    if options.settings:
        trials: list[Trial] = []
        settings, capacity = read_settings(options.settings, peers)
    else:
        trials, settings, capacity = competition.sweep(chosen)
    report = Report(
        machine=describe_machine(),
        versions={name: version(name) for name in ("diffusers", "transformers")}
        | dict(line.split("==") for line in REQUIREMENTS.read_text().split() if "==" in line),
        differences=differences,
        trials=trials,
        settings=settings,
        capacity=capacity,
        results=Results(),
    )
    try:
        for measurement in competition.run(options.rounds, settings, capacity):
            report.results.measurements.append(measurement)
    finally:
        write(report, options.output)  # Also what there is, if something breaks.
    return 0


def write(report: Report, folder: Path) -> None:
    """Markdown, JSON and plots."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(report.lines())
    print(f"\n{text}")
    (folder / "results.md").write_text(text + "\n")
    (folder / "results.json").write_text(json.dumps(to_json(report), indent=1) + "\n")
    plot_latencies(report.results, folder / "latency.png")
    plot_throughputs(report.results, folder / "throughput.png")
    print(f"\nwritten to {folder}")


def to_json(report: Report) -> dict[str, Any]:
    """For other programs, and for ``--settings``."""
    return {
        "machine": report.machine,
        "versions": dict(report.versions),
        "differences": dict(report.differences),
        "trials": [trial.to_json() for trial in report.trials],
        "settings": {name: asdict(settings) for name, settings in report.settings.items()},
        "capacity": report.capacity,
        "measurements": [one.to_json() for one in report.results.measurements],
    }


if __name__ == "__main__":
    sys.exit(main())
