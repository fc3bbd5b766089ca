# ruff: noqa: INP001 - no package: a folder for PYTHONPATH
"""A lever on any Python program of the lab, found by PYTHONPATH: SIGUSR2 makes it spin.

It stands for a bug in the program: its main thread, and the loop in it, does nothing else until the
moment, in seconds of CLOCK_BOOTTIME, that the file SPIN names.
"""

import signal
import time

SPIN = "/run/lab-spin"


def _spin(_signal: int, _frame: object) -> None:
    with open(SPIN) as file:  # noqa: PTH123 - pathlib would be loaded into every program
        until_s = float(file.read())
    while time.clock_gettime(time.CLOCK_BOOTTIME) < until_s:
        pass


signal.signal(signal.SIGUSR2, _spin)
