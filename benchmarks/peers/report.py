"""The report, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.peers.contestants import CONTESTANTS, OURS
from benchmarks.peers.results import Results, Spread
from benchmarks.peers.settings import PeerSettings
from benchmarks.peers.sweep import Trial
from benchmarks.peers.targets import verdicts
from benchmarks.peers.workloads import WORKLOADS, Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything that was found out."""

    machine: str
    versions: Mapping[str, str]
    differences: Mapping[str, int]
    """How far each contestant's pictures are from chairlift's, in levels of 255."""
    trials: Sequence[Trial]
    """Of the sweeps; empty where the settings were given."""
    settings: Mapping[str, PeerSettings]
    """With which the peers ran."""
    capacity: float
    """Requests a second that the best peer served in its sweep."""
    results: Results

    @property
    def peers(self) -> list[str]:
        return list(self.settings)

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
            "Settings that were tried",
            *("peer", "threads", "channels-last", "batch size", "timeout, ms"),
            *("requests/s at once", "mean s at 0.7"),
        )
        for trial in self.trials:
            cells = _settings_cells(trial.contestant, trial.settings)
            chosen = trial.settings == self.settings[trial.contestant]
            throughput = f"**{trial.throughput:.2f}**" if chosen else f"{trial.throughput:.2f}"
            yield _row(*cells, throughput, f"{trial.mean_s:.2f}")

    def _settings(self) -> Iterator[str]:
        yield from _head(
            "Settings of the peers",
            *("peer", "threads", "channels-last", "batch size", "timeout, ms"),
        )
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


def _settings_cells(name: str, settings: PeerSettings) -> list[str]:
    contestant = CONTESTANTS[name]
    return [
        contestant.title,
        str(settings.threads),
        "yes" if settings.channels_last else "no",
        str(settings.max_batch_size) if contestant.batches else "–",
        f"{1000 * settings.batch_timeout:g}" if contestant.waits else "–",
    ]


def _median(value: Spread | None) -> str:
    return "–" if value is None else f"{value.median:.2f}"


def _head(title: str, *columns: str) -> Iterator[str]:
    yield f"\n## {title}\n"
    yield _row(*columns)
    yield _row(*("---" for _ in columns))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
