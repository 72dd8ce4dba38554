"""A server as a child process, for demos, benchmarks and tests."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator

from chairlift.errors import ConfigurationError

_URL = re.compile(r"is served at (http://\S+)")


@contextlib.contextmanager
def running_server(*arguments: str) -> Iterator[str]:
    """Run ``chairlift serve`` on a free port of this machine, and end it afterwards.

    Args:
        *arguments: As on the command line, but for ``--port``.

    Yields:
        The server's URL, once it takes requests.

    Raises:
        ConfigurationError: It has ended before that; the message is what it has said.
    """
    command = [sys.executable, "-m", "chairlift", "serve", *arguments, "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    # Once it runs, what it says is read on and passed over, so that it never waits for a reader.
    reading = threading.Thread(target=deque, args=(process.stderr, 0), name="stderr")
    said = ""
    try:
        while not (match := _URL.search(said)):
            line = process.stderr.readline()
            if not line:
                raise ConfigurationError(said.strip())
            said += line
        reading.start()
        yield match[1]
    finally:
        process.terminate()
        process.wait()
        if reading.ident:
            reading.join()
        process.stderr.close()
