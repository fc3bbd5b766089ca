"""A program that runs inside a host, held by the nsenter that brought it there."""

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.lab.until import until

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def service_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a service gets, plus `more`: nothing of the docker settings of whoever runs the lab."""
    home = os.environ.get("HOME", "/")
    ours = {"HOME": home, "PATH": PATH, "LANG": "C.UTF-8", "DOCKER_CONFIG": "/run/docker-config"}
    return {**ours, **(more or {})}


class Process:
    """`pid` is the program's own, by this machine's count: what is sent to it reaches it alone."""

    def __init__(self, name: str, nsenter: "subprocess.Popen[bytes]", log: Path) -> None:
        self.name = name
        self._log = log
        self._nsenter = nsenter
        self._is_frozen = False
        self.pid = until(self._find, 30, f"{name} entered")

    def is_alive(self) -> bool:
        return self.returncode is None

    @property
    def returncode(self) -> int | None:
        """As in subprocess: minus the number of the signal that ended it; None while it runs."""
        return self._nsenter.poll()

    def sigterm(self) -> None:
        self._signal(signal.SIGTERM)

    def sigkill(self) -> None:
        """Returns when it has ended."""
        self._signal(signal.SIGKILL)
        self.release()
        self.wait(10)

    def sigstop(self) -> None:
        """Returns when it stands still."""
        self._is_frozen = True
        self._signal(signal.SIGSTOP)
        # nsenter stops with its child, and has to be seen doing so: see release().
        until(lambda: not self.is_alive() or stat(self._nsenter.pid)[:1] == ["T"], 30, "frozen")

    def sigcont(self) -> None:
        self.release()

    def wait(self, limit_s: float) -> int:
        """The return code. Raises LabTimeout."""
        until(lambda: not self.is_alive(), limit_s, f"{self.name} (pid {self.pid}) ended")
        code = self.returncode
        assert code is not None
        return code

    def log(self) -> str:
        """All that programs of this name have printed on this host."""
        return self._log.read_text(errors="replace")

    def release(self) -> None:
        """Lets a frozen one go on. A stopped nsenter would never bury its child."""
        if self._is_frozen:
            self._is_frozen = False
            self._nsenter.send_signal(signal.SIGCONT)  # passes it on to the program

    def _signal(self, number: signal.Signals) -> None:
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _find(self) -> int:
        """Its pid, or that of the nsenter which has already ended with it."""
        return first_child(self._nsenter.pid) or (0 if self.is_alive() else self._nsenter.pid)


def first_child(pid: int) -> int:
    """0 where there is none (yet)."""
    children: list[str] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):  # of Go any thread may have them
        with suppress(FileNotFoundError, ProcessLookupError):
            children += thread.read_text().split()
    return int(children[0]) if children else 0


def stat(pid: int) -> list[str]:
    """/proc/PID/stat from the state on (proc(5), field 3); empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
