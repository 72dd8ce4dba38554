"""The names that the command line offers. Apart from what they name, which brings numpy."""

from __future__ import annotations

from chairlift.scheduling.names import POLICY_NAMES

COMPARISON_NAMES = ("off", "dynamic", "peers")
CONTESTANT_NAMES = (*POLICY_NAMES, *COMPARISON_NAMES)
ROUTER_NAMES = ("round-robin", "least-requests", "two-choices", "least-backlog")
ARRIVAL_NAMES = ("poisson", "gamma", "on-off", "day", "closed")
MIX_NAMES = ("qwen", "A", "B", "C")
