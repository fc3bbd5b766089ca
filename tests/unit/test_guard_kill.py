"""guard/kill.py on real processes: which are ended, and which never are."""

import errno
import os
import subprocess
from collections.abc import Iterator

import pytest

from failover_agent.guard import kill
from failover_agent.guard.watch import Target

ID = "a" * 64
LIMIT_S = 20.0


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def test_a_process_is_known_by_pid_and_start_time(sleeper: "subprocess.Popen[bytes]") -> None:
    assert kill.kill([Target("db", ID, sleeper.pid, "1")]) == 0
    assert sleeper.poll() is None
    assert kill.kill([Target("db", ID, sleeper.pid, kill.start_time(sleeper.pid))]) == 1
    assert sleeper.wait(LIMIT_S) == -9
    assert kill.start_time(sleeper.pid) == ""


def test_without_pidfd_it_is_killed_by_its_number(
    sleeper: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> int:
        raise OSError(errno.ENOSYS, "no such call")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    kill.kill_process(sleeper.pid, kill.start_time(sleeper.pid))

    assert sleeper.wait(LIMIT_S) == -9


@pytest.mark.parametrize("container_id", ["", "/", "a"])
def test_what_is_no_id_in_whole_names_nobody(
    container_id: str, sleeper: "subprocess.Popen[bytes]"
) -> None:
    started = kill.start_time(sleeper.pid)

    assert kill.kill([Target("db", container_id, sleeper.pid, started)], [container_id]) == 0
    assert sleeper.poll() is None


def test_it_never_kills_itself_and_what_is_not_there_is_nothing() -> None:
    kill.kill_process(os.getpid(), kill.start_time(os.getpid()))
    kill.kill_process(0, "")
    kill.kill_process(1 << 22, "1")

    assert kill.kill([Target("db", ID, os.getpid(), kill.start_time(os.getpid()))]) == 0
    assert kill.kill([Target("db", ID, folders=("/nonexistent/" + ID,))]) == 0
