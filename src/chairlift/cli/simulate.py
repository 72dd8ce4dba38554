"""``chairlift simulate``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from chairlift.cli.options import MaxBatchSize, console, make_folder, parse_max_batch_size
from chairlift.errors import ConfigurationError
from chairlift.scheduling.names import DEFAULT_POLICY
from chairlift.simulate.names import ARRIVAL_NAMES, CONTESTANT_NAMES, MIX_NAMES, ROUTER_NAMES

if TYPE_CHECKING:
    from chairlift.simulate.comparison import Result

TABLE_WIDTH = 220
"""Characters, where the output is no terminal."""


def simulate(
    costs: Annotated[str, typer.Option(metavar="FILE", help="A cost table of chairlift profile.")],
    workload: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Jobs as JSON Lines, instead of drawn ones.")
    ] = None,
    arrivals: Annotated[
        str | None, typer.Option(help=f"{', '.join(ARRIVAL_NAMES)}; left out, poisson.")
    ] = None,
    mix: Annotated[
        str | None, typer.Option(help=f"What is drawn: {', '.join(MIX_NAMES)}; left out, qwen.")
    ] = None,
    load: Annotated[
        str | None,
        typer.Option(metavar="SHARE,…", help="Of the capacity at the knee; left out, 0.9."),
    ] = None,
    requests: Annotated[
        int | None, typer.Option(min=1, help="How many are drawn; left out, 1000.")
    ] = None,
    seeds: Annotated[
        str, typer.Option(metavar="SEED,…", help="The figures are means over them.")
    ] = "1",
    policy: Annotated[
        str, typer.Option(metavar="NAME,…", help=", ".join(CONTESTANT_NAMES))
    ] = DEFAULT_POLICY,
    replicas: Annotated[
        int | None, typer.Option(min=1, help="Machines behind the router; left out, 1.")
    ] = None,
    scenario: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="How replicas come and go, as JSON, instead of a number."
        ),
    ] = None,
    router: Annotated[str, typer.Option(help=", ".join(ROUTER_NAMES))] = "round-robin",
    max_batch_size: MaxBatchSize = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for report.json and the plot.")
    ] = None,
) -> None:
    """Run the scheduler on a virtual clock, and compare policies and loads."""
    drawn = {"--arrivals": arrivals, "--mix": mix, "--load": load, "--requests": requests}
    if workload and (given := [name for name, value in drawn.items() if value is not None]):
        raise ConfigurationError(f"{given[0]} is of drawn jobs, and --workload gives them")
    if scenario and replicas is not None:
        raise ConfigurationError(
            "--scenario says how many replicas there are, and so does --replicas"
        )
    loads = None if workload else _parse_loads("0.9" if load is None else load)
    numbers = _parse_seeds(seeds)
    if output:
        make_folder(output)

    from chairlift.simulate.comparison import Comparison, drawn_workload, given_workload
    from chairlift.simulate.scenario import Scenario, read_scenario
    from chairlift.simulate.workload import read_jobs
    from chairlift.tables import load_costs

    table = load_costs(costs)
    fleet = read_scenario(scenario) if scenario else Scenario(replicas=replicas or 1)
    comparison = Comparison(
        costs=table,
        workload=given_workload(read_jobs(workload))
        if workload
        else drawn_workload(
            arrivals="poisson" if arrivals is None else arrivals,
            mix="qwen" if mix is None else mix,
            requests=requests or 1000,
            costs=table,
            replicas=fleet.most,
        ),
        policies=policy.split(","),
        loads=loads or [None],
        seeds=numbers,
        scenario=fleet,
        router=router,
        max_batch_size=parse_max_batch_size(max_batch_size),
    )
    with console.status("simulating"):
        results = list(comparison.run())
    _print(results, fleet=scenario is not None)
    if output:
        options: dict[str, Any] = drawn | {"--costs": costs}
        options |= {"--workload": workload and str(workload)}
        options |= {"--replicas": fleet.most, "--router": router}
        options |= {"--scenario": asdict(fleet), "--max-batch-size": max_batch_size}
        _write(output, options | {"--seeds": numbers}, results)
        _plot(output, results)


def _parse_loads(given: str) -> list[float]:
    loads = []
    for one in given.split(","):
        try:
            loads.append(float(one))
        except ValueError:
            loads.append(math.nan)
        if not 0 < loads[-1] < math.inf:
            raise ConfigurationError(f"--load: {one!r} is no number above 0")
    return loads


def _parse_seeds(given: str) -> list[int]:
    for one in given.split(","):
        if not one.isdecimal():
            raise ConfigurationError(f"--seeds: {one!r} is no whole number from 0 on")
    return [int(one) for one in given.split(",")]


def _print(results: Iterable[Result], fleet: bool) -> None:
    from chairlift.simulate.report import create_table

    out = Console()
    if not out.is_terminal:
        out = Console(width=TABLE_WIDTH)
    out.print(create_table((result.mean for result in results), fleet))


def _write(folder: Path, options: dict[str, Any], results: Iterable[Result]) -> None:
    """Everything, for other programs."""
    report = {
        "options": {name.removeprefix("--"): value for name, value in options.items()},
        "results": [
            {"mean": result.mean.to_json(), "seeds": [one.to_json() for one in result.each]}
            for result in results
        ],
    }
    path = folder / "report.json"
    try:
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path} can't be written: {error.strerror}") from None


def _plot(folder: Path, results: Sequence[Result]) -> None:
    from chairlift.simulate.plot import plot, plot_fleet

    try:
        if results[0].mean.load is not None:
            plot([result.mean for result in results], folder / "load.png")
        if results[0].samples:
            plot_fleet(results[0].samples, folder / "fleet.png")
    except ConfigurationError as error:
        console.print(Text(f"warning: {error}", "yellow"), soft_wrap=True)
