"""Nothing that is read can execute anything: no pickle, no code from elsewhere.

The sources are searched for it, the modules that a running program has imported, and then a server
and the loading of a model are watched by an audit hook, in all their processes.
"""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import chairlift
from tests.running import GENERATIONS, PATIENCE_SECONDS

ROOT = Path(__file__).parents[1]
SOURCES = sorted(Path(chairlift.__file__).parent.rglob("*.py"))
TREE = [
    *SOURCES,
    *(
        file
        for name in ("benchmarks", "examples", "training")
        for file in ROOT.glob(f"{name}/**/*.py")
    ),
]

MODULES = {"pickle", "cPickle", "_pickle", "pickletools", "dill", "cloudpickle", "joblib"}
MODULES |= {"shelve", "marshal", "jsonpickle", "hickle", "klepto"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {"torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "numpy.load", "np.load"}
CALLS |= {"torch.save", "pandas.read_pickle", "pd.read_pickle"}
WORDS = {"allow_pickle", "trust_remote_code", "weights_only"}
"""Of arguments and attributes."""
TRAINING_STATE = {"torch.save", "torch.load", "weights_only"}
"""What the scripts that train the bundled model use for their own checkpoints, of tensors alone,
which nothing else reads."""


def unsafe(source: str) -> set[str]:
    """What a source has of all these."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        found |= _names(node) & (MODULES | WORDS)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found |= {called} & (BUILTINS | CALLS | {f"builtins.{name}" for name in BUILTINS})
    return found


def _names(node: ast.AST) -> set[str]:
    match node:
        case ast.Import(names=names):
            return {part for alias in names for part in alias.name.split(".")}
        case ast.ImportFrom(module=module, names=names):
            return {*(module or "").split("."), *(alias.name for alias in names)}
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return {name}
        case ast.keyword(arg=str(name)):
            return {name}
        case ast.Constant(value=str(text)) if re.fullmatch(r"[\w.]+", text):
            return {text}  # the argument of importlib.import_module, a key of keyword arguments
    return set()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", {"pickle"}),
        ("def f():\n    from dill import loads", {"dill"}),
        ("from torch.package import _pickle", {"_pickle"}),
        ("import_module('pickle')", {"pickle"}),
        ("torch.serialization.pickle.loads(a)", {"pickle"}),
        ("torch.load(a, weights_only=True)", {"torch.load", "weights_only"}),
        ("np.load(a, allow_pickle=True)", {"np.load", "allow_pickle"}),
        ("load(a, **{'trust_remote_code': True})", {"trust_remote_code"}),
        ("yaml.load(a)", {"yaml.load"}),
        ("eval(a)", {"eval"}),
        ("builtins.exec(a)", {"builtins.exec"}),
        ("model.eval()\nre.compile(a)\nyaml.safe_load(a)  # no pickle", set()),
    ],
)
def test_the_search_finds_it(source: str, found: set[str]) -> None:
    assert unsafe(source) == found


@pytest.mark.parametrize("file", TREE, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_source_has_it(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    allowed = TRAINING_STATE if file.is_relative_to(ROOT / "training") else set()
    assert unsafe(source) - allowed == set()


@pytest.mark.parametrize("file", TREE, ids=lambda file: str(file.relative_to(ROOT)))
def test_weights_are_of_safetensors_and_states_of_tensors_alone(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            options = {one.arg: ast.unparse(one.value) for one in node.keywords}
            assert options.get("use_safetensors", "True") == "True"
            if ast.unparse(node.func) == "torch.load":
                assert options["weights_only"] == "True"


LOOK = """
import importlib, json, pkgutil, sys, types, chairlift

for module in pkgutil.walk_packages(chairlift.__path__, "chairlift."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
ours = [module for name, module in sys.modules.items() if name.partition(".")[0] == "chairlift"]
held = {
    f"{module.__name__}.{name} is of {origin}"
    for module in ours
    for name, value in vars(module).items()
    for origin in [value.__name__ if isinstance(value, types.ModuleType)
                   else getattr(value, "__module__", None)]
    if isinstance(origin, str) and origin.partition(".")[0] in set(sys.argv[1:])
}
print(json.dumps([len(ours), sorted(held)]))
"""


def test_no_imported_module_of_ours_holds_it() -> None:
    """Libraries may have imported it; ours have no name for it, not by another one either."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOOK, *sorted(MODULES)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    count, held = json.loads(done.stdout)
    assert count > len(SOURCES) / 2
    assert held == []


# ---------------------------------------------------------------------- while it runs

WATCHER = """
import os, sys

def watch(event, details):
    if event == "pickle.find_class":
        with open(os.environ["FOUND_BY_WATCHER"], "a") as found:
            found.write(f"{sys.argv} {details}\\n")

with open(os.environ["FOUND_BY_WATCHER"] + ".watched", "a") as watched:
    watched.write("a process\\n")
sys.addaudithook(watch)
"""
"""Whatever pickle makes an object of has to be found first, which Python tells its audit hooks."""


class Watch:
    """Where the watchers of all processes write; they are in ``surroundings``."""

    def __init__(self, folder: Path) -> None:
        (folder / "sitecustomize.py").write_text(WATCHER)
        self._found = folder / "found"
        self.surroundings = os.environ | {
            "PYTHONPATH": str(folder),
            "FOUND_BY_WATCHER": str(self._found),
            "HF_HUB_OFFLINE": "1",
        }

    @property
    def found(self) -> str:
        return self._found.read_text() if self._found.exists() else ""

    @property
    def processes(self) -> int:
        return self._found.with_name("found.watched").read_text().count("\n")


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    return Watch(tmp_path)


def test_the_watch_sees_it(watch: Watch) -> None:
    code = "import pickle, fractions; pickle.loads(pickle.dumps(fractions.Fraction(1)))"
    subprocess.run([sys.executable, "-c", code], env=watch.surroundings, check=True)
    assert "Fraction" in watch.found


def test_a_model_is_loaded_and_makes_a_picture_without_it(watch: Watch, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "chairlift", "generate", "a boat", "--steps", "1"]
    subprocess.run(
        [*command, "--device", "cpu", "-o", str(tmp_path / "pictures")],
        env=watch.surroundings,
        capture_output=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    assert len(list((tmp_path / "pictures").iterdir())) == 1
    assert watch.found == ""


def test_a_server_and_its_engine_talk_without_it(watch: Watch, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "chairlift", "serve", "fake", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--data-dir", str(tmp_path / "data"), "--log-format", "json"],
        stderr=subprocess.PIPE,
        text=True,
        env=watch.surroundings,
    )
    with process:
        assert process.stderr is not None
        try:
            line = next(line for line in process.stderr if "is served at" in line)
            [url] = re.findall(r"http://[\d.:]+", line)
            body = {"prompt": "a boat", "stream": True, "partial_images": 1}
            httpx.post(url + GENERATIONS, json=body).raise_for_status()
            httpx.post(f"{url}/v1/jobs", json={"prompt": "a boat"}).raise_for_status()
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    assert watch.processes >= 2
    assert watch.found == ""
