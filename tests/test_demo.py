"""The demo runs to its end and shows what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

DEMO = Path(__file__).parent.parent / "examples" / "demo.py"


def test_the_demo_shows_rows_that_join_and_leave(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(DEMO)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    off, continuous = done.stdout.split("--batching continuous")
    assert all(len(steps) == 1 for steps in riders(off))
    mixed = [steps for steps in riders(continuous) if len(set(steps)) > 1]
    assert any(steps[-1] == 0 and steps[0] > 0 for steps in mixed), "nobody joined a running batch"
    with Image.open(tmp_path / "demo-output" / "contact-sheet.png") as sheet:
        assert sheet.size == (1024, 768)
    assert len(list((tmp_path / "demo-output").glob("[0-9]*.png"))) == 12


def riders(output: str) -> list[list[int]]:
    """The steps of each tick's rows."""
    return [
        [int(step) for step in line.split(",")]
        for line in re.findall(r"^tick .*\[([\d, ]+)\]", output, re.MULTILINE)
    ]
