"""Cost tables on disk."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from chairlift.errors import ConfigurationError
from chairlift.scheduling.costs import Costs

logger = logging.getLogger(__name__)


def load_costs(path: str | None, row_entries: int | None = None, model: str | None = None) -> Costs:
    """The cost table of a file; nothing is known without one.

    Args:
        path: Of the file.
        row_entries: As for :class:`~chairlift.scheduling.costs.Costs`.
        model: Whose costs are wanted. Those of another one are taken, since what runs refines them;
            the log says so.

    Raises:
        ConfigurationError: The file is missing, or is no cost table.
    """
    if path is None:
        return Costs(row_entries=row_entries)
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the cost table {path} can't be read: {error}") from None
    if not isinstance(table, dict):
        raise ConfigurationError(f"the cost table {path} is not a JSON object")
    if model is not None and table.get("model") != model:
        logger.warning("the cost table %s is of %r, not of %r", path, table.get("model"), model)
    return Costs(table, row_entries)
