"""What modules must not import: torch in the front end, and what executes the data it reads."""

from __future__ import annotations

import ast
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import chairlift
import chairlift.scheduling

FRONT_END = ["chairlift", "chairlift.server.app", "chairlift.engine.client", "chairlift.cli"]
SCHEDULING = [
    module.name
    for module in pkgutil.walk_packages(chairlift.scheduling.__path__, "chairlift.scheduling.")
]
PURE = ["chairlift.errors", "chairlift.request", "chairlift.card", "chairlift.models.source"]

HEAVY = {"torch", "diffusers", "transformers"}
UNSAFE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE |= {"multiprocessing"}  # pickles what it passes

FILES = sorted(Path(chairlift.__file__).parent.rglob("*.py"))


def modules_after_importing(names: list[str]) -> set[str]:
    """The top-level modules of a fresh interpreter that has imported these."""
    code = f"import sys, json, {', '.join(names)}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def imported(file: Path) -> Iterator[str]:
    """Every module that a file imports anywhere in it, by its top-level name."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


def test_the_front_end_imports_no_torch() -> None:
    assert not modules_after_importing(FRONT_END) & (HEAVY | {"numpy"})


def test_the_scheduler_imports_no_torch_and_no_server() -> None:
    assert "chairlift.scheduling.scheduler" in SCHEDULING
    heavy = HEAVY | {"fastapi", "zmq", "uvicorn"}
    assert not modules_after_importing(SCHEDULING + PURE) & heavy


def test_the_scheduler_reads_no_clock() -> None:
    files = Path(chairlift.scheduling.__file__).parent.rglob("*.py")
    assert not {name for file in files for name in imported(file)} & {"time", "datetime", "random"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_nothing_untrusted_is_executed(file: Path) -> None:
    assert not set(imported(file)) & UNSAFE
    source = file.read_text(encoding="utf-8")
    assert "trust_remote_code" not in source
    assert "torch.load" not in source
