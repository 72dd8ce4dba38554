"""Cost tables on disk."""

from __future__ import annotations

import json
from pathlib import Path

from chairlift.errors import ConfigurationError
from chairlift.scheduling.costs import Costs


def load_costs(path: str | None) -> Costs:
    """The cost table of a file; nothing is known without one.

    Raises:
        ConfigurationError: The file is missing, or is no cost table.
    """
    if path is None:
        return Costs()
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the cost table {path} can't be read: {error}") from None
    if not isinstance(table, dict):
        raise ConfigurationError(f"the cost table {path} is not a JSON object")
    return Costs(table)
