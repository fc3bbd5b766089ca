"""`failover-agent takeover`: the operator's word in place of the peer's release."""

from __future__ import annotations

import argparse

from failover_agent.cli import control, output
from failover_agent.errors import ExitCode

WITHOUT_THE_FLAG = """\
failover-agent takeover does nothing without --peer-is-off.

With it you give your word that the containers do not run on the other host and
cannot start there by themselves: it is switched off, or you have stopped them.
This node then becomes active without asking the other one. If your word is
wrong the containers run on both hosts at once, and both write.

Look first, on the other host if you can reach it: failover-agent status
If it is off: failover-agent takeover --peer-is-off"""


def main(arguments: argparse.Namespace) -> int:
    """Exit code 1 when the agent refuses."""
    if not arguments.peer_is_off:
        output.complain(WITHOUT_THE_FLAG)
        return ExitCode.USAGE
    return control.order(arguments, "takeover")
