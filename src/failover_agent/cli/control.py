"""Speaking to a running agent: HTTP over its control socket, with an end to every wait.

The standard library suffices for that, and a command that starts in no time is worth it at 3 a.m.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from failover_agent.cli import output
from failover_agent.core.policy import Role
from failover_agent.errors import (
    ConfigError,
    ExitCode,
    FailoverAgentError,
    NoAgentError,
    SocketDeniedError,
)

ANSWER_S = 10.0
"""The agent itself answers within 5 s, or says that it could not."""
LARGEST_ANSWER = 50_000_000

_SOCKET_UNKNOWN = ConfigError(
    where="control socket",
    what="it is not known while the configuration cannot be used",
    todo="A running agent answers all the same: name its socket with --socket, by default "
    "/run/failover-agent/CLUSTER.sock.",
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an agent answers, and where its files are; `state_dir` None: not known."""

    control_socket: Path
    state_dir: Path | None = None


def places(arguments: argparse.Namespace) -> tuple[Place, ...]:
    """Where the agent of this host may answer: --socket, else what the configuration says.

    Without a role both nodes' sockets count: it is the same one unless their tables say otherwise.
    Raises ConfigError.
    """
    if arguments.socket is not None:
        return (Place(arguments.socket),)
    from failover_agent import config

    try:
        configuration = config.read(arguments.config)
    except config.MistakesError as error:
        raise config.MistakesError((*error.mistakes, _SOCKET_UNKNOWN)) from error
    named = arguments.role or os.environ.get("FAILOVER_AGENT_ROLE")
    members = (Role.PRIMARY, Role.BACKUP)
    roles = (config.choose_role(named),) if named else configuration.roles or members
    nodes = [configuration.node(role) for role in roles]
    return tuple(dict.fromkeys(Place(node.control_socket, node.state_dir) for node in nodes))


def ask(where: tuple[Place, ...], path: str, command: Mapping[str, str] | None = None) -> Any:
    """What the first agent that answers says: to GET `path`, or to POST with a command.

    Raises NoAgentError when none answers, FailoverAgentError for an answer that is of no use.
    """
    nobody: NoAgentError | None = None
    for place in where:
        try:
            return _ask(place.control_socket, path, command)
        except NoAgentError as error:
            nobody = nobody or error
    assert nobody is not None, "there is always a place to ask at"
    raise nobody


def _ask(control_socket: Path, path: str, command: Mapping[str, str] | None) -> Any:
    connection = _UnixConnection(control_socket)
    try:
        if command is None:
            connection.request("GET", path)
        else:
            connection.request(
                "POST", path, json.dumps(command), {"Content-Type": "application/json"}
            )
        response = connection.getresponse()
        content = response.read(LARGEST_ANSWER)
    except TimeoutError as error:
        problem = f"it listens, but says nothing for {ANSWER_S:g} s"
        raise NoAgentError(control_socket=control_socket, problem=problem) from error
    except PermissionError as error:
        raise SocketDeniedError(control_socket=control_socket, uid=os.geteuid()) from error
    except (OSError, http.client.HTTPException) as error:
        problem = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise NoAgentError(control_socket=control_socket, problem=problem) from error
    finally:
        connection.close()
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    if response.status != http.HTTPStatus.OK or answer is None:
        said = content[:200].decode(errors="replace").strip()
        raise FailoverAgentError(
            where=str(control_socket),
            what=f"the agent answered {response.status} {response.reason} to {path}: {said}",
            todo="Its log says more: `journalctl -u failover-agent -e`.",
        )
    return answer


def order(arguments: argparse.Namespace, command: str) -> int:
    """Give an operator's command to the agent of this host, and tell its answer."""
    answer = ask(places(arguments), "/v1/command", {"command": command})
    if answer["accepted"]:
        output.say(output.clean(answer["sentence"]))
        return ExitCode.FINE
    output.complain(answer["sentence"])
    return ExitCode.FAILED


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
