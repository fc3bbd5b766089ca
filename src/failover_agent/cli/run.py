"""`failover-agent run`: be the agent of this host until a signal ends it.

This very process becomes the guard, and the agent is its child: so nothing may be imported here
that the guard has no need of.
"""

from __future__ import annotations

import argparse
import os
import sys

from failover_agent.guard.supervisor import supervise


def main(arguments: argparse.Namespace) -> int:
    """Returns the exit code of the agent, which has told its own mistakes."""
    command = [sys.executable, "-P", "-m", "failover_agent.run"]
    if arguments.config is not None:
        command += ["--config", str(arguments.config)]
    if arguments.role is not None:
        command += ["--role", arguments.role]
    return supervise(
        command, config=arguments.config, role=arguments.role, environ=dict(os.environ)
    )
