"""A failover-agent inside a host, started as its user would start it: node or witness.

What is started is the guard, with the agent as its child, and with `supervised` a supervisor above
both. Each can be found and signalled by itself, whoever started it.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from tests.lab.engine import DOCKER_HOST
from tests.lab.host import Host
from tests.lab.process import Process, stat
from tests.lab.truth import now_s
from tests.lab.until import until

Role = Literal["primary", "backup", "witness"]
PORT = 8000
SUPERVISOR = Path(__file__).with_name("supervise.py")
LEVERS = Path(__file__).with_name("levers")
SPIN = "/run/lab-spin"  # this and the others: levers/sitecustomize.py
LEVER_FILES = {"die at save": "/run/lab-die-at-save", "slow save": "/run/lab-slow-save"}
AGENT_MODULE = "failover_agent.run"  # what the guard starts as its child
CONFIG = "/etc/failover-agent/config.toml"
SECRET = "/etc/failover-agent/secret"  # where it is, not what it is

# Lab timings: everything ten times as fast as the defaults, as far as a small machine can follow.
TIMINGS: Mapping[str, float] = {
    "heartbeat_interval": 0.4,
    "check_heartbeat_interval": 0.4,
    "heartbeat_timeout": 3.0,
    "startup_grace_period": 2.0,
    "restart_grace_period": 2.0,
}


def default_command() -> list[str]:
    """The console script beside this interpreter, or else the module behind it."""
    script = Path(sys.executable).with_name("failover-agent")
    return [str(script)] if script.exists() else [sys.executable, "-m", "failover_agent.cli.main"]


def pair_config(
    role: Role, own: Host, peer: Host, containers: Sequence[str], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """The pair's config as `own` in this role must see it. An override of a table adds to it.

    For a witness `own` and `peer` are the primary's host and the backup's: it reads their file.
    """
    role = "primary" if role == "witness" else role
    other: Role = "backup" if role == "primary" else "primary"
    ports = {each: overrides.get(each, {}).get("port", PORT) for each in (role, other)}
    config: dict[str, Any] = {
        "containers": list(containers),
        **TIMINGS,
        role: {"port": ports[role], "endpoint": f"http://{peer.address}:{ports[other]}"},
        other: {"port": ports[other], "endpoint": f"http://{own.address}:{ports[role]}"},
        "security": {"secret_file": SECRET},
    }
    for key, value in overrides.items():
        config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
    return config


def to_toml(config: Mapping[str, Any]) -> str:
    """Flat settings first, then tables, as TOML wants them. JSON's values are TOML's."""
    tables = {key: value for key, value in config.items() if isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(config[key])}" for key in config if key not in tables]
    for name, table in sorted(tables.items()):
        lines += ["", f"[{name}]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


class Agent:
    """A running agent, or one that has ended; each start makes another of these."""

    def __init__(
        self,
        host: Host,
        role: Role,
        port: int,
        command: Sequence[str],
        *,
        supervised: bool = False,
        config: str = CONFIG,
    ) -> None:
        """Starts it. Config and secret are in their places already."""
        self.role = role
        self.url = f"http://{host.address}:{port}"
        self.program = shlex.join(command)  # as an operator types it
        self._host = host
        self._command = [*command]
        self._is_supervised = supervised
        supervisor = [sys.executable, "-I", "-S", str(SUPERVISOR)] if supervised else []
        self.process: Process = host.spawn(
            "agent",
            [*supervisor, *self._command, "run", "--role", role, "--config", config],
            env={"DOCKER_HOST": DOCKER_HOST, "PYTHONPATH": str(LEVERS)},
        )

    # -- its processes ------------------------------------------------------------------------

    def is_alive(self) -> bool:
        """The supervisor, the guard or the agent: where one of them is, the others come back."""
        return self.process.is_alive() or bool(self._host.is_up() and self.pids())

    def pids(self) -> list[int]:
        """Guard and agent, as far as they live, the guard first."""
        return [pid for pid in (self.guard_pid, self.agent_pid) if pid]

    @property
    def guard_pid(self) -> int:
        """0 where there is none. Another one after each of its restarts."""
        return self._find(_is_guard)

    @property
    def agent_pid(self) -> int:
        """0 where there is none. Another one after each of its restarts."""
        return self._find(_is_agent)

    def wait_whole(self, limit_s: float = 20) -> None:
        """Until guard and agent both run."""
        until(lambda: len(self.pids()) == 2, limit_s, f"guard and agent run on {self._host.name}")

    def _find(self, is_it: Callable[[Sequence[str]], bool]) -> int:
        """The newest such process of the host, of this role, that is no zombie."""
        found = [
            pid
            for pid, line in self._host.processes().items()
            if is_it(line) and ("--role" not in line or self.role in line)
        ]
        return max((pid for pid in found if stat(pid)[:1] not in ([], ["Z"])), default=0)

    def status(self) -> dict[str, Any]:
        """`GET /v1/status`. Raises OSError where no agent answers."""
        code, body = self._host.http_get(f"{self.url}/v1/status")
        if code != 200:
            raise ConnectionError(f"{self._host.name}: GET /v1/status: {code} {body}")
        status: dict[str, Any] = json.loads(body)
        return status

    def phase(self) -> str | None:
        """Of the status; None where no agent answers."""
        try:
            return str(self.status()["phase"])
        except OSError:
            return None

    def wait_phase(self, phase: str, limit_s: float = 20) -> None:
        """Raises AssertionError with the agent's log; at once where the agent has ended."""

        def is_decided() -> bool:
            return self.phase() == phase or not self.is_alive()

        try:
            until(is_decided, limit_s, f"{self._host.name} is {phase}")
            assert self.is_alive(), f"the agent of {self._host.name} has ended"
        except AssertionError as error:
            raise AssertionError(f"{error}; its phase is {self.phase()}\n{self.log()}") from None

    def cli(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """`failover-agent ARGUMENTS` on its host, as an operator runs it; after its end too."""
        environment = {"FAILOVER_AGENT_ROLE": self.role, "DOCKER_HOST": DOCKER_HOST}
        return self._host.run([*self._command, *arguments], env=environment, check=False)

    # -- what befalls it ------------------------------------------------------------------------

    def sigterm(self) -> None:
        """To what was started, as its supervisor or its operator does it."""
        self.process.sigterm()

    def sigkill(self) -> None:
        """Guard and agent at once. A supervisor starts them again; without one both have ended."""
        self.sigstop()  # or the one would start the other anew
        pids = self.pids()
        signal_all(pids, signal.SIGKILL)
        if not self._is_supervised:
            self.process.sigkill()
        until(lambda: all(stat(pid)[:1] in ([], ["Z"]) for pid in pids), 30, "killed")

    def sigstop(self) -> None:
        """Guard and agent at once. Returns when both stand still."""
        pids = self.pids()
        if self.process.pid in pids:  # the guard: no agent is started by one that stands still
            self.process.sigstop()
        freeze(pids)

    def sigcont(self) -> None:
        self.process.sigcont()
        signal_all(self.pids(), signal.SIGCONT)

    def spin(self, seconds: float) -> None:
        """The agent, not its guard, does nothing but burn a processor for so long."""
        self._host.path(SPIN).write_text(str(now_s() + seconds))
        signal_all([self.agent_pid], signal.SIGUSR2)

    def end(self) -> None:
        """Supervisor, guard and agent, without a word. Does nothing where they have ended."""
        if self._is_supervised:
            self.process.sigkill()
        if self._host.is_up():
            self.sigkill()
            until(lambda: not self.pids(), 30, f"the agent of {self._host.name} ended")

    def wait(self, limit_s: float = 30) -> int:
        """The return code of what was started, when it has ended."""
        return self.process.wait(limit_s)

    def log(self) -> str:
        """What the agents of this host have printed so far."""
        return self.process.log()


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """To those of them that are there."""
    for pid in pids:
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def freeze(pids: Sequence[int]) -> None:
    """Returns when all of them stand still, or have ended."""
    signal_all(pids, signal.SIGSTOP)
    until(lambda: all(stat(pid)[:1] in ([], ["T"]) for pid in pids), 30, "frozen")


def _is_agent(line: Sequence[str]) -> bool:
    return AGENT_MODULE in line


def _is_guard(line: Sequence[str]) -> bool:
    """`failover-agent run`, or the module behind it; not the supervisor above it."""
    names = {Path(argument).name for argument in line[:3]}
    is_program = bool(names & {"failover-agent", "failover_agent.cli.main"})
    return is_program and "run" in line and SUPERVISOR.name not in names
