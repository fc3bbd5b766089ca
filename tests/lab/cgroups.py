"""The control groups that a lab's containers leave in the machine's hierarchies.

A machine that loses its power leaves none: neither does a host that crashes here.
"""

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MOST_SHARES = "65536"  # of which a process has 1024


def thaw(group: str) -> None:
    """Wakes what is frozen there: under cgroup v1 a paused process survives even SIGKILL."""
    for folder in _folders(group):
        for file, awake in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            switch = folder / file
            if switch.exists():
                switch.write_text(awake)


def favour(group: str) -> None:
    """Under cgroup v1 a group counts as one process against all others of the machine, however many
    it holds; from now on as many. Does nothing where there is no such hierarchy.
    """
    if (ROOT / "cpu" / "cpu.shares").exists():
        folder = ROOT / "cpu" / group
        folder.mkdir(exist_ok=True)
        (folder / "cpu.shares").write_text(MOST_SHARES)


def remove(group: str) -> bool:
    """Removes the group from every hierarchy. False where a dying process still holds one."""
    for folder in _folders(group):
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True


def _folders(group: str) -> Iterator[Path]:
    """The group's folders in all hierarchies (v1: many, v2: one), the deepest first."""
    for hierarchy in (ROOT, *ROOT.iterdir()):
        if hierarchy.is_dir() and not hierarchy.is_symlink():
            for folder, _, _ in os.walk(hierarchy / group, topdown=False):
                yield Path(folder)
