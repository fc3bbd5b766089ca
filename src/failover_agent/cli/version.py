"""`failover-agent version`: which version this is."""

from __future__ import annotations

import argparse

from failover_agent import __version__
from failover_agent.cli import output
from failover_agent.errors import ExitCode


def main(_arguments: argparse.Namespace) -> int:
    """Prints it; loads nothing else."""
    output.say(f"failover-agent {__version__}")
    return ExitCode.FINE
