"""The command line: one file for each command."""

from __future__ import annotations

import logging
import sys

import typer
from rich.console import Console
from rich.text import Text

import chairlift
from chairlift.cli.bench import bench
from chairlift.cli.deploy import deploy
from chairlift.cli.generate import generate
from chairlift.cli.options import console
from chairlift.cli.profile import profile
from chairlift.cli.serve import serve
from chairlift.cli.simulate import simulate
from chairlift.errors import ChairliftError

app = typer.Typer(
    help="A server for diffusion models: requests get on and off the running batch at every step.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(serve)
app.command()(generate)
app.command()(profile)
app.command()(simulate)
app.command()(bench)
app.command()(deploy)


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
    Console().print(chairlift.__version__)
