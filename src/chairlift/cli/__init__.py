"""The command line: one file for each command."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

import chairlift
from chairlift.cli.bench import bench
from chairlift.cli.deploy import deploy
from chairlift.cli.generate import generate
from chairlift.cli.groups import GroupedCommand
from chairlift.cli.options import console
from chairlift.cli.profile import profile
from chairlift.cli.serve import serve
from chairlift.cli.simulate import simulate
from chairlift.errors import ChairliftError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command(cls=GroupedCommand)(serve)
app.command(cls=GroupedCommand)(generate)
app.command(cls=GroupedCommand)(profile)
app.command(cls=GroupedCommand)(simulate)
app.command(cls=GroupedCommand)(bench)
app.command(cls=GroupedCommand)(deploy)


def main() -> None:
    """The entry point: an expected error is one line and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        app()
    except ChairliftError as error:
        console.print(Text.assemble(("chairlift:", "red"), f" {error}"), soft_wrap=True)
        sys.exit(2)


@app.command()
def version() -> None:
    """Print the version."""
    Console().print(chairlift.__version__, highlight=False)


def _version_option(given: bool) -> None:
    if given:
        version()
        raise typer.Exit


@app.callback()
def start(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version_option, is_eager=True, help=version.__doc__),
    ] = False,
) -> None:
    """A server for diffusion models: requests get on and off the running batch at every step."""
