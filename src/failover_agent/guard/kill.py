"""Ends the processes of containers, whatever the engine does: by pid, and by control group.

A process belongs to a container when the kernel names the container's id in its control groups.
Paths of groups come from there and are never composed. A pid is killed through a pidfd, opened
before the process was looked at, so that the signal never reaches another one with the same number.
"""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace

from failover_agent.guard.watch import CONTAINER_ID, Target

PROC = "/proc"
STATE, START_TIME = 0, 19
"""Where they stand in /proc/PID/stat after the name, which may hold blanks (proc(5))."""

MOST_READ = 1 << 16


def locate(target: Target) -> Target:
    """With the control groups of its process, where the kernel shows them now."""
    if not target.pid or start_time(target.pid) != target.started:
        return target
    found = tuple(_folders_of(_read(f"{PROC}/{target.pid}/cgroup"), target.container_id))
    return replace(target, folders=found or target.folders)


def start_time(pid: int) -> str:
    """With its pid this is a process that no other will ever be; empty where there is none."""
    fields = _stat(pid)
    return fields[START_TIME] if fields else ""


def kill_process(pid: int, started: str) -> None:
    """SIGKILL to this one process, if it still is the same, and not ourselves."""
    if pid and started:
        _kill_if(pid, lambda it: start_time(it) == started)


def kill(targets: Iterable[Target], more_ids: Iterable[str] = ()) -> int:
    """SIGKILL to all that runs in these containers; how many living processes that were.

    `more_ids`: containers of which no more is known. Under cgroup v1 a frozen process dies when it
    is thawed, so that comes last. Never kills itself, whatever it is told.
    """
    own = _read(f"{PROC}/self/cgroup")

    def is_fit(container_id: str) -> bool:
        return bool(CONTAINER_ID.fullmatch(container_id)) and container_id not in own

    wanted = [target for target in targets if is_fit(target.container_id)]
    ids = {target.container_id for target in wanted} | set(filter(is_fit, more_ids))
    known = {target.pid: target.started for target in wanted if target.pid}
    folders = {folder for target in wanted for folder in target.folders}

    def is_wanted(pid: int) -> bool:
        groups = _read(f"{PROC}/{pid}/cgroup")
        return any(it in groups for it in ids) or known.get(pid) == start_time(pid)

    for folder in folders:
        _write(f"{folder}/cgroup.kill", "1")
    seen = {pid for pid in (*known, *_pids_in(folders)) if _kill_if(pid, is_wanted)}
    # Last and slowest, all there are: a start that was under way has a process nobody told us of.
    for pid, groups in _all_groups():
        inside = [it for it in ids if it in groups]
        if inside and _kill_if(pid, is_wanted):
            seen.add(pid)
        folders |= {folder for it in inside for folder in _folders_of(groups, it)}
    for folder in folders:
        _write(f"{folder}/cgroup.kill", "1")
        _thaw(folder)
    return len(seen)


# --- processes ------------------------------------------------------------------------------------


def _kill_if(pid: int, is_wanted: Callable[[int], bool]) -> bool:
    """Did a living one get the signal? Asked while its number cannot be given to another."""
    if pid == os.getpid():
        return False
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except OSError:
        handle = -1  # An old kernel, or a filter, knows no pidfd: the number has to do.
    try:
        if not is_wanted(pid):
            return False
        is_alive = _stat(pid)[STATE : STATE + 1] not in ([], ["Z"], ["X"])
        if handle >= 0:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
        return is_alive
    except OSError:
        return False
    finally:
        if handle >= 0:
            os.close(handle)


def _all_groups() -> Iterator[tuple[int, str]]:
    names: list[str] = []
    with suppress(OSError):  # no file may be opened any more: the next round may have more luck
        names = os.listdir(PROC)  # noqa: PTH208 - thousands of names, twenty times a second
    for name in filter(str.isdigit, names):
        yield int(name), _read(f"{PROC}/{name}/cgroup")


def _stat(pid: int) -> list[str]:
    return _read(f"{PROC}/{pid}/stat").rpartition(")")[2].split()


# --- control groups -------------------------------------------------------------------------------


def _folders_of(groups: str, container_id: str) -> Iterator[str]:
    """The folders of a container's groups, one a hierarchy, by the lines of /proc/PID/cgroup."""
    mounts = _mounts()
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        head, found, tail = path.partition(container_id)
        # Above the root of a namespace of our own there is nothing that we could open.
        if not found or ".." in path:
            continue
        group = f"{head}{found}{tail.partition('/')[0]}"
        for options, root, mounted_on in mounts:
            is_its = set(controllers.split(",")) <= options
            if is_its and (root == "/" or group.startswith(f"{root}/")):
                yield mounted_on + group.removeprefix(root if root != "/" else "")
                break


def _mounts() -> list[tuple[set[str], str, str]]:
    """What /proc/PID/cgroup may call a hierarchy, which part of it is mounted, and where."""
    found = []
    for line in _read(f"{PROC}/self/mountinfo").splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind in {"cgroup", "cgroup2"}:
            root, mounted_on = fields.split()[3:5]
            found.append((set(options.split(",")) if kind == "cgroup" else {""}, root, mounted_on))
    return found


def _pids_in(folders: Iterable[str]) -> Iterator[int]:
    for top in folders:
        for folder, _, _ in os.walk(top):
            yield from map(int, _read(f"{folder}/cgroup.procs").split())


def _thaw(top: str) -> None:
    """From the top down: a group stays frozen as long as one above it is."""
    for folder, _, files in os.walk(top):
        if "freezer.state" in files:
            _write(f"{folder}/freezer.state", "THAWED")
        if "cgroup.freeze" in files:
            _write(f"{folder}/cgroup.freeze", "0")


def _read(path: str) -> str:
    try:
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    parts = []
    try:
        while part := os.read(opened, MOST_READ):
            parts.append(part)
    except OSError:
        return ""  # It ended while we read.
    finally:
        os.close(opened)
    return b"".join(parts).decode(errors="replace")


def _write(path: str, text: str) -> None:
    """What cannot be written is killed in the other ways."""
    with suppress(OSError):
        opened = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(opened, text.encode())
        finally:
            os.close(opened)
