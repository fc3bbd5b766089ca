"""What makes a machine late."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def saturated_cores() -> Iterator[None]:
    """One process per core that never sleeps, and one more."""
    spin = [sys.executable, "-I", "-S", "-c", "while True: pass"]
    busy = [subprocess.Popen(spin) for _ in range((os.cpu_count() or 1) + 1)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
        for process in busy:
            process.wait()
