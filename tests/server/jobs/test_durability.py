"""A server that is killed has every job that it has acknowledged."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import msgspec

from tests.server.jobs.builders import a_job, opened

ACKNOWLEDGED = 300

SERVER = """
import asyncio, sys, uuid
from dataclasses import replace
from pathlib import Path
import msgspec
from chairlift.request import GenerationRequest
from chairlift.server.jobs.data_dir import DataDir
from chairlift.server.jobs.job import new_job
from chairlift.server.jobs.store import JobStore

request = msgspec.json.decode(sys.stdin.buffer.read(), type=GenerationRequest)

async def accept(store):
    while True:
        job = new_job(replace(request, id=f"job_{uuid.uuid4().hex}"), created_at=1.0)
        await store.add(job)
        print(job.id, flush=True)

async def serve():
    store = await JobStore.open(DataDir.open(Path(sys.argv[1])))
    await asyncio.gather(*(accept(store) for _ in range(8)))

asyncio.run(serve())
"""


def test_every_acknowledged_job_survives_a_kill(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(msgspec.json.encode(a_job().request))
        server.stdin.close()
        acknowledged = [server.stdout.readline() for _ in range(ACKNOWLEDGED)]
        server.kill()
        acknowledged += server.stdout.readlines()
    # The last line may be half of one.
    ids = [line.decode().strip() for line in acknowledged if line.endswith(b"\n")]

    async def read() -> list[str]:
        async with opened(tmp_path) as store:
            return [job.id for job in await store.unfinished()]

    stored = asyncio.run(read())
    assert len(ids) >= ACKNOWLEDGED
    assert set(ids) <= set(stored)
