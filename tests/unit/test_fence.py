"""fence_command: real programs, their ends, and what is made of them."""

import asyncio
import logging
import os
import shlex
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from failover_agent.adapters.fence import LONGEST_LINE, MOST_LINES, Fence, why_not_runnable
from failover_agent.core.effects import RunFence
from failover_agent.core.events import Event, FenceFinished
from failover_agent.core.policy import Role
from failover_agent.core.state import Reason
from tests.lab.until import until, until_async

LIMIT_S = 30.0
ORDER = RunFence(term=8, target=Role.BACKUP, reason=Reason.PEER_SILENT)
ENVIRON = {"PATH": os.environ["PATH"]}


@dataclass
class Told:
    """What a fence posted."""

    posted: list[Event]

    @property
    def error(self) -> str:
        (event,) = self.posted
        assert isinstance(event, FenceFinished)
        assert (event.term, event.target) == (8, Role.BACKUP)
        return event.error


def fence(
    *command: str,
    timeout_s: float = LIMIT_S,
    environ: Mapping[str, str] = ENVIRON,
    posted: list[Event] | None = None,
) -> Fence:
    return Fence(
        command,
        timeout_s,
        cluster="shop",
        me=Role.PRIMARY,
        hosts={Role.BACKUP: "fd00::2"},
        post=([] if posted is None else posted).append,
        environ=environ,
    )


async def run(*command: str, **options: Any) -> str:
    told = Told([])
    await fence(*command, posted=told.posted, **options).perform(ORDER)
    return told.error


async def sh(script: str, **options: Any) -> str:
    return await run("sh", "-c", script, **options)


def is_alive(pid: int) -> bool:
    """A zombie is dead: who reaps it here is not ours to say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# --- how it ends ----------------------------------------------------------------------------------


async def test_only_exit_status_0_is_success() -> None:
    assert await sh("echo off") == ""
    assert await sh("exit 3") == "fence_command exited with 3"
    assert await sh("echo; echo no answer; echo; exit 3") == (
        "fence_command exited with 3: no answer"
    )
    assert await sh("echo no power unit >&2; exit 1") == (
        "fence_command exited with 1: no power unit"
    )
    assert await sh("kill -TERM $$") == "fence_command was ended by signal 15 (SIGTERM)"


async def test_a_late_one_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 600 & echo $! $$ > {shlex.quote(str(pids))}; echo waiting; wait"

    error = await sh(script, timeout_s=5.0)

    assert error == "fence_command had not ended after 5 s, and was killed: waiting"
    for pid in map(int, pids.read_text().split()):
        until(lambda pid=pid: not is_alive(pid), LIMIT_S)  # type: ignore[misc]


async def test_one_that_heeds_no_signal_is_killed_all_the_same() -> None:
    assert "was killed" in await sh("trap '' TERM INT HUP; sleep 600", timeout_s=0.3)


async def test_what_it_leaves_behind_is_not_waited_for(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    error = await sh(f"sleep 600 & echo $! > {shlex.quote(str(pid))}; echo done")

    left = int(pid.read_text())
    assert error == ""
    assert is_alive(left)
    os.kill(left, signal.SIGKILL)


async def test_an_order_that_is_taken_back_kills_it_and_posts_nothing(tmp_path: Path) -> None:
    pid, told = tmp_path / "pid", Told([])
    command = fence("sh", "-c", f"echo $$ > {shlex.quote(str(pid))}; sleep 600", posted=told.posted)

    async def written() -> bool:
        return pid.exists() and pid.read_text() != ""

    async with asyncio.TaskGroup() as group:
        performing = group.create_task(command.perform(ORDER))
        await until_async(written, LIMIT_S)
        performing.cancel()

    assert told.posted == []
    assert not is_alive(int(pid.read_text()))


# --- what it is started with ----------------------------------------------------------------------


async def test_it_is_told_whom_to_fence_and_why(tmp_path: Path) -> None:
    out = tmp_path / "out"
    own = {
        **ENVIRON,
        "HOME": "/home/agent",
        "FAILOVER_AGENT_SECURITY__SECRET": "sixteen letters!",
        "FAILOVER_AGENT_LIFELINE": "3",
        "NOTIFY_SOCKET": "@systemd",
        "WATCHDOG_USEC": "1",
    }

    assert await sh(f"env > {shlex.quote(str(out))}", environ=own) == ""

    told = dict(line.split("=", 1) for line in out.read_text().splitlines())
    assert {k: v for k, v in told.items() if k.startswith("FAILOVER_AGENT_")} == {
        "FAILOVER_AGENT_CLUSTER": "shop",
        "FAILOVER_AGENT_ROLE": "primary",
        "FAILOVER_AGENT_PEER": "backup",
        "FAILOVER_AGENT_PEER_HOST": "fd00::2",
        "FAILOVER_AGENT_TERM": "8",
        "FAILOVER_AGENT_REASON": "peer_silent",
    }
    assert (told["PATH"], told["HOME"]) == (ENVIRON["PATH"], "/home/agent")
    assert not told.keys() & {"NOTIFY_SOCKET", "WATCHDOG_USEC"}


async def test_there_is_no_shell_in_between(tmp_path: Path) -> None:
    await run("touch", str(tmp_path / "$HOME; a"))

    assert [path.name for path in tmp_path.iterdir()] == ["$HOME; a"]


async def test_it_has_a_session_of_its_own_and_nothing_to_read() -> None:
    script = 'read -r word && exit 9; [ "$(ps -o sid= -p $$ | tr -d " ")" = $$ ]'

    assert await sh(script) == ""


async def test_a_program_that_is_not_there_is_told_as_such(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\n")
    broken = tmp_path / "broken"
    broken.write_text("#!/nowhere/sh\n")
    broken.chmod(0o755)

    assert await run("/nowhere/off") == "fence_command: there is no program /nowhere/off"
    assert await run("fence-xyzzy") == "fence_command: there is no program fence-xyzzy in PATH"
    assert await run(str(plain)) == f"fence_command: {plain} is not executable"
    assert await run(str(broken)) == "fence_command cannot be run (No such file or directory)"
    assert why_not_runnable(("sh", "x"), ENVIRON) == ""


# --- what it prints -------------------------------------------------------------------------------


async def test_what_it_prints_goes_to_the_log_and_has_an_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    long = "x" * 1000

    error = await sh(f"yes {long} | head -n 5000; printf 'a\\033[2Jb\\377 the last'; exit 1")

    printed = [record.__dict__["fields"] for record in caplog.records]
    lines = [fields["output"] for fields in printed if "output" in fields]
    assert lines == ["x" * LONGEST_LINE] * MOST_LINES + ["... and more"]
    assert error == "fence_command exited with 1: a?[2Jb� the last"
    assert printed[-1] == {"term": 8, "target": "backup", "error": error}


async def test_a_line_without_an_end_takes_no_room() -> None:
    error = await sh("head -c 20000000 /dev/zero | tr '\\0' y; exit 1")

    assert error == f"fence_command exited with 1: {'y' * LONGEST_LINE}"
