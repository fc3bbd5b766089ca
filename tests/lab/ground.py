"""The ground that labs stand on: one folder each, locked while its lab lives.

    make demo-end LAB=FOLDER, or: python -m tests.lab.ground FOLDER...

clears away a lab that was left running (`make demo KEEP=1`).
"""

import contextlib
import fcntl
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.lab import cgroups
from tests.lab.process import PATH, stat
from tests.lab.until import until

# Not /tmp, which may be a memory disk: engines keep their images here.
PARENT = Path("/var/tmp")
PREFIX = "failover-lab-"
LOCK = "lock"
KEPT = "kept"
PIDS = "pids"
TOOLS = ("busybox", "docker", "dockerd", "ip", "nft", "nsenter", "unshare")
START_TIME = 19  # its index in stat(): with the pid, a process's name for ever


def check_machine() -> None:
    """Raises RuntimeError where a lab cannot stand, with the way out."""
    if os.geteuid() != 0:
        raise RuntimeError("the lab needs root: it makes namespaces and mounts")
    missing = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    if missing:
        raise RuntimeError(f"not installed: {', '.join(missing)}. Run scripts/install-packages")


def claim(undo: contextlib.ExitStack) -> Path:
    """A new folder, locked by this process until it ends, and removed by `undo`."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=PARENT))
    (folder / PIDS).mkdir()
    lock = undo.enter_context((folder / "locking").open("w"))
    fcntl.flock(lock, fcntl.LOCK_EX)
    (folder / "locking").rename(folder / LOCK)  # never there unlocked, for another lab's sweep
    undo.callback(clear, folder)
    return folder


def record(folder: Path, pid: int) -> None:
    """This process belongs to the lab in this folder, and ends with it."""
    (folder / PIDS / str(pid)).write_text(_start_time(pid))


def keep(folder: Path) -> None:
    """From now on only `make demo-end LAB=FOLDER` clears it away."""
    (folder / KEPT).touch()


def sweep() -> None:
    """Clears away what labs have left whose process was killed."""
    for file in PARENT.glob(f"{PREFIX}*/{LOCK}"):
        if (file.parent / KEPT).exists():
            continue
        with contextlib.suppress(FileNotFoundError, BlockingIOError), file.open("r+") as lock:
            # Opened, not made: one that its lab has just removed must not come back.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            clear(file.parent)


def clear(folder: Path) -> None:
    """Ends what still runs of the lab in this folder, and removes all of it."""
    assert folder.parent == PARENT
    assert folder.name.startswith(PREFIX)
    for pid in _recorded(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    cgroups.thaw(folder.name)
    until(lambda: not _recorded(folder), 30, f"the processes of {folder} ended")
    until(lambda: cgroups.remove(folder.name), 30, f"the control groups of {folder} removed")
    _remove(folder)


def _remove(folder: Path) -> None:
    """What tells of the lab last: if we are killed in the middle, the next one can begin again."""
    tells = (KEPT, PIDS, LOCK)
    children = [child for child in folder.iterdir() if child.name not in tells]
    for child in (*children, *(folder / name for name in tells)):
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink(missing_ok=True)
    folder.rmdir()


def _recorded(folder: Path) -> list[int]:
    """Those that are still the same process, and no zombies."""
    pids = [(int(file.name), file.read_text()) for file in (folder / PIDS).glob("*")]
    return [pid for pid, started in pids if started and _start_time(pid) == started]


def _start_time(pid: int) -> str:
    """Empty where there is no such process any more."""
    fields = stat(pid)
    return fields[START_TIME] if fields and fields[0] not in "ZX" else ""


def main() -> None:
    if not sys.argv[1:]:
        sys.exit("make demo-end LAB=FOLDER: which lab?")
    for argument in sys.argv[1:]:
        folder = Path(argument).resolve()
        if folder.parent != PARENT or not folder.name.startswith(PREFIX):
            sys.exit(f"{folder}: a lab is in a folder {PARENT}/{PREFIX}...")
        if (folder / PIDS).is_dir():
            clear(folder)
            print(f"{folder}: cleared away")
        else:
            print(f"{folder}: nothing is there")


if __name__ == "__main__":
    main()
