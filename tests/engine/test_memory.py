"""What a worker does with the memory of its host."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

USE_AND_FREE = """
import resource, sys
from chairlift.engine.memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "keep":
    keep_freed_memory()
bytearray(64 * 2**20)
before = faults()
for _ in range(10):
    bytearray(64 * 2**20)
print(faults() - before)
"""
"""Prints how many pages were mapped for blocks of 64 MiB that come after an equal one."""


def mapped_pages(way: str) -> int:
    command = [sys.executable, "-c", USE_AND_FREE, way]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries have other ways")
def test_memory_that_was_freed_is_used_again_without_being_mapped_anew() -> None:
    assert mapped_pages("keep") < 1000
    assert mapped_pages("as it is") > 10_000
