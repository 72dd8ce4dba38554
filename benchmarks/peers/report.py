"""The report, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.peers.contestants import CONTESTANTS, OURS
from benchmarks.peers.results import Results, Spread
from benchmarks.peers.settings import Settings
from benchmarks.peers.sweep import Trial, best_of_each
from benchmarks.peers.targets import verdicts
from benchmarks.peers.workloads import WORKLOADS, Workload

SETTINGS = ("contestant", "processes", "threads", "channels-last", "batch size", "timeout, ms")
"""Columns."""


@dataclass(kw_only=True, slots=True)
class Report:
    """Everything that was found out so far."""

    machine: str
    versions: Mapping[str, str]
    differences: Mapping[str, int] = field(default_factory=dict)
    """How far each contestant's pictures are from chairlift's, in levels of 255."""
    trials: list[Trial] = field(default_factory=list)
    """Of the sweeps."""
    settings: dict[str, Settings] = field(default_factory=dict)
    """With which the contestants run."""
    capacity: float = 0.0
    """Requests a second that the best peer served in its sweep."""
    results: Results = field(default_factory=Results)

    @property
    def peers(self) -> list[str]:
        return [name for name in self.settings if CONTESTANTS[name].is_peer]

    def add_trial(self, trial: Trial) -> None:
        """Choose anew, with what this one says."""
        self.trials.append(trial)
        chosen = best_of_each(self.trials)
        self.settings = {name: one.settings for name, one in chosen.items()}
        self.capacity = max((chosen[name].throughput for name in self.peers), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """For other programs, and for ``--settings``."""
        return {
            "machine": self.machine,
            "versions": dict(self.versions),
            "differences": dict(self.differences),
            "trials": [trial.to_json() for trial in self.trials],
            "settings": {name: asdict(settings) for name, settings in self.settings.items()},
            "capacity": self.capacity,
            "measurements": [one.to_json() for one in self.results.measurements],
        }

    def lines(self) -> Iterator[str]:
        """Of the Markdown."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        yield f"{self.machine}; {versions}"
        yield from self._pictures()
        yield from self._sweeps()
        yield from self._settings()
        for workload in WORKLOADS.values():
            if any(self.results.has(workload.name, name) for name in CONTESTANTS):
                yield from self._workload(workload)
        yield from self._targets()

    def _pictures(self) -> Iterator[str]:
        if self.differences:
            yield from _head("The same pictures", "contestant", "largest difference, of 255")
            for name, difference in self.differences.items():
                yield _row(CONTESTANTS[name].title, str(difference))

    def _sweeps(self) -> Iterator[str]:
        if not self.trials:
            return
        yield from _head(
            "Settings that were tried", *SETTINGS, "requests/s at once", "mean s at 0.7"
        )
        chosen = best_of_each(self.trials)
        for trial in self.trials:
            cells = _settings_cells(trial.contestant, trial.settings)
            rate = f"{trial.throughput:.2f}"
            is_chosen = trial is chosen[trial.contestant]
            yield _row(*cells, f"**{rate}**" if is_chosen else rate, f"{trial.mean_s:.2f}")

    def _settings(self) -> Iterator[str]:
        yield from _head("Settings of the contestants", *SETTINGS)
        for name, settings in self.settings.items():
            yield _row(*_settings_cells(name, settings))
        yield f"\nThe best peer's capacity by the sweep: {self.capacity:.2f} requests/s."

    def _workload(self, workload: Workload) -> Iterator[str]:
        """Medians over the rounds, and least to greatest."""
        figure = "throughput" if workload.is_saturating else "mean"
        yield from _head(
            workload.title,
            *("contestant", "requests/s", "mean s", "p50 s", "p95 s", "p99 s"),
            f"chairlift's {figure} beside it",
        )
        for name, contestant in CONTESTANTS.items():
            if not self.results.has(workload.name, name):
                continue
            rate = self.results.figure(workload.name, name, "throughput")
            if rate is None:
                yield _row(contestant.title, "overloaded", *5 * ["–"])
                continue
            seconds = [
                self.results.figure(workload.name, name, one)
                for one in ("mean", "p50", "p95", "p99")
            ]
            ratio = self.results.ratio(workload.name, OURS, name, figure)
            yield _row(
                contestant.title,
                str(rate),
                str(seconds[0]),
                *(_median(one) for one in seconds[1:]),
                str(ratio) if ratio and name != OURS else "–",
            )

    def _targets(self) -> Iterator[str]:
        found = list(verdicts(self.results, self.peers))
        if not found:
            return
        yield from _head("Targets", "", "hardest peer", "chairlift beside it", "target", "")
        for verdict in found:
            sign = "≥" if verdict.at_least else "≤"
            yield _row(
                verdict.what,
                verdict.against,
                str(verdict.ratio),
                f"{sign} {verdict.bound:g}",
                "hit" if verdict.is_hit else "**missed**",
            )


def _settings_cells(name: str, settings: Settings) -> list[str]:
    contestant = CONTESTANTS[name]
    return [
        contestant.title,
        str(settings.processes),
        *(_peer_cells(settings) if contestant.is_peer else ("–", "–")),
        str(settings.max_batch_size) if contestant.batches else "–",
        f"{1000 * settings.batch_timeout:g}" if contestant.waits else "–",
    ]


def _peer_cells(settings: Settings) -> tuple[str, str]:
    return str(settings.threads), "yes" if settings.channels_last else "no"


def _median(value: Spread | None) -> str:
    return "–" if value is None else f"{value.median:.2f}"


def _head(title: str, *columns: str) -> Iterator[str]:
    yield f"\n## {title}\n"
    yield _row(*columns)
    yield _row(*("---" for _ in columns))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
