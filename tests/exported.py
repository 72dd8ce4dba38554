"""The metrics that a server exports, without a server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from unittest.mock import patch

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from chairlift.engine.client import EngineClient
from chairlift.engine.worker_config import WorkerConfig
from chairlift.server.events import Streams
from chairlift.server.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Exported:
    """One metric."""

    type: str
    samples: frozenset[str]
    """The names of its time series."""
    labels: frozenset[str]


def exported_metrics() -> dict[str, Exported]:
    """By the name under which operators know them: a counter's ends with ``_total``."""
    client = EngineClient(WorkerConfig(model="fake"))
    # So that there are metrics of its worker.
    with patch.object(EngineClient, "worker_pids", [os.getpid()]):
        text = generate_latest(Metrics(client, Streams(1)).registry).decode()
    exported = {}
    for family in text_string_to_metric_families(text):
        if family.name.endswith("_created"):
            continue
        name = family.name + ("_total" if family.type == "counter" else "")
        samples = frozenset(sample.name for sample in family.samples)
        labels = frozenset(label for sample in family.samples for label in sample.labels)
        exported[name] = Exported(family.type, samples, labels)
    return exported
