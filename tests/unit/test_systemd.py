"""adapters/systemd.py: a real notify socket, and a systemctl that prints what systemd prints."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from failover_agent.adapters import systemd
from failover_agent.adapters.systemd import Notifier, StopKind, own_unit, stop_kind

UNIT_CGROUP = (
    "12:pids:/system.slice/failover-agent.service\n0::/system.slice/failover-agent.service\n"
)
IN_A_UNIT = {"INVOCATION_ID": "0123456789abcdef"}


class Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)
        self.environ = {"NOTIFY_SOCKET": address}

    def heard(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages


@pytest.fixture(params=["{path}/notify", "@failover-agent-test-{pid}"])
def real_socket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    listener = Systemd(request.param.format(path=tmp_path, pid=os.getpid()))
    yield listener
    listener.socket.close()


def test_systemd_hears_what_it_is_told(real_socket: Systemd) -> None:
    notifier = Notifier(real_socket.environ, now=lambda: 0.0)

    notifier.ready()
    notifier.status("active\nterm 7")
    notifier.status("active\nterm 7")
    notifier.status("standby")
    notifier.stopping()

    assert real_socket.heard() == [
        "READY=1",
        "STATUS=active term 7",
        "STATUS=standby",
        "STOPPING=1",
    ]
    notifier.close()


def test_the_watchdog_is_pinged_three_times_within_its_limit(real_socket: Systemd) -> None:
    now = 100.0
    environ = {
        **real_socket.environ,
        "WATCHDOG_USEC": "3000000",
        "WATCHDOG_PID": str(os.getpid()),
    }
    notifier = Notifier(environ, now=lambda: now)

    for tenth in range(30):
        now = 100.0 + tenth / 10
        notifier.alive()

    assert real_socket.heard() == ["WATCHDOG=1"] * 3
    notifier.close()


def test_a_watchdog_of_another_process_is_not_ours(real_socket: Systemd) -> None:
    environ = {**real_socket.environ, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}
    notifier = Notifier(environ, now=lambda: 100.0)

    notifier.alive()

    assert real_socket.heard() == []
    notifier.close()


def test_nothing_happens_outside_systemd_or_when_it_does_not_listen(tmp_path: Path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": str(tmp_path / "nobody")}):
        notifier = Notifier(environ, now=lambda: 0.0)
        notifier.ready()
        notifier.alive()
        notifier.close()


def test_a_full_socket_holds_nobody_up(real_socket: Systemd) -> None:
    notifier = Notifier(real_socket.environ, now=lambda: 0.0)

    for number in range(5000):
        notifier.status(str(number))

    assert real_socket.heard()[0] == "STATUS=0"
    notifier.close()


def systemctl(tmp_path: Path, *, jobs: str, state: str) -> str:
    program = tmp_path / "systemctl"
    program.write_text(
        "#!/bin/sh\n"
        f'case $1 in list-jobs) printf "%s" "{jobs}" ;;'
        f' is-system-running) echo "{state}"; exit 1 ;; esac\n'
    )
    program.chmod(0o755)
    (tmp_path / "cgroup").write_text(UNIT_CGROUP)
    return str(program)


@pytest.mark.parametrize(
    ("jobs", "state", "expected"),
    [
        ("", "running", StopKind()),
        ("71 failover-agent.service stop running", "running", StopKind()),
        ("71 failover-agent.service restart running", "degraded", StopKind(restarting=True)),
        ("71 other.service restart running", "running", StopKind()),
        (
            "9 nginx.service stop running\n71 failover-agent.service stop running",
            "stopping",
            StopKind(host_is_shutting_down=True),
        ),
    ],
)
async def test_a_restart_and_a_shutdown_are_told_from_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: str, state: str, expected: StopKind
) -> None:
    monkeypatch.setattr(systemd, "ASK_S", 10.0)
    program = systemctl(tmp_path, jobs=jobs, state=state)

    assert await stop_kind(IN_A_UNIT, systemctl=program, cgroup=tmp_path / "cgroup") == expected


async def test_a_systemctl_that_is_missing_or_hangs_makes_it_a_plain_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "ASK_S", 0.1)
    systemctl(tmp_path, jobs="", state="")
    (tmp_path / "hangs").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "hangs").chmod(0o755)

    async with asyncio.timeout(10):
        for name in ("missing", "hangs"):
            asked = stop_kind(IN_A_UNIT, systemctl=str(tmp_path / name), cgroup=tmp_path / "cgroup")
            assert await asked == StopKind()


@pytest.mark.parametrize(
    ("environ", "cgroup", "unit"),
    [
        (IN_A_UNIT, UNIT_CGROUP, "failover-agent.service"),
        (IN_A_UNIT, "0::/user.slice/user-0.slice/session-3.scope\n", ""),
        (IN_A_UNIT, "0::/\n", ""),
        (IN_A_UNIT, None, ""),
        ({}, UNIT_CGROUP, ""),
    ],
)
def test_our_unit_is_the_one_whose_cgroup_we_are_in(
    tmp_path: Path, environ: dict[str, str], cgroup: str | None, unit: str
) -> None:
    if cgroup is not None:
        (tmp_path / "cgroup").write_text(cgroup)

    assert own_unit(environ, tmp_path / "cgroup") == unit
