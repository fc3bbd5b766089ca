"""A real guard over an agent of the tests, and containers that are control groups, no engine.

The guard runs as `failover-agent run` runs it, but for the program of the agent.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from failover_agent.guard import kill
from tests.lab import cgroups
from tests.lab.process import stat
from tests.lab.until import until

AGENT = Path(__file__).with_name("guarded_agent.py")
LAUNCH = Path(__file__).with_name("guard_launch.py")
FREEZER, UNIFIED = Path("/sys/fs/cgroup/freezer"), Path("/sys/fs/cgroup/unified")

T_S, KILL_BUDGET_S = 3.0, 0.5
LIMIT_S = 30.0


def now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Container:
    """Some processes in a control group that is named after a container, in two hierarchies."""

    def __init__(self, group: str, name: str) -> None:
        self.name = name
        self.id = secrets.token_hex(32)
        self.group = f"{group}/{self.id}"
        self.processes: list[subprocess.Popen[bytes]] = []
        for hierarchy in (FREEZER, UNIFIED):
            (hierarchy / self.group / "inner").mkdir(parents=True)

    def run(self, *, inner: bool = False) -> int:
        """The pid of another process in it."""
        process = subprocess.Popen(["sleep", "1000"])
        self.processes.append(process)
        for hierarchy in (FREEZER, UNIFIED):
            folder = hierarchy / self.group / ("inner" if inner else "")
            (folder / "cgroup.procs").write_text(str(process.pid))
        return process.pid

    def freeze(self) -> None:
        """As `docker pause` does, under either version."""
        (FREEZER / self.group / "freezer.state").write_text("FROZEN")
        until(lambda: (FREEZER / self.group / "freezer.state").read_text() == "FROZEN\n", 30)

    def alive(self) -> int:
        """How many of its processes run."""
        return sum(process.poll() is None for process in self.processes)

    def seen(self) -> dict[str, Any]:
        """What an agent says of it."""
        pid = self.processes[0].pid if self.processes else 0
        started = kill.start_time(pid) if pid else ""
        return {
            "say": "seen",
            "name": self.name,
            "container_id": self.id,
            "pid": pid,
            "started": started,
        }

    def close(self) -> None:
        cgroups.thaw(self.group)
        for process in self.processes:
            process.kill()
            process.wait(10)


class Guard:
    """A guard, its agents, and the folder in which they live. Ends everything at `close()`."""

    def __init__(self, folder: Path, edits: Sequence[tuple[str, str, str]] = ()) -> None:
        """`edits`: (module of the guard, old text, new text), for mutants."""
        self.folder = folder
        self.lease_file = folder / "shop.lease"
        self.config = folder / "config.toml"
        self.config.write_text(f'[primary]\ncontrol_socket = "{folder}/shop.sock"\n')
        self.log = folder / "guard.log"
        self.group = f"failover-agent-test-{secrets.token_hex(4)}"
        self.containers: list[Container] = []
        self.greet()
        self._edits = list(edits)
        self._started: list[subprocess.Popen[bytes]] = []
        self._orders = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    # -- the guard ------------------------------------------------------------------------------

    def start(
        self,
        *,
        before: Sequence[str] = (),
        command: Sequence[str] | None = None,
        environ: dict[str, str] | None = None,
        log: int | None = None,
    ) -> None:
        """`before`: what the guard is started with; `command`: in place of the tests' agent; `log`:
        where the guard writes, in place of its file.
        """
        agent = command or [sys.executable, str(AGENT), str(self.folder)]
        order = {"command": [*agent], "config": str(self.config), "edits": self._edits}
        with self.log.open("ab") as file:
            started = subprocess.Popen(
                [*before, sys.executable, str(LAUNCH), json.dumps(order)],
                stderr=file if log is None else log,
                env={**os.environ, **(environ or {})},
                start_new_session=True,
            )
        self._started.append(started)

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The one that was started last."""
        return self._started[-1]

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait(self) -> int:
        """Its exit code."""
        until(lambda: self.process.poll() is not None, LIMIT_S, "the guard ended")
        return self.process.returncode

    # -- its agents -----------------------------------------------------------------------------

    def greet(self, **changes: Any) -> None:
        """What the next agent says first."""
        hello = {
            "say": "hello",
            "lease_file": str(self.lease_file),
            "docker_host": f"unix://{self.folder}/no-engine.sock",
            "heartbeat_timeout_s": T_S,
            "kill_budget_s": KILL_BUDGET_S,
            "log_format": "text",
        }
        (self.folder / "hello.json").write_text(json.dumps({**hello, **changes}))

    def agent(self, number: int = 1, limit_s: float = LIMIT_S) -> dict[str, Any]:
        """The n-th agent, once it was welcomed."""
        file = self.folder / f"agent-{number}.json"
        until(file.exists, limit_s, f"agent {number} runs")
        state: dict[str, Any] = json.loads(file.read_text())
        return state

    def agents(self) -> int:
        """How many there were."""
        return len(list(self.folder.glob("agent-*.json")))

    def order(self, **order: Any) -> None:
        self._orders.sendto(json.dumps(order).encode(), str(self.folder / "orders"))

    def say(self, say: str, **fields: Any) -> None:
        """Through the agent."""
        self.order(send={"say": say, **fields})

    def heard(self) -> list[dict[str, Any]]:
        """What the guard has told its agents, but for the welcome."""
        file = self.folder / "heard"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def logged(self) -> str:
        return self.log.read_text()

    # -- containers and the lease ---------------------------------------------------------------

    def container(self, name: str = "db") -> Container:
        made = Container(self.group, name)
        self.containers.append(made)
        return made

    def arm(self, *containers: Container, term: int = 7, left_s: float = T_S) -> float:
        """Returns until when the lease runs, once the guard has it."""
        until_s = now_s() + left_s
        for container in containers:
            self.order(send=container.seen())
        answers = len(self.heard())
        names = [container.name for container in containers]
        self.say("arm", term=term, names=names, valid_until_s=until_s)
        until(lambda: len(self.heard()) > answers, LIMIT_S, "the guard answered")
        assert self.heard()[-1] == {"say": "armed", "term": term, "error": ""}
        return until_s

    def is_killed(self, *containers: Container) -> bool:
        return not any(container.alive() for container in containers)

    # -- the end --------------------------------------------------------------------------------

    def close(self) -> None:
        for process in self._started:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            process.wait(10)
        until(lambda: not self._kill_agents(), 30, "no agent is left")
        for container in self.containers:
            container.close()
        self._orders.close()
        until(lambda: cgroups.remove(self.group), 30, "control groups removed")

    def _kill_agents(self) -> bool:
        """One that was about to start may have told nobody yet. Was there any?"""
        mine = {str(AGENT), str(self.folder)}
        pids = [int(it.name) for it in Path("/proc").iterdir() if it.name.isdigit()]
        found = [pid for pid in pids if mine <= {*_command_line(pid)} and is_running(pid)]
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(found)


def _command_line(pid: int) -> list[str]:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return []


def is_running(pid: int) -> bool:
    """Neither gone nor a zombie."""
    return stat(pid)[:1] not in ([], ["Z"], ["X"])
