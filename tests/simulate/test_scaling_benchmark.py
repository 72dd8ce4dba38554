"""The benchmark of many replicas runs on small things too."""

from __future__ import annotations

import pytest

from benchmarks import scaling
from benchmarks.scaling import main
from chairlift.simulate.names import ROUTER_NAMES


def test_it_prints_its_tables(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "ROUTED", {4: 6000})
    main(["routing", "autoscaling", "trouble", "--share", "0.002"])
    printed = capsys.readouterr().out
    assert all(f"| 4 | {name} | " in printed for name in ROUTER_NAMES)
    assert "bursts of one kind" in printed
    assert "| 8 s of backlog | " in printed
    assert "| failures, one an hour each | " in printed


def test_it_simulates_a_day_of_a_thousand_replicas_as_far_as_it_is_asked_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["day", "--share", "0.0001"])
    assert "A day, mix C, 50 to 1000 replicas" in capsys.readouterr().out


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["everything"])
    assert "there is no part 'everything'; the parts are routing" in capsys.readouterr().err
