"""An environment for the peers, on top of the running one: the same torch and diffusers, and beside
them what only the peers need. Nothing of the running environment is changed.
"""

from __future__ import annotations

import subprocess
import sysconfig
import venv
from importlib.metadata import version
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
SHARED = ("torch", "diffusers", "transformers", "numpy")
"""Packages that all contestants must have alike: pip may not bring others."""


def prepare_environment(folder: Path) -> Path:
    """Make the environment, unless it is there already; its interpreter.

    Args:
        folder: Where it is, or is made.

    Raises:
        RuntimeError: The folder is something else, pip has failed, or the environment has other
            versions of what is shared.
    """
    python = folder / "bin" / "python"
    stamp = folder / "requirements.txt"
    wanted = REQUIREMENTS.read_text() + _constraints()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        raise RuntimeError(f"{folder} is no environment, and not empty")
    print(f"the peers' environment is made in {folder}", flush=True)
    venv.create(folder, with_pip=True, clear=True)
    _build_on_running(folder)
    _install(python, folder)
    _check_shared(python)
    stamp.write_text(wanted)
    return python


def _constraints() -> str:
    return "".join(f"{package}=={version(package)}\n" for package in SHARED)


def _build_on_running(folder: Path) -> None:
    """What isn't in the new environment is found in the running one."""
    below = sysconfig.get_path("purelib")
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (own / "running.pth").write_text(f"import site; site.addsitedir({below!r})\n")


def _install(python: Path, folder: Path) -> None:
    """With the constraint, pip has to be content with the torch of the running environment."""
    constraints = folder / "constraints.txt"
    constraints.write_text(_constraints())
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--requirement", str(REQUIREMENTS), "--constraint", str(constraints)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"the peers can't be installed:\n{result.stderr.strip()}")


def _check_shared(python: Path) -> None:
    code = "import sys; from importlib.metadata import version; "
    code += "print(*(f'{name}=={version(name)}' for name in sys.argv[1:]), sep='\\n')"
    found = subprocess.run(
        [str(python), "-c", code, *SHARED], check=True, capture_output=True, text=True
    ).stdout
    if found != _constraints():
        raise RuntimeError(f"the peers' environment has\n{found}and not\n{_constraints()}")
