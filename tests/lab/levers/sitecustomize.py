# ruff: noqa: INP001 - no package: a folder for PYTHONPATH
"""Levers on any Python program of the lab, found by PYTHONPATH. Each is a file that a test writes.

SIGUSR2 makes it spin: its main thread, and the loop in it, does nothing else until the moment, in
seconds of CLOCK_BOOTTIME, that the file SPIN names. It stands for a bug in the program.

DIE_AT_SAVE kills agent and guard right `before` or `after` its record is renamed into place, and
SLOW_SAVE lets each fsync take up to so many seconds: a disk that is worn out.
"""

import os
import random
import signal
import time

SPIN = "/run/lab-spin"
DIE_AT_SAVE = "/run/lab-die-at-save"
SLOW_SAVE = "/run/lab-slow-save"
RECORD = "/record.json"


def _spin(_signal: int, _frame: object) -> None:
    until_s = float(_read(SPIN))
    while time.clock_gettime(time.CLOCK_BOOTTIME) < until_s:
        pass


def _read(path: str) -> str:
    with open(path) as file:  # noqa: PTH123 - pathlib would be loaded into every program
        return file.read()


def _die_together() -> None:
    os.unlink(DIE_AT_SAVE)  # noqa: PTH108
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


_fsync, _rename = os.fsync, os.rename


def _slow_fsync(file: int) -> None:
    if os.path.exists(SLOW_SAVE):  # noqa: PTH110
        time.sleep(random.uniform(0.0, float(_read(SLOW_SAVE))))  # noqa: TID251
    _fsync(file)


def _deadly_rename(source: object, target: object, **options: object) -> None:
    if not str(target).endswith(RECORD) or not os.path.exists(DIE_AT_SAVE):  # noqa: PTH110
        _rename(source, target, **options)  # type: ignore[arg-type]
        return
    when = _read(DIE_AT_SAVE)
    if when == "after":
        _rename(source, target, **options)  # type: ignore[arg-type]
    _die_together()


signal.signal(signal.SIGUSR2, _spin)
os.fsync, os.rename = _slow_fsync, _deadly_rename  # type: ignore[assignment]
