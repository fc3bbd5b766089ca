"""The control groups that a lab's containers leave in the machine's hierarchies.

A machine that loses its power leaves none: neither does a host that crashes here.
"""

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def thaw(group: str) -> None:
    """Wakes what is frozen there: under cgroup v1 a paused process survives even SIGKILL."""
    for folder in _folders(group):
        for file, awake in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            switch = folder / file
            if switch.exists():
                switch.write_text(awake)


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
