"""What the random traces and the bfloat16 comparisons found goes into the summary of the run."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.stats.get("passed", []):
        properties = dict(report.user_properties)
        if "pictures" in properties:
            terminalreporter.write_line(
                f"{report.nodeid.split('::')[-1]}: {properties['identical']} of "
                f"{properties['pictures']} pictures are the same to the byte as alone, "
                "the others within 1/255"
            )
        if "PSNR" in properties:
            terminalreporter.write_line(f"{report.nodeid}: {properties['PSNR']}")
