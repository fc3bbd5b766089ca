"""This host: disk, sockets, port."""

from __future__ import annotations

import errno
import os
import shlex
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from failover_agent.adapters.record import NAME, Record, read_host, read_record
from failover_agent.checks.finding import Finding, Level, Status
from failover_agent.checks.measure import RECORD_BYTES, existing
from failover_agent.config import Settings
from failover_agent.core.policy import Role
from failover_agent.errors import (
    FailoverAgentError,
    ForeignRecordError,
    PortInUseError,
    UnreadableRecordError,
)


def find(settings: Settings, status: Status | None) -> Iterator[Finding]:
    """`status` is what the agent of this node says, None when none answers."""
    yield from of_state_dir(settings)
    yield from of_control_socket(settings.node.control_socket, status)
    yield from of_port(settings, status)


def of_state_dir(settings: Settings) -> Iterator[Finding]:
    """Where record and journal are kept; a witness has a record for each pair."""
    state_dir = settings.node.state_dir
    problem = _why_not_writable(state_dir)
    if problem:
        yield Finding(
            Level.ERROR,
            "state_dir",
            f"{state_dir} cannot be written to ({problem})",
            f"Run as root; or [{settings.role}] state_dir names another folder on a local disk",
        )
    elif settings.role is Role.WITNESS:
        for name, _ in settings.clusters:
            yield _of_record(settings, name, state_dir / name)
    else:
        yield _of_record(settings, settings.keys.cluster, state_dir)


def _of_record(settings: Settings, cluster: str, folder: Path) -> Finding:
    try:
        record = read_record(folder)
    except UnreadableRecordError as error:
        return Finding(
            Level.WARNING,
            "record",
            f"{error.where}: {error.what}; an agent sets it aside and first waits for "
            "heartbeat_timeout, because it may have promised anything",
            error.todo,
        )
    except FailoverAgentError as error:
        return Finding(Level.ERROR, "record", f"{error.where}: {error.what}", error.todo)
    if record is None:
        new = "pair" if settings.role is Role.WITNESS else "node"
        return Finding(Level.OK, "record", f"{folder}: there is none yet, this {new} is new")
    foreign = _why_foreign(record, cluster, settings.role, folder / NAME)
    if foreign is not None:
        return Finding(Level.ERROR, "record", f"{foreign.where}: {foreign.what}", foreign.todo)
    return Finding(Level.OK, "record", f"{folder}: term {record.durable.term}, writable")


def _why_foreign(record: Record, cluster: str, role: Role, path: Path) -> ForeignRecordError | None:
    machine = read_host().machine
    if (record.cluster, record.role) != (cluster, role):
        return ForeignRecordError(
            path=path,
            its=f"the {record.role} of cluster {record.cluster!r}",
            ours=f"the {role} of cluster {cluster!r}",
        )
    if machine and record.host.machine and record.host.machine != machine:
        return ForeignRecordError(path=path, its="another machine", ours="not that one")
    return None


def _why_not_writable(directory: Path) -> str:
    """Could a file be made in `directory`, or `directory` itself? "" if so."""
    above = existing(directory)
    try:
        with tempfile.NamedTemporaryFile(dir=above, prefix=".check-") as file:
            file.write(bytes(RECORD_BYTES))  # a full disk takes an empty file
            file.flush()
            os.fsync(file.fileno())
            return ""
    except OSError as error:
        problem = error.strerror or str(error)
        return problem if above == directory else f"it cannot be made in {above}: {problem}"


def of_control_socket(control_socket: Path, status: Status | None) -> Iterator[Finding]:
    """Where the command line speaks to the agent."""
    if status is not None:
        yield Finding(Level.OK, "control_socket", f"{control_socket}: the agent answers")
        return
    try:
        is_file = not stat.S_ISSOCK(control_socket.lstat().st_mode)
    except OSError:
        is_file = False
    problem = _why_not_writable(control_socket.parent)
    if is_file:
        yield Finding(
            Level.ERROR,
            "control_socket",
            f"{control_socket} is a file and no socket",
            f"rm {shlex.quote(str(control_socket))}, or name another control_socket",
        )
    elif problem:
        yield Finding(
            Level.ERROR,
            "control_socket",
            f"{control_socket} cannot be made ({problem})",
            "Run as root; or control_socket in the table of the role names another place",
        )
    else:
        yield Finding(Level.OK, "control_socket", f"{control_socket} can be made")


def of_port(settings: Settings, status: Status | None) -> Iterator[Finding]:
    """Is the port ours, or free?"""
    bind, port, role = settings.node.bind, settings.node.port, settings.role
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
    except OSError as error:
        if status is not None and status["role"] == role:
            yield Finding(
                Level.OK, "port", f"{bind}:{port} is held by the agent (pid {status['pid']})"
            )
        elif error.errno == errno.EADDRINUSE:
            taken = PortInUseError(bind=bind, port=port, role=role)
            yield Finding(Level.ERROR, "port", f"{taken.where}: {taken.what}", taken.todo)
        else:
            yield Finding(
                Level.ERROR,
                "port",
                f"{bind}:{port} cannot be listened on ({error.strerror or error})",
                f'[{role}] bind = "0.0.0.0" listens on every address of this host; a port below '
                "1024 needs root",
            )
    else:
        yield Finding(Level.OK, "port", f"{bind}:{port} is free")
