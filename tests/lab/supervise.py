"""Keeps a program running as systemd would with `Restart=always RestartSec=100ms KillMode=mixed`.

    python3 -I -S supervise.py COMMAND...

What the program leaves behind when it ends is killed before it is started again, as everything in
a unit's control group is. SIGTERM goes to the program alone and ends the supervision with it, and
so does exit code 2, which no restart mends.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

RESTART_S = 0.1
PR_SET_CHILD_SUBREAPER = 36
MISTAKE = 2


def children() -> list[int]:
    """Ours: the orphans of the program come to us, as we are its subreaper."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:  # noqa: PTH123 - small and quick
        return [int(pid) for pid in file.read().split()]


def bury() -> None:
    """Kills what is left, and what that leaves, until there is nothing."""
    while left := children():
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(-1, 0)


def main() -> int:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    over = threading.Event()
    program: subprocess.Popen[bytes] | None = None

    def leave(_signal: int, _frame: object) -> None:
        over.set()
        if program is not None:
            program.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, leave)
    while True:
        program = subprocess.Popen(sys.argv[1:])
        if over.is_set():
            program.send_signal(signal.SIGTERM)
        code = program.wait()
        bury()
        if over.is_set() or code == MISTAKE:
            return code
        over.wait(RESTART_S)
        if over.is_set():
            return code


if __name__ == "__main__":
    sys.exit(main())
