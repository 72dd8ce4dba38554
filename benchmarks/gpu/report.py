"""The report, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.gpu import published
from benchmarks.gpu.figures import Figures
from benchmarks.gpu.results import Load, Measurement, ModelResults, Results, Size
from benchmarks.gpu.targets import verdicts

BATCHING = ("off", "dynamic", "continuous")


def lines(results: Results) -> Iterator[str]:
    """Of the Markdown."""
    yield f"# {results.machine}"
    yield ""
    yield f"`python -m benchmarks.gpu {' '.join(results.arguments)}`"
    yield ""
    yield (
        "Weights are random where there are only configs; pictures are square. Latency is from a "
        "request's arrival until its file is there, in one process, without HTTP. Loads are shares "
        "of the bare loop's capacity. Of less than a hundred pictures, read the p99 as the slowest."
    )
    for model in results.models:
        yield from _model(model)
    if not results.is_whole:
        yield from ("", "**Not all of it worked: see the failures above.**")


def _model(model: ModelResults) -> Iterator[str]:
    yield from ("", f"## {model.name}", "")
    if model.error:
        yield f"Not measured: {model.error}"
        return
    millions = ", ".join(f"{name} {count / 1e6:,.1f}" for name, count in model.parameters.items())
    guidance = "with guidance (a row is two in a forward)" if model.guided else "without guidance"
    yield f"{model.dtype}, {model.steps} steps, {guidance}; millions of weights: {millions}."
    for size in model.sizes:
        yield from _size(model, size)


def _size(model: ModelResults, size: Size) -> Iterator[str]:
    yield from ("", f"### {model.name}, {size.side}x{size.side}")
    if size.step_seconds:
        yield from _steps(model, size)
    if size.bare:
        yield from ("", f"Bare loop, {size.knee} rows: **{size.bare:.3f}** pictures/s.")
    if size.alone_s:
        yield f"A picture alone takes {size.alone_s:.3f} s."
    if size.measurements:
        yield from _loads(size)
        yield from _sweep(size)
        yield from _beside_published(model, size)
        yield from ("", "Targets:", "")
        for verdict in verdicts(size):
            yield f"- {verdict}"
    if size.error:
        yield from ("", f"Ended by: {size.error}")


def _steps(model: ModelResults, size: Size) -> Iterator[str]:
    """The cost curve, and what was published of it."""
    others = published.STEPS.get(model.name, {}).get(size.side, {})
    counts = sorted({*size.step_seconds, *others})
    yield from _head("rows", *map(str, counts))
    seconds = [size.step_seconds.get(rows) for rows in counts]
    yield _row("s a step", *(_number(value, 4) for value in seconds))
    speeds = [value and rows / value for rows, value in zip(counts, seconds, strict=True)]
    yield _row("rows a second", *(_number(value, 2) for value in speeds))
    if others:
        yield _row("published¹", *(_number(others.get(rows), 3) for rows in counts))
    yield from ("", f"The knee is {size.knee}; batching gains a factor of {size.gain:.2f}.")
    if others:
        yield from ("", f"¹ {published.STEPS_SOURCE}")


def _loads(size: Size) -> Iterator[str]:
    columns = ("mean s", "p50 s", "p99 s", "slowdown", "rows a tick", "failed")
    yield from _head("load", "batching", "pictures/s", "of the bare loop", *columns)
    for load in size.loads:
        for batching in BATCHING:
            found = size.find(batching, load)
            if found:
                yield _row(load.name, str(found.mode), *_cells(size, found))


def _cells(size: Size, one: Measurement) -> list[str]:
    figures, failed = one.figures, str(len(one.outcome.failures))
    if figures is None:
        return ["–"] * 7 + [failed]
    share = figures.throughput / size.bare if size.bare else None
    return [
        f"{figures.throughput:.3f}",
        _number(share, 3),
        *_latencies(figures),
        f"{figures.slowdown:.2f}",
        f"{figures.tick_rows:.1f}",
        failed,
    ]


def _sweep(size: Size) -> Iterator[str]:
    tried = [one for one in size.measurements if one.mode.batching == "dynamic"]
    swept = [one for one in tried if one.mode not in size.chosen.values()]
    if not swept:
        return
    yield from ("", "Settings of `dynamic` that were tried and not chosen:")
    yield from _head("load", "batching", "pictures/s", "mean s", "p50 s", "p99 s")
    for one in swept:
        if one.figures:
            throughput = f"{one.figures.throughput:.3f}"
            yield _row(one.load.name, str(one.mode), throughput, *_latencies(one.figures))


def _beside_published(model: ModelResults, size: Size) -> Iterator[str]:
    """The saturated loads beside what was published."""
    others = published.REQUESTS.get(model.name)
    if others is None or size.side != published.SIDE:
        return
    yield from _head("served", "requests/s", "mean s", "p99 s")
    for name, served in (("off", others.off), ("dynamic", others.on)):
        figures = (served.requests_per_s, served.mean_s, served.p99_s)
        yield _row(f"published² {others.name}, {name}", *(f"{value:.3f}" for value in figures))
    for load in size.loads:
        if load.is_saturating:
            for batching in BATCHING:
                yield from _own(size, batching, load)
    yield from ("", f"² {published.REQUESTS_SOURCE}")


def _own(size: Size, batching: str, load: Load) -> Iterator[str]:
    if figures := size.figures(batching, load):
        values = (figures.throughput, figures.mean_s, figures.p99_s)
        yield _row(f"here, {batching}, {load.name}", *(f"{value:.3f}" for value in values))


def _latencies(figures: Figures) -> Sequence[str]:
    return [f"{value:.3f}" for value in (figures.mean_s, figures.p50_s, figures.p99_s)]


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _head(*cells: str) -> Iterator[str]:
    """Of a table."""
    yield from ("", _row(*cells), _row(*["---"] * len(cells)))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
