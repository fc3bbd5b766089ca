"""A failover-agent inside a host, started as its user would start it."""

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tests.lab.engine import DOCKER_HOST
from tests.lab.host import Host
from tests.lab.process import Process
from tests.lab.until import until

Role = Literal["primary", "backup"]
PORT = 8000
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
    """The pair's config as `own` in this role must see it. An override of a table adds to it."""
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

    def __init__(self, host: Host, role: Role, port: int, command: Sequence[str]) -> None:
        """Starts it. Config and secret are in their usual places already."""
        self.role = role
        self.url = f"http://{host.address}:{port}"
        self.program = shlex.join(command)  # as an operator types it
        self._host = host
        self._command = [*command]
        self.process: Process = host.spawn(
            "agent",
            [*self._command, "run", "--role", role, "--config", CONFIG],
            env={"DOCKER_HOST": DOCKER_HOST},
        )

    def is_alive(self) -> bool:
        return self.process.is_alive()

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

    def sigterm(self) -> None:
        self.process.sigterm()

    def sigkill(self) -> None:
        self.process.sigkill()

    def sigstop(self) -> None:
        self.process.sigstop()

    def sigcont(self) -> None:
        self.process.sigcont()

    def wait(self, limit_s: float = 30) -> int:
        """Its return code, when it has ended."""
        return self.process.wait(limit_s)

    def log(self) -> str:
        """What the agents of this host have printed so far."""
        return self.process.log()
