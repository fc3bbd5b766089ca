"""run.py as a process: what it says, how it ends, and that it waits for engine and peer."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.until import until
from tests.ports import free_ports

CONFIG = """
cluster = "shop"
containers = ["db", "web"]
heartbeat_timeout = 3.0

[primary]
bind = "127.0.0.1"
port = {port}
endpoint = "http://127.0.0.1:{peer_port}"
state_dir = "{top}/state"
control_socket = "{top}/control.sock"

[backup]
bind = "127.0.0.1"
port = {peer_port}
endpoint = "http://127.0.0.1:{port}"

[security]
secret = "a secret of a test, and long enough to be one"

[docker]
host = "unix://{top}/no-engine.sock"
"""


class Process:
    """An agent that runs."""

    def __init__(self, top: Path, environ: dict[str, str]) -> None:
        self.top = top
        self.port, peer_port = free_ports(2)
        config = top / "config.toml"
        config.write_text(CONFIG.format(top=top, port=self.port, peer_port=peer_port))
        self.log = top / "log"
        arguments = ["--config", str(config), "--role", "primary"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "failover_agent.run", *arguments],
                stderr=log,
                env={"PATH": "/usr/bin:/bin", **environ},
            )

    def status(self) -> dict[str, Any] | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/status") as answer:
                content: dict[str, Any] = json.load(answer)
                return content
        except OSError:
            assert self.process.poll() is None, self.log.read_text()
            return None

    def ends(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Process] = []

    def start_one(**environ: str) -> Process:
        started.append(Process(tmp_path, environ))
        return started[-1]

    yield start_one
    for one in started:
        one.process.kill()
        one.process.wait(10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_waits_for_engine_and_peer_and_ends_at_a_signal(
    start: Start, number: signal.Signals
) -> None:
    agent = start()
    status = until(agent.status, limit_s=30)

    assert status is not None
    assert (status["cluster"], status["phase"], status["term"]) == ("shop", "starting", 0)
    assert agent.ends(number) == 0
    first, *_, last = agent.log.read_text().splitlines()
    assert " INFO start version=" in first
    assert "partition_policy availability" in first
    assert " INFO exit " in last
    assert not (agent.top / "control.sock").exists()


def test_systemd_hears_that_it_is_ready_and_stops(start: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(10)
        agent = start(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="1000000")

        heard = [listener.recv(100).decode() for _ in range(5)]

        assert heard[0] == "READY=1"
        assert heard[1] == "STATUS=starting, term 0"
        assert heard[2:] == ["WATCHDOG=1"] * 3
        agent.process.terminate()
        until(lambda: listener.recv(100) == b"STOPPING=1", limit_s=30)


def test_a_second_agent_is_told_what_is_wrong_and_disturbs_nobody(
    start: Start, tmp_path: Path
) -> None:
    agent = start()
    until(agent.status, limit_s=30)
    command = [sys.executable, "-m", "failover_agent.run", "--role", "primary"]
    config = tmp_path / "config.toml"

    same = subprocess.run(
        [*command, "--config", config], capture_output=True, text=True, check=False, timeout=20
    )
    other = tmp_path / "other.toml"
    other.write_text(config.read_text().replace("/state", "/other").replace("/control", "/other"))
    port = subprocess.run(
        [*command, "--config", other], capture_output=True, text=True, check=False, timeout=20
    )

    assert (same.returncode, "another agent uses this state_dir" in same.stderr) == (1, True)
    assert (port.returncode, "another program already listens" in port.stderr) == (1, True)
    assert "Traceback" not in same.stderr + port.stderr
    assert agent.status() is not None


def test_a_log_that_nobody_reads_any_more_ends_nobody(tmp_path: Path) -> None:
    """Neither the guard nor the agent: what they would say is lost, what they do is not."""
    port, peer_port = free_ports(2)
    config = tmp_path / "config.toml"
    config.write_text(CONFIG.format(top=tmp_path, port=port, peer_port=peer_port))
    command = [sys.executable, "-m", "failover_agent.cli.main", "run", "--role", "primary"]
    guard = subprocess.Popen(
        [*command, "--config", config], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert guard.stdout is not None
    guard.stdout.close()

    def agent_pid() -> int:
        assert guard.poll() is None, "the guard has ended"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/status") as answer:
                return int(json.load(answer)["pid"])
        except OSError:
            return 0

    try:
        first = until(agent_pid, limit_s=20)
        os.kill(first, signal.SIGKILL)  # of which the guard has something to say
        until(lambda: agent_pid() not in (0, first), limit_s=20)
        guard.terminate()
        assert guard.wait(20) == 0
    finally:
        guard.kill()
        guard.wait(10)


WITNESS = """
[witness]
bind = "127.0.0.1"
port = {port}
state_dir = "{top}/state"
control_socket = "{top}/control.sock"

[security]
secret = "a secret of a test, and long enough to be one"
"""


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [
        ("", 0, "the record of this pair could not be read and was set aside"),
        ('{"schema": 1, "ter', 0, "the record of this pair could not be read and was set aside"),
        ('{"schema": 99}', 2, "the record has schema 99, and this version knows none above 1. "),
    ],
)
def test_a_witness_tells_of_a_record_that_is_none(
    tmp_path: Path, content: str, code: int, told: str
) -> None:
    (port,) = free_ports(1)
    (tmp_path / "config.toml").write_text(WITNESS.format(top=tmp_path, port=port))
    record = tmp_path / "state/default/record.json"
    record.parent.mkdir(parents=True)
    record.write_text(content)
    with (tmp_path / "log").open("w") as log:
        arguments = ["--role", "witness", "--config", str(tmp_path / "config.toml")]
        witness = subprocess.Popen(
            [sys.executable, "-m", "failover_agent.run", *arguments], stderr=log
        )
    try:
        until(lambda: told in (tmp_path / "log").read_text(), limit_s=30)
        if code == 0:
            until(lambda: " INFO start " in (tmp_path / "log").read_text(), limit_s=30)
            witness.terminate()
        assert witness.wait(30) == code
    finally:
        witness.kill()
        witness.wait(10)
    set_aside = record.with_name(f"{record.name}.broken-1")
    assert (set_aside if code == 0 else record).read_text() == content


def test_a_mistake_that_nobody_reads_is_still_one(tmp_path: Path) -> None:
    """Or a supervisor would start it again and again."""
    command = [sys.executable, "-m", "failover_agent.cli.main", "run", "--role", "primary"]
    ended = subprocess.Popen(
        [*command, "--config", tmp_path / "none"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert ended.stdout is not None
    ended.stdout.close()

    assert ended.wait(20) == 2


def test_a_mistake_in_the_configuration_is_exit_code_2(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("heartbeat_timout = 3\n")

    ended = subprocess.run(
        [sys.executable, "-m", "failover_agent.run", "--role", "primary", "--config", config],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )

    assert ended.returncode == 2
    assert "heartbeat_timeout" in ended.stderr


def test_killed_and_started_again_it_is_the_same_node(start: Start) -> None:
    agent = start()
    before = until(agent.status, limit_s=30)
    agent.ends(signal.SIGKILL)

    again = start()
    after = until(again.status, limit_s=30)

    assert before is not None
    assert after is not None
    assert before["node_id"] == after["node_id"]
