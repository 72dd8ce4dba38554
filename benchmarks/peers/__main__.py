"""Chairlift beside its peers: the same model, machine, requests and arrivals.

    python -m benchmarks.peers

makes an environment for what the peers need, checks that all draw the same pictures, looks for the
best settings of each contestant (of chairlift only the number of workers), then lets all run in
rounds, one after the other on the very same arrivals, and writes a table, JSON and plots. Ratios
are taken within a round. What is known is written after each trial and each workload.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.machine import describe_machine
from benchmarks.peers.competition import Competition
from benchmarks.peers.contestants import CONTESTANTS
from benchmarks.peers.environment import REQUIREMENTS, prepare_environment
from benchmarks.peers.plots import plot_latencies, plot_throughputs
from benchmarks.peers.report import Report
from benchmarks.peers.settings import Settings
from benchmarks.peers.sweep import Choices, Trial
from benchmarks.peers.workloads import QUICK_WORKLOADS, WORKLOADS
from chairlift.errors import ConfigurationError
from chairlift.models.source import BUNDLED_FOLDER

BUILD = Path(__file__).resolve().parents[2] / "build" / "peers"
TERMINATED = 143
"""Exit code."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, with what ``--quick`` means filled in."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=[*CONTESTANTS])
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS)
    parser.add_argument("--rounds", type=int, help="left out, 3")
    parser.add_argument("--seconds", type=float, help="of a workload, about; left out, 6")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="1 round, 3 s, few workloads; of the settings only processes are swept",
    )
    parser.add_argument("--settings", type=Path, help="results.json of a run; nothing is swept")
    parser.add_argument("--model", default=str(BUNDLED_FOLDER), help="a folder")
    parser.add_argument("--environment", type=Path, default=BUILD / "environment")
    parser.add_argument("-o", "--output", type=Path, default=BUILD / "results")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (3.0 if options.quick else 6.0)
    options.workloads = options.workloads or (QUICK_WORKLOADS if options.quick else [*WORKLOADS])
    if not any(CONTESTANTS[name].is_peer for name in options.contestants):
        parser.error("of the contestants one must be a peer: loads are shares of its capacity")
    return options


def choices(quick: bool) -> Choices:
    """What is swept: one process that has all cores, or one for each core. ``OMP_NUM_THREADS`` says
    how many threads each process has, where it is set.
    """
    cores = len(os.sched_getaffinity(0))
    threads = os.environ.get("OMP_NUM_THREADS")
    return Choices(
        processes=[(count, int(threads or cores // count)) for count in dict.fromkeys((cores, 1))],
        batch_sizes=(16,) if quick else (16, 8, 32),
        memory_formats=(True,) if quick else (True, False),
        batch_timeouts=(0.05,) if quick else (0.05, 0.01),
    )


def take_sweep(report: Report, path: Path, contestants: Sequence[str]) -> None:
    """Trials, settings and capacity of a former run.

    Raises:
        ConfigurationError: It has no settings of a contestant.
    """
    former = json.loads(path.read_text())
    settings = former["settings"]
    if lacking := [name for name in contestants if name not in settings]:
        raise ConfigurationError(
            f"{path} has no settings of {', '.join(lacking)}; it must be swept"
        )
    report.trials = [
        Trial(**trial | {"settings": Settings(**trial["settings"])})
        for trial in former["trials"]
        if trial["contestant"] in contestants
    ]
    report.settings = {name: Settings(**settings[name]) for name in contestants}
    report.capacity = former["capacity"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all of it; 0, whether targets are hit or missed."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # Contestants are ended then.
    contestants = [CONTESTANTS[name] for name in CONTESTANTS if name in options.contestants]
    report = Report(
        machine=describe_machine(),
        versions={name: version(name) for name in ("diffusers", "transformers")}
        | dict(line.split("==") for line in REQUIREMENTS.read_text().split() if "==" in line),
    )
    if options.settings:
        take_sweep(report, options.settings, [one.name for one in contestants])
    competition = Competition(
        contestants,
        [WORKLOADS[name] for name in WORKLOADS if name in options.workloads],
        folder=options.model,
        python=prepare_environment(options.environment),
        seconds=options.seconds,
    )
    try:
        run(competition, report, options)
    finally:
        if report.trials:  # Also what there is, if something breaks.
            finish(report, options.output)
    return 0


def run(competition: Competition, report: Report, options: argparse.Namespace) -> None:
    """All that is run; what comes of it is written each time."""
    chosen = choices(options.quick)
    processes, threads = chosen.processes[0]
    report.differences = competition.check_pictures(Settings(processes=processes, threads=threads))
    if not options.settings:
        for trial in competition.sweep(chosen):
            report.add_trial(trial)
            write(report, options.output)
    for measurement in competition.run(options.rounds, report.settings, report.capacity):
        report.results.measurements.append(measurement)
        write(report, options.output)


def write(report: Report, folder: Path) -> None:
    """Markdown and JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.md").write_text("\n".join(report.lines()) + "\n")
    (folder / "results.json").write_text(json.dumps(report.to_json(), indent=1) + "\n")


def finish(report: Report, folder: Path) -> None:
    """Write all, with plots, and show it."""
    write(report, folder)
    plot_latencies(report.results, folder / "latency.png")
    plot_throughputs(report.results, folder / "throughput.png")
    print(f"\n{(folder / 'results.md').read_text()}\nwritten to {folder}")


if __name__ == "__main__":
    sys.exit(main())
