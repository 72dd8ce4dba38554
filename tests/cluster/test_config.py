"""The options of a cluster: from the command line into Serve's config, and out of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from chairlift.cluster.autoscaling import AutoscalingOptions
from chairlift.cluster.config import (
    APPLICATION,
    ClusterConfig,
    parse_config,
    to_arguments,
    to_serve_config,
)
from chairlift.engine.worker_config import WorkerConfig
from chairlift.errors import ConfigurationError
from tests.test_cli import complaint, run

EXAMPLES = Path(__file__).parents[2] / "examples" / "ray"


def load_documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((EXAMPLES / name).read_text(encoding="utf-8")))


def arguments_in(serve_config: dict[str, Any]) -> dict[str, Any]:
    [application] = serve_config["applications"]
    assert application["import_path"] == APPLICATION
    arguments: dict[str, Any] = application["args"]
    return arguments


def test_what_is_written_says_the_same_again() -> None:
    config = ClusterConfig(
        worker=WorkerConfig(model="fake", loras=[("a", "b")], batch_delay=0.5),
        autoscaling=AutoscalingOptions(min_replicas=0, max_replicas=3, target_seconds=2.5),
        gpus=0,
        cors_origins=("https://a.example",),
    )
    assert parse_config(to_arguments(config)) == config
    assert parse_config(arguments_in(to_serve_config(config, host="::", port=1))) == config


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"front_ends": 0}, "front_ends is 0; it must be at least 1"),
        ({"max_queue": 0}, "max_queue is 0; it must be at least 1"),
        ({"gpus": -1}, "gpus is -1.0; it must be 0 or more"),
        ({"keep_days": float("inf")}, "keep_days is inf; it must be 0 or more"),
        ({"hang_timeout": 0}, "hang_timeout is 0.0; it must be above 0"),
        ({"data_dir": "/data", "front_ends": 2}, "front_ends is 2; with a data folder"),
        ({"replicas": 3}, "unknown field `replicas`"),
        ({"worker": {"modle": "fake"}}, "worker has no option modle"),
        ({"autoscaling": {"max_replicas": "3"}}, "autoscaling.max_replicas"),
        ({"autoscaling": {"min_replicas": 2}}, "max_replicas is 1; it must be 2 or more"),
    ],
)
def test_a_wrong_option_is_told(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        parse_config({"worker": {}, "autoscaling": {}} | changed)


def test_the_command_writes_what_its_options_say(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    options = ["--gpus", "0.5", "--min-replicas", "0", "--max-wait", "9", "--policy", "srpt"]
    done = run("deploy", "fake", "-o", str(file), *options, "--port", "8123")
    assert done.returncode == 0, done.stderr
    written = yaml.safe_load(file.read_text())
    assert written["http_options"] == {"host": "127.0.0.1", "port": 8123}
    assert parse_config(arguments_in(written)) == ClusterConfig(
        worker=WorkerConfig(model="fake", policy="srpt", batch_delay=0.05),
        autoscaling=AutoscalingOptions(min_replicas=0, max_wait_s=9),
        gpus=0.5,
    )


def test_the_command_writes_nothing_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    said = complaint(run("deploy", "-o", str(file), "--data-dir", "/data", "--front-ends", "2"))
    assert "front_ends is 2" in said
    assert not file.exists()


def test_the_example_is_what_the_readme_says_writes_it(tmp_path: Path) -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    [command] = re.findall(r"^chairlift (deploy .*?[^\\])$", readme, re.DOTALL | re.MULTILINE)
    words = command.replace("\\\n", " ").split()
    file = tmp_path / "serve.yaml"
    words[words.index("-o") + 1] = str(file)
    assert run(*words).returncode == 0
    assert file.read_text() == (EXAMPLES / "serve.yaml").read_text(encoding="utf-8")


def test_the_example_for_kubernetes_has_an_application_that_fits_its_nodes() -> None:
    [service] = load_documents("rayservice.yaml")
    config = parse_config(arguments_in(yaml.safe_load(service["spec"]["serveConfigV2"])))
    cluster = service["spec"]["rayClusterConfig"]
    groups = cluster["workerGroupSpecs"]
    assert sum(group["maxReplicas"] for group in groups) == config.autoscaling.max_replicas
    for group in groups:
        pod = group["template"]["spec"]
        [worker] = pod["containers"]
        limits = worker["resources"]["limits"]
        assert limits["nvidia.com/gpu"] >= config.gpus
        assert int(limits["cpu"]) >= config.cpus
        assert pod["terminationGracePeriodSeconds"] > config.shutdown_timeout
        assert "ray drain-node" in " ".join(worker["lifecycle"]["preStop"]["exec"]["command"])
        [keys] = worker["volumeMounts"]
        assert str(config.api_key_file).startswith(keys["mountPath"])
    assert cluster["rayVersion"] in (EXAMPLES / "README.md").read_text(encoding="utf-8")


def test_what_is_scraped_are_ports_that_pods_have() -> None:
    [service] = load_documents("rayservice.yaml")
    head = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    ports = {port["name"] for port in head["containers"][0]["ports"]}
    monitors = load_documents("monitors.yaml")
    scraped = {one["port"] for each in monitors for one in each["spec"]["podMetricsEndpoints"]}
    assert scraped <= ports
    [prometheus] = load_documents("prometheus.yaml")
    assert {job["job_name"] for job in prometheus["scrape_configs"]} == {"ray", "chairlift"}
