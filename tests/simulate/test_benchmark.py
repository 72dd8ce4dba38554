"""The simulator's benchmark runs on small things too."""

from __future__ import annotations

import pytest

from benchmarks.simulator import main
from chairlift.scheduling.names import POLICY_NAMES


def test_it_prints_both_tables(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--requests", "20", "--replicas", "2", "--waiting", "3", "5"])
    printed = capsys.readouterr().out
    assert "20 requests on 2 replicas, balanced, least-requests, load 0.9: " in printed
    assert "| policy | 3 waiting | 5 waiting |" in printed
    assert all(f"| {name} | " in printed for name in POLICY_NAMES)
