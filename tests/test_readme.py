"""What the README and the guides show is what happens."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chairlift.server.process import running_server

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "docs/models.md"]
EXAMPLE_URL = "http://127.0.0.1:8000"


def code_blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


PYTHON = [(page, block) for page in PAGES for block in code_blocks(page, "python")]
COMMANDS = [
    line.partition("#")[0].strip()
    for page in PAGES
    for block in code_blocks(page, "(?:bash|console|sh)")
    for line in block.splitlines()
    if line.startswith(("chairlift generate", "curl "))
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server() as url:
        yield url


@pytest.mark.parametrize(("page", "block"), PYTHON)
def test_python_code_runs(
    page: str, block: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block.replace(EXAMPLE_URL, url), page, "exec"), {})


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, url: str, tmp_path: Path) -> None:
    words = shlex.split(command.replace(EXAMPLE_URL, url))
    if words[0] == "chairlift":
        words[:1] = [sys.executable, "-m", "chairlift"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"error"' not in done.stdout


def test_the_readme_shows_both() -> None:
    assert any(page == "README.md" for page, _ in PYTHON)
    assert any(command.startswith("chairlift generate") for command in COMMANDS)
    assert any(command.startswith("curl") for command in COMMANDS)
