"""`failover-agent run`: be the agent of this host until a signal ends it.

This very process becomes the guard, and the agent is its child: so nothing may be imported here
that the guard has no need of.
"""

from __future__ import annotations

import argparse
import os
import sys

from failover_agent.guard.supervisor import supervise

BROKE = 70
"""The guard itself broke. Not 1, after which the systemd unit waits: a lease may be armed."""


def main(arguments: argparse.Namespace) -> int:
    """Returns the exit code of the agent, which has told its own mistakes; or BROKE."""
    command = [sys.executable, "-P", "-m", "failover_agent.run"]
    if arguments.config is not None:
        command += ["--config", str(arguments.config)]
    if arguments.role is not None:
        command += ["--role", arguments.role]
    try:
        return supervise(
            command, config=arguments.config, role=arguments.role, environ=dict(os.environ)
        )
    except Exception as error:  # noqa: BLE001 - of which nobody thought
        sys.excepthook(type(error), error, error.__traceback__)
        return BROKE
