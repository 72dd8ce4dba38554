"""Nodes that come and are taken away: each of them is a Ray node of its own on this machine."""

from __future__ import annotations

from pathlib import Path

import httpx

from chairlift.cluster.autoscaling import AutoscalingOptions
from tests.cluster.running import Calls, pictures, running_cluster
from tests.running import GENERATIONS, wait_until


def test_what_a_drained_node_has_is_done_and_its_replica_is_replaced(
    single: httpx.Client, tmp_path: Path
) -> None:
    """The first node has room for the front end and a replica, each other one for a replica."""
    scaling = AutoscalingOptions(max_replicas=2, target_seconds=0.1, scale_out_delay_s=0.2)
    with running_cluster() as cluster:
        cluster.deploy(tmp_path, cpus=2, autoscaling=scaling)
        drained, drained_process = cluster.order("join", 2)
        body = {"prompt": "a boat", "num_inference_steps": 200, "sampler": "heun"}
        calls = Calls(cluster.http, body)
        calls.call()
        wait_until(lambda: cluster.replicas(drained_process))
        calls.call_until(lambda: cluster.busy() == 2)
        _, other_process = cluster.order("join", 2)
        cluster.order("drain", drained)
        wait_until(lambda: not cluster.replicas(drained_process))
        wait_until(lambda: len(cluster.replicas(other_process)) == 1)
        found = calls.pictures()
    assert found == [pictures(single.post(GENERATIONS, json=body)) for body in calls.bodies]
