"""Which device a worker takes, on a machine that is said to have several."""

from __future__ import annotations

import pytest
import torch

from chairlift.engine.devices import choose_threads, count_devices, count_sharers, own_device
from chairlift.engine.worker_config import WorkerConfig
from chairlift.errors import ConfigurationError


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_each_worker_takes_a_device_of_its_own(device: str) -> None:
    configs = [WorkerConfig(number=number, device=device) for number in range(3)]
    assert {count_devices(config) for config in configs} == {3}
    assert [str(own_device(config)) for config in configs] == ["cuda:0", "cuda:1", "cuda:2"]


@pytest.mark.usefixtures("three_gpus")
def test_a_worker_without_a_device_says_so() -> None:
    with pytest.raises(ConfigurationError, match="device is 'cuda:3'; this machine has 3 CUDA"):
        own_device(WorkerConfig(number=3))


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_the_device_that_is_asked_for_is_taken(device: str) -> None:
    config = WorkerConfig(number=2, device=device)
    assert count_devices(config) == 1
    assert str(own_device(config)) == device


def test_without_a_gpu_all_are_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = WorkerConfig(number=2)
    assert count_devices(config) == 1
    assert str(own_device(config)) == "cpu"


def test_workers_on_one_device_share_it() -> None:
    assert count_sharers(WorkerConfig(number=1, workers=3, device="cpu")) == 3


@pytest.mark.usefixtures("three_gpus")
def test_a_worker_with_a_device_of_its_own_shares_it_with_nobody() -> None:
    assert count_sharers(WorkerConfig(number=1, workers=3)) == 1


@pytest.mark.parametrize(("sharers", "threads"), [(1, 8), (2, 4), (3, 2), (9, 1)])
def test_workers_divide_the_threads_of_a_cpu(
    monkeypatch: pytest.MonkeyPatch, sharers: int, threads: int
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert choose_threads(sharers) == threads


def test_the_operators_number_of_threads_is_each_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert choose_threads(4) == 8
