"""`failover-agent history`: each change of this node's phase, when and why, oldest first."""

from __future__ import annotations

import argparse
import json

from failover_agent.cli import control, disk, output
from failover_agent.errors import ExitCode, NoAgentError

HEADER = "What the agent of this host did; the other one has a history of its own.\n"


def main(arguments: argparse.Namespace) -> int:
    """From the agent, else from the journal on this disk, with exit code 4."""
    where = control.places(arguments)
    code = ExitCode.FINE
    try:
        transitions = control.ask(where, f"/v1/history?limit={arguments.limit}")["history"]
    except NoAgentError as error:
        output.complain(error)
        transitions, code = disk.history(where, arguments.limit), error.exit_code
    if arguments.json:
        output.say(json.dumps(transitions, indent=2, ensure_ascii=False))
    elif not transitions:
        output.say("Nothing has happened yet.")
    else:
        output.say(HEADER)
        for transition in transitions:
            output.say("\n".join(disk.transition_lines(transition)))
    return code
