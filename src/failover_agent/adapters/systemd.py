"""systemd: tell it how we are, and ask it what a SIGTERM means. Nothing of it is needed."""

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ASK_S = 1.0
"""A stop waits so long for an answer, and then is taken for a plain one."""


class Notifier:
    """sd_notify(3). Does nothing where NOTIFY_SOCKET is not set; never blocks, never raises."""

    def __init__(self, environ: Mapping[str, str], *, now: Callable[[], float]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # "@" stands for the zero byte in front of an abstract name.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address else None
        if self._socket is not None:
            self._socket.setblocking(False)
        self._now = now
        # Three pings within the limit, as one may be lost.
        self._ping_every_s = _watchdog_s(environ) / 3
        self._pinged_at_s = float("-inf")
        self._status = ""

    def ready(self) -> None:
        """The start is over: systemd goes on to what comes after us."""
        self._send("READY=1")

    def status(self, sentence: str) -> None:
        """What `systemctl status` shows; sent when it has changed."""
        if sentence != self._status:
            self._status = sentence
            self._send(f"STATUS={sentence}")

    def stopping(self) -> None:
        """We are on our way out."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Called by the loop whenever it comes round: pings as often as the watchdog wants."""
        if self._ping_every_s and self._now() - self._pinged_at_s >= self._ping_every_s:
            self._pinged_at_s = self._now()
            self._send("WATCHDOG=1")

    def close(self) -> None:
        """Nothing is sent any more."""
        if self._socket is not None:
            self._socket.close()

    def _send(self, message: str) -> None:
        if self._socket is not None:
            # A full or missing socket: systemd will hear the next one, or is not there at all.
            with contextlib.suppress(OSError):
                self._socket.sendto(message.replace("\n", " ").encode(), self._address)


def _watchdog_s(environ: Mapping[str, str]) -> float:
    """How long systemd waits between two pings; 0 where it does not, or waits for somebody else."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    usec = environ.get("WATCHDOG_USEC", "")
    return int(usec) / 1_000_000 if usec.isdecimal() else 0.0


@dataclass(frozen=True, slots=True)
class StopKind:
    """What a SIGTERM means. `restarting`: systemd will start us again at once."""

    restarting: bool = False
    host_is_shutting_down: bool = False


async def stop_kind(
    environ: Mapping[str, str],
    *,
    systemctl: str = "systemctl",
    cgroup: Path = Path("/proc/self/cgroup"),
) -> StopKind:
    """Ask systemd, where it started us; a plain stop elsewhere. Takes at most `ASK_S` seconds."""
    unit = own_unit(environ, cgroup)
    if not unit:
        return StopKind()
    jobs, running = await asyncio.gather(
        _output(systemctl, "list-jobs", "--no-legend", "--no-pager", "--plain", "--full"),
        _output(systemctl, "is-system-running"),
    )
    # 1234 failover-agent.service restart running
    waiting = {tuple(line.split()[1:3]) for line in jobs.splitlines()}
    return StopKind((unit, "restart") in waiting, running.strip() == "stopping")


def own_unit(environ: Mapping[str, str], cgroup: Path) -> str:
    """The service that we are the main process of; empty outside systemd."""
    if "INVOCATION_ID" not in environ:
        return ""
    try:
        found = re.search(r"/([^/\n]+\.service)$", cgroup.read_text(), re.MULTILINE)
    except OSError:
        return ""
    return found[1] if found else ""


async def _output(*command: str) -> str:
    """What it printed, whatever its exit code; nothing when it did not come to an end in time."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return ""
    try:
        async with asyncio.timeout(ASK_S):
            output, _ = await process.communicate()
        return output.decode(errors="replace")
    except TimeoutError:
        return ""
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError, TimeoutError):
                process.kill()
                async with asyncio.timeout(ASK_S):
                    await process.wait()
