"""`failover-agent run`: be the agent of this host until a signal ends it."""

from __future__ import annotations

import argparse
import asyncio


def main(arguments: argparse.Namespace) -> int:
    """Returns when the agent has left; its own mistakes are raised."""
    from failover_agent import config
    from failover_agent.run import run_node

    return asyncio.run(run_node(config.load(arguments.config, arguments.role)))
