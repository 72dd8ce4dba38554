"""A cluster on this machine, as a program: it deploys what it is told, a JSON line each, until its
input ends. The tests talk to it by HTTP, so that Ray isn't in their process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import ray
from ray import serve
from ray.serve.schema import ServeDeploySchema

from chairlift.cluster.application import build

RAY = (sys.executable, "-W", "ignore", "-m", "ray.scripts.scripts")
"""Its command line."""
LEAVE_SECONDS = 60


class LocalCluster:
    """Ray on this machine: one node with three cores, and those that join it."""

    def __init__(self, temporary: str, port: int) -> None:
        ray.init(
            num_cpus=3,  # So many processes are started beforehand.
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=temporary,
        )
        # With a proxy on each, nodes of one address would want the same port.
        serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
        self._nodes: list[subprocess.Popen[bytes]] = []

    def close(self) -> None:
        """All of it ends."""
        serve.shutdown()
        for node in self._nodes:
            node.terminate()
        for node in self._nodes:
            node.wait(LEAVE_SECONDS)
        ray.shutdown()

    def deploy(self, arguments: dict[str, Any]) -> None:
        """An application, in place of the last one."""
        serve.run(build(arguments))

    def loads(self, _: None) -> list[dict[str, Any]]:
        """What each replica tells its router."""
        engines = serve.get_deployment_handle("Engine", "default")
        told: list[dict[str, Any]] = engines.broadcast("record_routing_stats").results()
        return told

    def validate(self, config: dict[str, Any]) -> None:
        """A Serve config that Ray would take, and an application that can be built."""
        for application in ServeDeploySchema.model_validate(config).applications:
            build(application.args)

    def join(self, cores: int) -> tuple[str, int]:
        """One more node; its id and its process."""
        before = {node["NodeID"] for node in ray.nodes()}
        process = subprocess.Popen(
            [
                *(*RAY, "start", "--block", "--address", self._address),
                *("--num-cpus", str(cores), "--num-gpus", "0", "--dashboard-agent-listen-port=0"),
            ],
            stdout=subprocess.DEVNULL,
        )
        self._nodes.append(process)
        while not (new := {node["NodeID"] for node in ray.nodes()} - before):
            if process.poll() is not None:
                raise RuntimeError("the node doesn't start")
            time.sleep(0.1)
        return new.pop(), process.pid

    def drain(self, node: str) -> None:
        """A node is going to be taken away."""
        reason = ("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a test")
        command = [*RAY, "drain-node", "--address", self._address, "--node-id", node, *reason]
        subprocess.run([*command, "--deadline-remaining-seconds", "60"], check=True, stdout=2)

    @property
    def _address(self) -> str:
        return str(ray.get_runtime_context().gcs_address)


def main(temporary: str, port: int) -> None:
    cluster = LocalCluster(temporary, port)
    commands: dict[str, Callable[[Any], Any]] = {
        "deploy": cluster.deploy,
        "loads": cluster.loads,
        "validate": cluster.validate,
        "join": cluster.join,
        "drain": cluster.drain,
    }
    for line in sys.stdin:
        command, argument = json.loads(line)
        sys.stdout.write("\n" + json.dumps(["done", commands[command](argument)]) + "\n")
        sys.stdout.flush()
    cluster.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
