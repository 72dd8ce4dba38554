"""The names that the command line offers. Apart from what they name, which brings numpy."""

from __future__ import annotations

POLICY_NAMES = ("balanced", "fcfs", "srpt", "hrrn", "deadline", "fair")
DEFAULT_POLICY = "balanced"
