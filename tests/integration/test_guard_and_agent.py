"""`failover-agent run` as it is: the shipped guard over the shipped agent, without an engine."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.lab import engine_api
from tests.lab.process import stat
from tests.lab.until import until
from tests.ports import free_ports

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

LIMIT_S = 40.0
CONFIG = """
cluster = "shop"
containers = ["db"]

[primary]
bind = "127.0.0.1"
port = {port}
endpoint = "http://127.0.0.1:{other}"
state_dir = "{top}/state"
control_socket = "{top}/shop.sock"

[backup]
bind = "127.0.0.1"
port = {other}
endpoint = "http://127.0.0.1:{port}"

[security]
secret = "a secret of a test, and long enough to be one"

[docker]
host = "unix://{top}/no-engine.sock"
"""


class Run:
    """What was started, and whatever has taken its place."""

    def __init__(self, top: Path) -> None:
        self.top = top
        port, other = free_ports(2)
        (top / "config.toml").write_text(CONFIG.format(top=top, port=port, other=other))
        self.process = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "failover_agent.cli.main", "run", "--role", "primary"]
        with (self.top / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--config", self.top / "config.toml"], stderr=log, cwd="/"
            )
        return self.process

    def status(self) -> dict[str, Any] | None:
        """As the agent says; None while none answers."""
        try:
            answer = engine_api.call(self.top / "shop.sock", "GET", "/v1/status", timeout_s=5)
        except OSError:
            return None
        content: dict[str, Any] = json.loads(answer.text)
        return content

    def agent(self, *, but: int = 0) -> int:
        """The pid of the agent that answers, once it is not `but`."""

        def pid() -> int:
            status = self.status()
            return status["pid"] if status is not None and status["pid"] != but else 0

        return until(pid, LIMIT_S, "an agent answers")

    def log(self) -> str:
        return (self.top / "log").read_text()

    def pids(self) -> list[int]:
        """All that runs with this configuration."""
        found = []
        for folder in Path("/proc").iterdir():
            with suppress(OSError):
                line = (folder / "cmdline").read_text().split("\0") if folder.name.isdigit() else []
                if f"{self.top}/config.toml" in line and stat(int(folder.name))[:1] != ["Z"]:
                    found.append(int(folder.name))
        return found

    def close(self) -> None:
        while pids := self.pids():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait(10)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    yield made
    made.close()


def parent(pid: int) -> int:
    return int(stat(pid)[1])


def test_the_guard_is_the_parent_and_small(run: Run) -> None:
    agent = run.agent()
    rollup = (Path("/proc") / str(run.process.pid) / "smaps_rollup").read_text()
    sizes = {name: int(kb) for name, kb in re.findall(r"(\w+): +(\d+) kB", rollup)}
    maps = (Path("/proc") / str(run.process.pid) / "maps").read_text()
    print(f"guard: {sizes['Pss']} kB PSS, {sizes['Rss']} kB RSS")

    assert parent(agent) == run.process.pid
    assert sizes["Pss"] < 20_000
    assert not re.search("asyncio|aiohttp|pydantic|multidict|ssl", maps)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_guard_ends_both(run: Run, number: signal.Signals) -> None:
    run.agent()
    run.process.send_signal(number)

    assert run.process.wait(LIMIT_S) == 0
    assert run.pids() == []


def test_a_killed_agent_comes_back(run: Run) -> None:
    agent = run.agent()
    os.kill(agent, signal.SIGKILL)

    assert parent(run.agent(but=agent)) == run.process.pid


def test_an_agent_whose_guard_died_becomes_a_guard(run: Run) -> None:
    agent = run.agent()
    began_s = time.monotonic()
    run.process.kill()
    again = run.agent(but=agent)
    print(f"back after {time.monotonic() - began_s:.1f} s")

    assert parent(again) == agent
    assert sorted(run.pids()) == sorted([agent, again])


def test_a_guard_started_beside_it_waits(run: Run) -> None:
    agent = run.agent()
    first = run.process
    second = run.start()
    until(lambda: "another guard writes" in run.log(), LIMIT_S)
    assert run.agent() == agent
    second.terminate()

    assert second.wait(LIMIT_S) == 0
    assert run.agent() == agent
    run.process = first


def test_a_mistake_is_told_once_and_is_the_exit_code_of_both(run: Run) -> None:
    config = run.top / "config.toml"
    run.agent()
    run.process.terminate()
    run.process.wait(LIMIT_S)
    right = config.read_text()
    config.write_text(right.replace("containers", "container"))
    assert run.start().wait(LIMIT_S) == 2
    assert run.log().count("container is not a setting") == 1

    config.write_text(right)
    port = int(re.findall(r"port = (\d+)", right)[0])
    with socket.create_server(("127.0.0.1", port)):
        assert run.start().wait(LIMIT_S) == 1
    assert "another program already listens" in run.log()
