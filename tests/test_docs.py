"""The operating guide has every option, every metric, every field of a log line, and no others."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from chairlift.cli import app
from chairlift.engine.ride import Ride
from chairlift.errors import InvalidRequest
from chairlift.server.logs import RequestLog, log_refused
from tests.builders import a_request
from tests.exported import exported_metrics

DOCS = Path(__file__).parents[1] / "docs"
GUIDE = (DOCS / "operations.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
WITH_OPTIONS = [name for name in COMMANDS if name != "version"]


def section(title: str) -> str:
    """What stands under a heading."""
    [text] = re.findall(
        rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", GUIDE, re.DOTALL | re.MULTILINE
    )
    return str(text)


def table(text: str) -> list[list[str]]:
    """The cells of the rows of all tables."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    is_rule = [set(row[0]) <= {"-", " "} for row in rows]
    heads = {index - 1 for index, rule in enumerate(is_rule) if rule}
    return [row for index, row in enumerate(rows) if index not in heads and not is_rule[index]]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def documented(command: str) -> dict[str, str]:
    """What stands in the last column for every name in the first, here or where it is linked to."""
    text = section(f"Options of `chairlift {command}`")
    if not table(text):
        [page] = re.findall(r"\]\((\w+\.md)\)", text)
        text = (DOCS / page).read_text(encoding="utf-8")
    return {name: row[-1].strip("`") for row in table(text) for name in code(row[0])}


def names(parameter: Any) -> list[str]:
    """All under which an option can be given."""
    variables = [parameter.envvar] if parameter.envvar else []
    return [*parameter.opts, *parameter.secondary_opts, *variables]


def options(command: str) -> list[Any]:
    parameters = COMMANDS[command].params
    return [one for one in parameters if one.param_type_name == "option" and one.name != "help"]


@pytest.mark.parametrize("command", WITH_OPTIONS)
def test_the_guide_has_the_options_of_a_command_and_no_others(command: str) -> None:
    rows = documented(command)
    real = {name for option in options(command) for name in names(option)}
    assert real
    assert real - rows.keys() == set()
    assert {name for name in rows if name.startswith("-")} - real == set()


@pytest.mark.parametrize("command", WITH_OPTIONS)
def test_the_guide_has_the_defaults_of_a_command(command: str) -> None:
    rows = documented(command)
    for option in options(command):
        match option.default:
            case None:
                continue
            case bool(default):
                expected = "on" if default else "off"
            case float(default):
                expected = f"{default:g}"
            case default:
                expected = str(default)
        assert rows[option.opts[0]] == expected, option.opts


def test_the_guide_has_every_metric_and_no_others() -> None:
    told = {code(row[0])[0]: row[1] for row in table(section("Metrics"))}
    real = {
        name + ("{" + labels + "}" if labels else ""): found.type
        for name, found in exported_metrics().items()
        if not name.startswith("chairlift_engine_process_")
        for labels in [",".join(sorted(found.labels - {"le"}))]
    }
    assert told == real


def test_the_engine_has_the_metrics_of_a_process() -> None:
    exported = exported_metrics()
    engine = {name.removeprefix("chairlift_engine_") for name in exported if "_engine_" in name}
    assert engine == {name for name in exported if name.startswith("process_")}


def test_metrics_in_any_document_are_exported() -> None:
    exported = exported_metrics()
    known = exported.keys() | {name for found in exported.values() for name in found.samples}
    for page in [
        *DOCS.glob("*.md"),
        *DOCS.parent.glob("examples/**/*.md"),
        DOCS.parent / "README.md",
    ]:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"\b(?:chairlift|process)_\w+_(?:seconds|total|bytes|rows)\b", text):
            assert name in known, f"{page.name}: {name}"


def test_the_guide_has_every_field_of_a_request_and_no_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def end() -> None:
        loop = asyncio.get_running_loop()
        ride = Ride(a_request(), loop.create_future(), loop.time())
        ride.answer.cancel()
        RequestLog(prompts=True)(ride)
        log_refused(InvalidRequest("n is 99", param="n"), "POST", "/v1/jobs")

    with caplog.at_level(logging.INFO, "chairlift.requests"):
        asyncio.run(end())
    logged = {name for record in caplog.records for name in getattr(record, "fields", {})}
    with_traces = {"trace_id"}
    assert {code(row[0])[0] for row in table(section("Logs"))} == logged | with_traces


def test_links_between_documents_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", GUIDE, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", GUIDE):
        page, _, anchor = target.partition("#")
        assert not page or (DOCS / page).is_file(), target
        assert page or anchor in headings, target
