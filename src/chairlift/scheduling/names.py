"""The names that the command line offers. Apart from what they name, which brings numpy."""

from __future__ import annotations

from chairlift.errors import ConfigurationError

POLICY_NAMES = ("balanced", "fcfs", "srpt", "hrrn", "deadline", "fair")
DEFAULT_POLICY = "balanced"


def check_policy(name: str) -> str:
    """``name``, if there is a policy of that name.

    Raises:
        ConfigurationError: There is none.
    """
    if name not in POLICY_NAMES:
        raise ConfigurationError(f"policy is {name!r}; it must be one of {', '.join(POLICY_NAMES)}")
    return name
