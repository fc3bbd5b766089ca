"""Every error a user can meet: what happened, where, and what to do next.

The command line prints `str(error)` as one paragraph, without a traceback, and exits with
`error.exit_code`. An error whose sentences are the same wherever it is raised makes them here.
"""

from enum import IntEnum
from pathlib import Path
from typing import ClassVar


class ExitCode(IntEnum):
    """What a script learns from a command; the systemd unit starts nothing again after USAGE."""

    FINE = 0
    FAILED = 1
    USAGE = 2
    DEGRADED = 3
    NO_AGENT = 4


class FailoverAgentError(Exception):
    """The base. `where` is a file, an address or a setting; `what` a clause without a full stop;
    `todo` one or more whole sentences.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED

    def __init__(self, *, where: str, what: str, todo: str) -> None:
        super().__init__(where, what, todo)
        self.where = where
        self.what = what
        self.todo = todo

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.todo}"


class ConfigError(FailoverAgentError):
    """File, environment or argument say what cannot be; starting again mends nothing."""

    exit_code = ExitCode.USAGE


class SecretError(ConfigError):
    """The shared secret is missing, unreadable, too short, or open to other users."""


class PortInUseError(FailoverAgentError):
    """Somebody else listens where this agent wants to."""

    def __init__(self, *, bind: str, port: int, role: str) -> None:
        super().__init__(
            where=f"[{role}] port = {port}",
            what=f"another program already listens on {bind}:{port}",
            todo=f"`ss -ltnp sport = :{port}` names it: end it, or choose another port here and in "
            "the other node's endpoint.",
        )


class EngineError(FailoverAgentError):
    """The Docker Engine does not answer, or says no."""

    def __init__(self, *, engine: str, what: str) -> None:
        super().__init__(
            where=f"Docker Engine at {engine}",
            what=what,
            todo="Try `docker version` as the user the agent runs as; docker.host in the "
            "configuration names another engine.",
        )


class RecordError(FailoverAgentError):
    """The record in state_dir cannot be used. The base of three that differ in what follows."""


class UnreadableRecordError(RecordError):
    """Damaged, or not ours to read: an agent sets it aside and starts as if it was lost."""

    def __init__(self, *, path: Path, problem: str) -> None:
        super().__init__(
            where=str(path),
            what=f"the record cannot be read ({problem})",
            todo="Look at the disk and at the permissions; without it the agent starts as on its "
            "first day, and first waits.",
        )


class ForeignRecordError(RecordError):
    """Written for another cluster, role or machine: refused, because its promises are not ours."""

    exit_code = ExitCode.USAGE

    def __init__(self, *, path: Path, its: str, ours: str) -> None:
        super().__init__(
            where=str(path),
            what=f"the record belongs to {its}, and this is {ours}",
            todo="Give this node a state_dir of its own; or, if the record was copied here by "
            "mistake, or the machine has a new /etc/machine-id, move the file away.",
        )


class FutureRecordError(RecordError):
    """Written by a newer version: its schema is not known here."""

    exit_code = ExitCode.USAGE

    def __init__(self, *, path: Path, schema: int, known: int) -> None:
        super().__init__(
            where=str(path),
            what=f"the record has schema {schema}, and this version knows none above {known}",
            todo="Install the version that wrote it, or a newer one.",
        )


class SocketDeniedError(FailoverAgentError):
    """There may be an agent, but not for this user."""

    def __init__(self, *, control_socket: Path, uid: int) -> None:
        super().__init__(
            where=str(control_socket),
            what=f"this user (uid {uid}) may not speak to the agent",
            todo="The socket is for the user that the agent runs as: try again with sudo.",
        )


class NoAgentError(FailoverAgentError):
    """Nobody answers on the control socket."""

    exit_code = ExitCode.NO_AGENT

    def __init__(self, *, control_socket: Path, problem: str) -> None:
        super().__init__(
            where=str(control_socket),
            what=f"no agent answers ({problem})",
            todo="See whether it runs with `systemctl status failover-agent`; --config and --role "
            "must be those that it was started with.",
        )
