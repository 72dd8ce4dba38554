"""The metrics that a server exports, without a server."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from unittest.mock import patch

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from chairlift.engine.client import EngineClient
from chairlift.engine.worker_config import WorkerConfig
from chairlift.server.events import Streams
from chairlift.server.metrics import Metrics
from tests.builders import create_card


@dataclass(frozen=True, slots=True)
class Exported:
    """One metric."""

    type: str
    samples: frozenset[str]
    """The names of its time series."""
    values: Mapping[str, set[str]]
    """Those of each label."""

    @property
    def labels(self) -> set[str]:
        return set(self.values)


def exported_metrics() -> dict[str, Exported]:
    """By the name under which operators know them: a counter's ends with ``_total``."""
    client = EngineClient(WorkerConfig(model="fake"))
    # So that there are metrics of its worker and of its model.
    with (
        patch.object(EngineClient, "worker_pids", [os.getpid()]),
        patch.object(EngineClient, "card", create_card()),
    ):
        text = generate_latest(Metrics(client, Streams(1)).registry).decode()
    exported = {}
    for family in text_string_to_metric_families(text):
        name = family.name + ("_total" if family.type == "counter" else "")
        samples = frozenset(sample.name for sample in family.samples)
        values = defaultdict[str, set[str]](set)
        for sample in family.samples:
            for label, value in sample.labels.items():
                values[label].add(value)
        exported[name] = Exported(family.type, samples, values)
    return exported
