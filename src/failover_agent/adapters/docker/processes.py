"""Does a container's process live? Told without the engine, where this host's /proc shows it."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

STATE, START_TIME = 0, 19
"""Where they stand in /proc/PID/stat after the name, which may hold blanks (proc(5))."""


PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """A process that no other will ever be: a pid is used again, but not with its start time."""

    folder: Path
    started: str


def find(pid: int, container_id: str, proc: Path = PROC) -> Process | None:
    """The process with which the engine says a container runs; None where it cannot be seen.

    In a pid namespace of our own there may well be such a pid, and be somebody else's.
    """
    folder = proc / str(pid)
    with suppress(OSError):
        if container_id in (folder / "cgroup").read_text():
            return Process(folder, _fields(folder)[START_TIME])
    return None


def of_container(container_id: str, proc: Path = PROC) -> tuple[Process, ...]:
    """All that run in its control group, whatever the engine says. Slow: reads all of `proc`."""
    pids = [int(folder.name) for folder in proc.iterdir() if folder.name.isdigit()]
    found = [find(pid, container_id, proc) for pid in pids]
    return tuple(it for it in found if it is not None and is_alive(it))


def kill(process: Process) -> None:
    """SIGKILL, if it is still the same, and if its number is one of our own pid namespace."""
    if process.folder.parent == PROC and is_alive(process):
        with suppress(OSError):
            os.kill(int(process.folder.name), signal.SIGKILL)


def is_alive(process: Process) -> bool | None:
    """Does it still run? A zombie does not. None where it cannot be told."""
    try:
        fields = _fields(process.folder)
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return None
    return fields[START_TIME] == process.started and fields[STATE] not in "ZX"


class Endings:
    """Tells when a process has ended, in the same millisecond: the engine takes 25 to say so.

    Only of processes of our own pid namespace, and where the kernel and its filters let us open a
    pidfd. Otherwise it tells nothing, and the engine's word has to do.
    """

    def __init__(self, on_end: Callable[[str], None]) -> None:
        """`on_end` is called on the loop, with the name, once for a process."""
        self._on_end = on_end
        self._followed: dict[str, tuple[Process, int]] = {}

    @property
    def followed(self) -> frozenset[str]:
        """Whose end will be told."""
        return frozenset(self._followed)

    def follow(self, name: str, process: Process | None) -> None:
        """From now on `name` is this process; what it was before is of no interest any more."""
        if name in self._followed and self._followed[name][0] == process:
            return
        self._let_go(name)
        if process is None or process.folder.parent != PROC:
            return
        with suppress(OSError, AttributeError):  # an old kernel; a Python built on one
            handle = os.pidfd_open(int(process.folder.name))
            if not is_alive(process):  # The number may be another's by now.
                os.close(handle)
                return
            self._followed[name] = (process, handle)
            asyncio.get_running_loop().add_reader(handle, self._has_ended, name)

    def close(self) -> None:
        """Nothing is told any more."""
        for name in [*self._followed]:
            self._let_go(name)

    def _has_ended(self, name: str) -> None:
        self._let_go(name)
        self._on_end(name)

    def _let_go(self, name: str) -> None:
        if name in self._followed:
            _, handle = self._followed.pop(name)
            asyncio.get_running_loop().remove_reader(handle)
            os.close(handle)


def _fields(folder: Path) -> list[str]:
    return (folder / "stat").read_text().rpartition(")")[2].split()
