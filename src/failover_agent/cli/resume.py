"""`failover-agent resume`: forget the failures and moves that hold this node back."""

from __future__ import annotations

import argparse

from failover_agent.cli import control


def main(arguments: argparse.Namespace) -> int:
    """Exit code 1 when the agent refuses."""
    return control.order(arguments, "resume")
