"""A model that never returns from a forward with a certain prompt in it: its request is found and
fails, and nobody else notices more than a delay. A model that is only slow is left alone.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from chairlift.engine.messages import Finished
from chairlift.engine.worker_config import WorkerConfig
from chairlift.errors import EngineCrash
from tests.builders import a_request
from tests.running import PATIENCE_SECONDS, EngineThread, wait_until

FOUR_STARTS_SECONDS = 4 * PATIENCE_SECONDS
"""Of engine processes, each of which imports torch."""
SABOTAGE = """
# Python runs a module of this name before any program.
import threading
from chairlift.models.fake import FakeModel
from chairlift.request import Prompt

[mark] = FakeModel().encode([Prompt("hang")])
predict = FakeModel.predict

def predict_or_hang(self, batch):
    if (batch.conditioning["words"] == mark.tensors["words"]).all(dim=1).any():
        threading.Event().wait()
    return predict(self, batch)

FakeModel.predict = predict_or_hang
"""


def test_a_request_that_hangs_the_model_fails_and_its_neighbours_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SABOTAGE)
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    with EngineThread(WorkerConfig(model="fake"), hang_seconds=2.0) as engine:
        client = engine.client

        async def generate(id: str, seed: int, prompt: str) -> list[bytes]:
            answer = await client.submit(a_request(id, prompt=prompt, seed=seed, n=2)).answer
            assert isinstance(answer, Finished)
            return answer.images

        async def all_at_once() -> list[list[bytes] | BaseException]:
            work = [generate(f"good {seed}", seed, "a boat") for seed in range(4)]
            work.insert(2, generate("bad", 2, "hang"))
            return await asyncio.gather(*work, return_exceptions=True)

        async def one_by_one() -> list[list[bytes]]:
            return [await generate(f"alone {seed}", seed, "a boat") for seed in range(4)]

        expected = engine.wait_for(one_by_one())
        pictures = engine.start(all_at_once()).result(FOUR_STARTS_SECONDS)
        blamed = pictures.pop(2)
        assert isinstance(blamed, EngineCrash)
        assert pictures == expected
        wait_until(lambda: client.pending_rows == 0)
    assert "bad is run alone" in caplog.text
    assert "has work and has said nothing for 2 s" in caplog.text


def test_a_model_whose_steps_take_longer_than_that_is_not_held_to_hang() -> None:
    with EngineThread(WorkerConfig(model="fake:2.5"), hang_seconds=2.0) as engine:
        worker = engine.client.worker_pids

        async def generate() -> None:
            await engine.client.submit(a_request(steps=2)).answer

        engine.wait_for(generate())
        assert engine.client.worker_pids == worker
