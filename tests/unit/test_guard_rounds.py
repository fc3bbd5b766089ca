"""The guard's way over the engine: asked again and again, and yet left time to answer."""

import contextlib
import errno
import os
import socket
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from failover_agent.guard import engine, kill, system
from failover_agent.guard.rounds import Rounds
from failover_agent.guard.watch import Lease, Target, Watch
from tests.lab.until import until

KILL_BUDGET_S = 0.1
CAMPAIGN_S = 3.0


def test_an_engine_that_cannot_keep_up_is_asked_ever_more_seldom(tmp_path: Path) -> None:
    """With a question each 50 ms the agent would get no answer either, and nothing would end."""
    asked = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(tmp_path / "docker.sock"))
        silent.listen(1024)
        silent.setblocking(False)
        watched = Watch(
            kill_budget_s=KILL_BUDGET_S, lease=Lease(1, ("db", "web"), system.now()), is_over=True
        )
        rounds = Rounds()
        began_s = system.now()
        rounds.begin(began_s)

        def is_over() -> bool:
            rounds.go(watched, f"unix://{tmp_path}/docker.sock", engine.NO_FILES, system.now())
            with contextlib.suppress(BlockingIOError):
                asked.append(silent.accept()[0])
            return system.now() > began_s + CAMPAIGN_S

        until(is_over, 30)
        until(lambda: not rounds.is_asking(), 30)
    for each in asked:
        each.close()
    assert 2 <= len(asked) <= 10


@pytest.mark.parametrize("what", ["thread", "file"])
def test_where_the_host_has_no_room_for_another_one_it_kills_all_the_same(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def refuse_file(_: str) -> list[str]:
        raise OSError(errno.ENFILE, "too many open files in system")

    if what == "thread":
        monkeypatch.setattr(threading.Thread, "start", refuse_thread)
    else:
        monkeypatch.setattr(os, "listdir", refuse_file)
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            target = Target("db", "a" * 64, process.pid, kill.start_time(process.pid))
            lease = Lease(1, ("db",), system.now())
            watched = Watch(kill_budget_s=KILL_BUDGET_S, lease=lease, is_over=True)
            rounds = Rounds()
            rounds.prepare("https://127.0.0.1:1", engine.NO_FILES)
            rounds.go(
                replace(watched, targets=(target,)),
                "unix:///nonexistent",
                engine.NO_FILES,
                system.now(),
            )

            assert process.wait(30) == -9
            until(lambda: not rounds.is_asking(), 30)
        finally:
            process.kill()
