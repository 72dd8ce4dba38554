"""What a newcomer asks first: the help of every command, and the version."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

import chairlift
from chairlift.cli import app
from chairlift.cli.groups import GROUPS

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
WITH_OPTIONS = [name for name in COMMANDS if name != "version"]


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "120", "NO_COLOR": "1"})
    assert done.exit_code == 0, done.output
    return done.output


def options(command: str) -> set[str]:
    return {one.name for one in COMMANDS[command].params if one.param_type_name == "option"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_every_option_says_what_it_is_for(command: str) -> None:
    assert COMMANDS[command].help
    assert all(one.help for one in COMMANDS[command].params if one.name != "help")


@pytest.mark.parametrize("command", WITH_OPTIONS)
def test_the_groups_of_options_stand_in_the_help(command: str) -> None:
    text = run(command, "--help")
    own = options(command)
    for group, names in GROUPS.get(command, {}).items():
        assert (f"─ {group} ─" in text) == bool(own & set(names.split())), group


def test_groups_name_options_that_there_are_and_each_once() -> None:
    for groups in {id(groups): groups for groups in GROUPS.values()}.values():
        grouped = [name for names in groups.values() for name in names.split()]
        users = [command for command in GROUPS if GROUPS[command] is groups]
        assert len(grouped) == len(set(grouped))
        assert set(grouped) <= set().union(*map(options, users))


@pytest.mark.parametrize("argument", ["version", "--version"])
def test_the_version_is_printed(argument: str) -> None:
    assert run(argument) == f"{chairlift.__version__}\n"
