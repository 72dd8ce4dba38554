"""A cluster on this machine, as a program: it deploys what it is told, a JSON line each, until its
input ends. The tests talk to it by HTTP, so that Ray isn't in their process.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import ray
from ray import serve
from ray.serve.schema import ServeDeploySchema

from chairlift.cluster.application import build


def main(temporary: str, port: int) -> None:
    ray.init(
        num_cpus=2,  # So many processes are started beforehand.
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=temporary,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    for line in sys.stdin:
        command, argument = json.loads(line)
        sys.stdout.write("\n" + json.dumps(["done", COMMANDS[command](argument)]) + "\n")
        sys.stdout.flush()
    serve.shutdown()
    ray.shutdown()


def deploy(arguments: dict[str, Any]) -> None:
    serve.run(build(arguments))


def loads(_: None) -> list[dict[str, Any]]:
    """What each replica tells its router."""
    told: list[dict[str, Any]] = (
        serve.get_deployment_handle("Engine", "default").broadcast("record_routing_stats").results()
    )
    return told


def validate(config: dict[str, Any]) -> None:
    """A Serve config that Ray would take, and an application that can be built."""
    for application in ServeDeploySchema.model_validate(config).applications:
        build(application.args)


COMMANDS = {"deploy": deploy, "loads": loads, "validate": validate}

if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
