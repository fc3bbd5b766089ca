"""`python -m failover_agent.run`: what the guard starts as its child."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from failover_agent import config
from failover_agent.adapters.lifeline import Line, reexecute
from failover_agent.core.policy import Role
from failover_agent.errors import FailoverAgentError
from failover_agent.run.node import run_node
from failover_agent.run.witness import run_witness

GUARD_LOST = "the guard has gone: this process becomes guard and agent; no container is touched"

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m failover_agent.run`: the agent without its command line."""
    parser = argparse.ArgumentParser(prog="python -m failover_agent.run")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--role")
    parsed = parser.parse_args(arguments)
    line = Line.take(os.environ)
    own = sys.argv[1:] if arguments is None else arguments

    def on_guard_lost() -> None:
        """At once: while we take ourselves apart nobody would watch, and nobody would renew."""
        log.warning("guard lost", extra={"fields": {"sentence": GUARD_LOST}})
        reexecute(own)

    try:
        settings = config.load(parsed.config, parsed.role)
        run = run_witness if settings.role is Role.WITNESS else run_node
        return asyncio.run(run(settings, line, on_guard_lost))
    except FailoverAgentError as error:
        with contextlib.suppress(OSError):  # who does not listen gets the exit code all the same
            os.write(sys.stderr.fileno(), f"{error}\n".encode(errors="replace"))
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
