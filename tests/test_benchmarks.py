"""The benchmarks that need big hardware run on small things too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.steps import main
from chairlift.profiler import ShapeCosts
from tests.builders import save_tiny_stable_diffusion


def test_steps_writes_cost_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_tiny_stable_diffusion(tmp_path / "tiny", steps_offset=1)
    sizes, rows = ["32", "64"], ["1", "2", "4"]
    where = ["--models", str(folder), "-o", str(tmp_path / "costs")]
    main([*where, "--sizes", *sizes, "--rows", *rows, "--repeats", "2"])
    table = json.loads((tmp_path / "costs" / "tiny-eager.json").read_text())
    assert (table["model"], table["dtype"], table["counts"]) == ("tiny", "float32", "rows")
    assert [shape["width"] for shape in table["shapes"]] == [32, 64]
    for shape in table["shapes"]:
        assert list(shape["step_seconds"]) == rows
        assert min(shape["step_seconds"].values()) > 0
        assert shape["encode_seconds"].keys() == {"1"}
        assert shape["decode_seconds"].keys() == {"1", "2", "4"}
    printed = capsys.readouterr().out
    assert "| size | 1 | 2 | 4 |" in printed
    assert "| 64x64 | " in printed


@pytest.mark.parametrize(
    ("seconds", "knee"),
    [
        ({1: 0.167, 2: 0.183, 3: 0.186, 4: 0.240, 8: 0.425, 16: 0.832}, 8),
        ({1: 0.243, 2: 0.474, 3: 0.711}, 1),
        ({1: 1.0, 2: 1.0, 4: 1.0}, 4),
        ({1: 1.0}, 1),
    ],
)
def test_the_knee_is_the_last_count_that_made_a_row_cheaper(
    seconds: dict[int, float], knee: int
) -> None:
    assert ShapeCosts(width=512, height=512, frames=1, step_seconds=seconds).knee == knee
