"""What this machine needs for a timer, a save and a kill: the bounds depend on it.

Each is the slowest of a few tries, in seconds; None where it could not be measured. The network is
measured where it is asked (`peer`, `arbiter`).
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from failover_agent.adapters.clock import Clock
from failover_agent.core.bounds import Measured

TIMER_TRIES = 20
TIMER_S = 0.01
SAVE_TRIES = 5
RECORD_BYTES = 1000
KILL_TRIES = 3
KILL_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Measurements:
    """As in `Measured`; None was not measured."""

    rtt_s: float | None = None
    fsync_s: float | None = None
    wake_s: float | None = None
    kill_s: float | None = None

    @property
    def is_complete(self) -> bool:
        """Was all of it measured?"""
        return None not in {self.rtt_s, self.fsync_s, self.wake_s, self.kill_s}

    @property
    def measured(self) -> Measured:
        """With the usual figures for what was not measured."""
        usual = Measured()
        return Measured(
            rtt_s=usual.rtt_s if self.rtt_s is None else self.rtt_s,
            fsync_s=usual.fsync_s if self.fsync_s is None else self.fsync_s,
            wake_s=usual.wake_s if self.wake_s is None else self.wake_s,
            kill_s=usual.kill_s if self.kill_s is None else self.kill_s,
        )


async def measure(rtt_s: float | None, state_dir: Path) -> Measurements:
    """One after the other, so that none slows the next one down."""
    return Measurements(
        rtt_s=rtt_s,
        fsync_s=await asyncio.to_thread(_save_s, state_dir),
        wake_s=await _wake_s(),
        kill_s=await _kill_s(),
    )


async def _wake_s() -> float:
    """How late a timer of the loop fires."""
    clock, late_s = Clock(), 0.0
    for _ in range(TIMER_TRIES):
        due_at_s = clock.now() + TIMER_S
        await asyncio.sleep(TIMER_S)
        late_s = max(late_s, clock.now() - due_at_s)
    return late_s


def _save_s(state_dir: Path) -> float | None:
    """A save as the record does it: write, fsync, rename, fsync of the directory."""
    clock, slowest_s, place = Clock(), 0.0, existing(state_dir)
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".check-") as folder:
            directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                for _ in range(SAVE_TRIES):
                    began_at_s = clock.now()
                    _save(Path(folder))
                    os.fsync(directory)
                    slowest_s = max(slowest_s, clock.now() - began_at_s)
            finally:
                os.close(directory)
    except OSError:
        return None
    return slowest_s


def _save(folder: Path) -> None:
    with (folder / "new").open("wb") as file:
        file.write(bytes(RECORD_BYTES))
        file.flush()
        os.fsync(file.fileno())
    (folder / "new").rename(folder / "record")


async def _kill_s() -> float | None:
    """From SIGKILL to the end of a process that heeds nothing else."""
    clock, slowest_s = Clock(), 0.0
    for _ in range(KILL_TRIES):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-S",
            "-c",
            "import sys; sys.stdout.write('.'); sys.stdout.flush(); sys.stdin.read()",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(KILL_LIMIT_S):
                await process.stdout.read(1)
                began_at_s = clock.now()
                process.kill()
                await process.wait()
                slowest_s = max(slowest_s, clock.now() - began_at_s)
        except TimeoutError:
            return None
        finally:
            if process.returncode is None:
                process.kill()
    return slowest_s


def existing(directory: Path) -> Path:
    """`directory`, or the nearest above it that is there."""
    while not directory.exists() and not directory.is_symlink():
        directory = directory.parent
    return directory
