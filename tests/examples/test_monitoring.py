"""The dashboard asks for what is exported, and the files of the folder fit together."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from chairlift.server.serve import ServeConfig
from tests.exported import exported_metrics

FOLDER = Path(__file__).parents[2] / "examples" / "monitoring"
DASHBOARD = json.loads((FOLDER / "grafana/chairlift.json").read_text(encoding="utf-8"))
QUERIES = [
    (panel["title"], target["expr"], target["legendFormat"])
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]
FUNCTIONS = {"histogram_quantile", "increase", "rate", "sum"}
FROM_PROMETHEUS = {"instance", "job"}
"""Labels that every scraped series has."""


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def metrics_in(expression: str) -> set[str]:
    """The names in an expression that are neither functions nor labels nor keywords."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\bby \([^)]*\)", "", bare)
    names = re.findall(r"[a-zA-Z_]\w*(?!\w*\s*\()", bare)
    called = set(re.findall(r"([a-zA-Z_]\w*)\s*\(", re.sub(r"\bby \(", "", expression)))
    assert called <= FUNCTIONS, f"what is {called - FUNCTIONS}?"
    return {name for name in names if name not in FUNCTIONS}


@pytest.mark.parametrize(("title", "expression", "legend"), QUERIES)
def test_a_query_asks_for_what_is_exported(title: str, expression: str, legend: str) -> None:
    exported = {sample: found for found in exported_metrics().values() for sample in found.samples}
    asked = metrics_in(expression)
    assert asked
    assert asked <= exported.keys()
    matched = set(re.findall(r"(\w+)\s*=~?\s*\"", expression))
    grouped = {
        label.strip()
        for labels in re.findall(r"\bby \(([^)]*)\)", expression)
        for label in labels.split(",")
    }
    shown = set(re.findall(r"\{\{(\w+)\}\}", legend))
    for name in asked:
        labels = exported[name].labels | FROM_PROMETHEUS
        assert matched | grouped <= labels
        assert shown <= (grouped or labels)


@pytest.mark.parametrize(("title", "expression", "legend"), QUERIES)
def test_a_query_is_well_formed(title: str, expression: str, legend: str) -> None:
    for left, right in ("()", "{}", "[]"):
        assert expression.count(left) == expression.count(right)
    # Counters and buckets are of no use but through a rate.
    for name in metrics_in(expression):
        if name.endswith(("_total", "_bucket", "_count", "_sum")):
            assert re.search(rf"(rate|increase)\({name}\{{[^}}]*\}}\[", expression)
    for name in re.findall(r"histogram_quantile\(.*?(\w+)\{", expression):
        assert name.endswith("_bucket")
        assert "sum by (le)" in expression


def test_no_contracted_metric_is_left_out() -> None:
    asked = {name for _, expression, _ in QUERIES for name in metrics_in(expression)}
    ours = {
        name: found.samples
        for name, found in exported_metrics().items()
        if name.startswith("chairlift_") and "_process_" not in name
    }
    assert {name for name, samples in ours.items() if not samples & asked} == set()


def rules() -> list[dict[str, Any]]:
    [group] = load("alerts.yml")["groups"]
    return list(group["rules"])


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_is_exported(rule: dict[str, Any]) -> None:
    expression = rule["expr"]
    exported = {sample: found for found in exported_metrics().values() for sample in found.samples}
    asked = metrics_in(expression) - {"up"}
    assert asked <= exported.keys()
    assert asked or rule["alert"] == "ChairliftDown"
    for name, wanted in re.findall(r'(\w+)=~?"([^"]*)"', expression):
        known = exported[asked.pop()].values[name] if asked else job_names()
        assert set(wanted.split("|")) <= known
    for left, right in ("()", "{}", "[]"):
        assert expression.count(left) == expression.count(right)
    told = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    kept = re.search(r"by \(([^)]*)\)", expression)
    assert told <= (set(kept[1].split(", ")) if kept else FROM_PROMETHEUS)


def job_names() -> set[str]:
    return {job["job_name"] for job in load("prometheus.yml")["scrape_configs"]}


def test_panels_are_told_apart_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert all(0 <= x < 24 for x, _ in cells)
    for panel in panels:
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)


def test_every_panel_uses_the_provisioned_data_source() -> None:
    [source] = load("grafana/datasources.yaml")["datasources"]
    wanted = {"type": source["type"], "uid": source["uid"]}
    panels = DASHBOARD["panels"]
    users = [*panels, *itertools.chain(*(panel["targets"] for panel in panels))]
    users += DASHBOARD["templating"]["list"]
    assert all(user["datasource"] == wanted for user in users)


def test_every_variable_is_defined() -> None:
    text = json.dumps(DASHBOARD["panels"])
    used = set(re.findall(r"\$(\w+)", text)) - {"__rate_interval"}
    assert used == {variable["name"] for variable in DASHBOARD["templating"]["list"]}


def test_what_is_mounted_is_here_and_where_it_is_looked_for() -> None:
    services = load("compose.yaml")["services"]
    mounts = {}
    for service in services.values():
        for volume in service["volumes"]:
            source, target, *_ = volume.split(":")
            mounts[target] = source
            assert not source.startswith(".") or (FOLDER / source).is_file()
    [provider] = load("grafana/dashboards.yaml")["providers"]
    dashboard = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert mounts[dashboard] == "./grafana/chairlift.json"
    assert Path(dashboard).parent == Path(provider["options"]["path"])
    config = services["prometheus"]["command"][0].removeprefix("--config.file=")
    assert mounts[config] == "./prometheus.yml"
    for rule_file in load("prometheus.yml")["rule_files"]:
        assert mounts[str(Path(config).parent / rule_file)] == f"./{rule_file}"


def test_prometheus_reads_the_server_and_grafana_reads_prometheus() -> None:
    [job] = load("prometheus.yml")["scrape_configs"]
    [targets] = job["static_configs"]
    default = ServeConfig.__dataclass_fields__
    assert targets["targets"] == [f"{default['host'].default}:{default['port'].default}"]
    assert "metrics_path" not in job  # Prometheus' own default is ours.
    [source] = load("grafana/datasources.yaml")["datasources"]
    listening = [
        argument.partition("=")[2]
        for argument in load("compose.yaml")["services"]["prometheus"]["command"]
        if argument.startswith("--web.listen-address=")
    ]
    assert source["url"] == f"http://{listening[0]}"
