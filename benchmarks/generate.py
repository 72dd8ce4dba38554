"""Time of one ``chairlift generate`` with default settings, cold and warm.

    python -m benchmarks.generate

Cold is the whole command: Python, the imports, the model, one picture. Warm is a request to an
engine that has already made one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

from benchmarks.machine import describe_machine, spread
from chairlift import Engine

PROMPT = "a red cabin on the left at night, a moon, snowy mountains"


def cold() -> float:
    """Seconds of the command."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "chairlift", "generate", PROMPT, "-o", folder]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start


def warm(engine: Engine) -> float:
    """Seconds of a request."""
    start = time.perf_counter()
    engine.generate(PROMPT)
    return time.perf_counter() - start


def main() -> None:
    print(describe_machine())
    print(f"cold, seconds: {spread([cold() for _ in range(5)])}")
    with Engine() as engine:
        warm(engine)
        print(f"warm, seconds: {spread([warm(engine) for _ in range(30)])}")


if __name__ == "__main__":
    main()
