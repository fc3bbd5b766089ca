"""`failover-agent`: arguments, exit codes, and one module a command, loaded when asked for."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from failover_agent import __version__
from failover_agent.cli import output
from failover_agent.errors import ExitCode, FailoverAgentError

EXIT_CODES = """\
exit codes: 0 fine, 1 failed, 2 usage or configuration, 3 degraded, 4 no agent answers"""

INTERRUPTED = 130
MOST_HISTORY = 1000
"""So many transitions an agent remembers."""
MOST_SECONDS = 604800


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; what it returns is the exit code of the process."""
    arguments = _parser().parse_args(argv)
    try:
        code = _command(arguments.command)(arguments)
        sys.stdout.flush()
        return code
    except FailoverAgentError as error:
        output.complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read has seen enough; what is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FINE


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    match name:
        case "run":
            from failover_agent.cli import run

            return run.main
        case "init":
            from failover_agent.cli import init

            return init.main
        case "check":
            from failover_agent.cli import check

            return check.main
        case "status":
            from failover_agent.cli import status

            return status.main
        case "history":
            from failover_agent.cli import history

            return history.main
        case "takeover":
            from failover_agent.cli import takeover

            return takeover.main
        case "resume":
            from failover_agent.cli import resume

            return resume.main
        case "verify":
            from failover_agent.cli import verify

            return verify.main
        case _:
            from failover_agent.cli import version

            return version.main


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="failover-agent",
        description="Active/passive failover of Docker containers between two hosts.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"failover-agent {__version__}")
    parser.set_defaults(config=None, role=None)
    _add_config(parser, help_too=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="be the agent of this host")
    _add_config(run)

    init = commands.add_parser("init", help="write one configuration and one secret for all hosts")
    init.add_argument(
        "--primary", required=True, metavar="HOST", help="host name or address of the primary"
    )
    init.add_argument(
        "--backup", required=True, metavar="HOST", help="host name or address of the backup"
    )
    init.add_argument(
        "--containers",
        required=True,
        metavar="NAME,NAME",
        help="the containers of the service, in the order of their start",
    )
    init.add_argument("--cluster", default="default", metavar="NAME", help="names the pair")
    init.add_argument(
        "--dir",
        type=Path,
        default=Path("/etc/failover-agent"),
        metavar="DIR",
        help="where the files go (default: %(default)s)",
    )
    init.add_argument("--witness", metavar="HOST", help="host of a witness: the third vote")

    check = commands.add_parser(
        "check", help="look for whatever would keep the pair from failing over"
    )
    _add_config(check)

    status = commands.add_parser("status", help="who is active, and is all well")
    _add_agent(status)
    form = status.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as GET /v1/status has it")
    form.add_argument("--watch", action="store_true", help="again each second, until Ctrl-C")

    history = commands.add_parser("history", help="what happened, when and why")
    _add_agent(history)
    history.add_argument(
        "--limit", type=_count, default=20, metavar="N", help="the last N (default: %(default)s)"
    )
    history.add_argument("--json", action="store_true", help="a list of objects")

    takeover = commands.add_parser(
        "takeover", help="become active on your word that the other host is off"
    )
    _add_agent(takeover)
    takeover.add_argument(
        "--peer-is-off",
        action="store_true",
        help="your word that the containers do not run on the other host, and will not",
    )

    resume = commands.add_parser(
        "resume", help="allow automatic moves again, after too many of them or a failed start"
    )
    _add_agent(resume)

    verify = commands.add_parser(
        "verify", help="explore what can happen to this pair, with your timings"
    )
    _add_config(verify)
    verify.add_argument(
        "--faults",
        type=_count,
        default=2,
        metavar="N",
        help="at most N faults in one history (default: %(default)s)",
    )
    verify.add_argument(
        "--seconds",
        type=_seconds,
        default=90.0,
        metavar="S",
        help="stop after S seconds and say what was covered; 0: never (default: %(default)g)",
    )
    verify.add_argument(
        "--story", action="store_true", help="tell the longest takeover, outage and overlap too"
    )

    commands.add_parser("version", help="print the version")
    return parser


def _add_config(parser: argparse.ArgumentParser, *, help_too: bool = True) -> None:
    """Before the command or behind it: where it is not given it must not undo the other place."""
    of_config = "else $FAILOVER_AGENT_CONFIG, else /etc/failover-agent/config.toml"
    of_role = "primary, backup or witness; else $FAILOVER_AGENT_ROLE"
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=argparse.SUPPRESS,
        help=of_config if help_too else argparse.SUPPRESS,
    )
    parser.add_argument(
        "--role",
        metavar="ROLE",
        default=argparse.SUPPRESS,
        help=of_role if help_too else argparse.SUPPRESS,
    )


def _add_agent(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    parser.add_argument(
        "--socket", type=Path, metavar="PATH", help="the agent's control socket, in place of both"
    )


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() and len(text) < 5 else 0
    if not 1 <= number <= MOST_HISTORY:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MOST_HISTORY}")
    return number


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {MOST_SECONDS}")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
