"""What the guard asks of its system: nothing here blocks, and none of it has to succeed (G4)."""

import contextlib
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4
CAP_IPC_LOCK = 14
STACK = 1 << 18
"""Bytes for the stack of a thread: all of it is locked."""

LINES_WAITING = 100
FLUSH_S = 0.5

OOM_SCORE = Path("/proc/self/oom_score_adj")


def now() -> float:
    """Seconds on CLOCK_BOOTTIME: it goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


# --- memory ---------------------------------------------------------------------------------------


def lock_memory() -> None:
    """What was in memory once is never to be read from a disk again; where that is allowed.

    Most of an interpreter is never used, and not brought in. With a limit in place of the privilege
    what is allocated later might be refused: so that is not locked.
    """
    # Where memory may not be made executable, some builds cannot even import ctypes.
    with contextlib.suppress(ImportError, MemoryError, OSError, IndexError, ValueError):
        import ctypes

        status = Path("/proc/self/status").read_text()
        powers = int(status.partition("CapEff:")[2].split()[0], 16)
        future = MCL_FUTURE if powers >> CAP_IPC_LOCK & 1 else 0
        ctypes.CDLL(None).mlockall(MCL_CURRENT | MCL_ONFAULT | future)


def be_killed_last() -> str:
    """When memory is short. Returns the score that was before, which a child should have."""
    before = ""
    with contextlib.suppress(OSError):
        before = OOM_SCORE.read_text().strip()
        OOM_SCORE.write_text("-1000")
    return before


def set_oom_score(pid: int, score: str) -> None:
    """The child's own again: when the agent takes all the memory, it is the agent that must go."""
    with contextlib.suppress(OSError):
        if score:
            Path(f"/proc/{pid}/oom_score_adj").write_text(score)


# --- signals --------------------------------------------------------------------------------------


def catches(pid: int, number: signal.Signals) -> bool:
    """Does it do something of its own at this signal? One that has just started does not yet."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        status = Path(f"/proc/{pid}/status").read_text()
        return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)
    return False


class Signals:
    """Those that were sent to us; `wakes` becomes readable with each, and with each child's end."""

    PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self.waiting: list[signal.Signals] = []
        self.wakes, self._tell = socket.socketpair()
        for end in (self.wakes, self._tell):
            end.setblocking(False)
        signal.set_wakeup_fd(self._tell.fileno(), warn_on_full_buffer=False)
        for number in (*self.PASSED_ON, signal.SIGCHLD):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: object) -> None:
        if number != signal.SIGCHLD and number not in self.waiting:
            self.waiting.append(signal.Signals(number))

    def clear(self) -> None:
        """What woke us was seen."""
        with contextlib.suppress(BlockingIOError):
            while self.wakes.recv(4096):
                pass


# --- systemd --------------------------------------------------------------------------------------


class Watchdog:
    """Tells systemd that our loop turns, where it wants that. Taken out of the environment."""

    def __init__(self, environ: dict[str, str]) -> None:
        usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        is_ours = usec.isdecimal() and pid in {"", str(os.getpid())}
        address = environ.get("NOTIFY_SOCKET", "")
        self._every_s = int(usec) / 1_000_000 / 3 if is_ours and address else 0.0
        self._next_s = 0.0
        # "@" stands for the zero byte in front of an abstract name.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def at_most(self, pause_s: float) -> float:
        """So long a pause of the loop, or one that systemd does not mind."""
        return min(pause_s, self._every_s) if self._every_s else pause_s

    def ping(self, now_s: float) -> None:
        """Called whenever the loop turns."""
        if self._every_s and now_s >= self._next_s:
            self._next_s = now_s + self._every_s
            with contextlib.suppress(OSError):
                self._socket.sendto(b"WATCHDOG=1", self._address)


# --- beside the loop ------------------------------------------------------------------------------


class Log:
    """Lines of the agent's own form. A thread writes them: whoever reads our log may hang."""

    def __init__(self) -> None:
        self.is_json = False
        self._lines: queue.Queue[str] = queue.Queue(LINES_WAITING)
        beside(self._write, "log")

    def say(self, level: str, message: str, sentence: str, **fields: object) -> None:
        """One line. It is lost where too many wait."""
        wall = time.clock_gettime(time.CLOCK_REALTIME)
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(wall))
        moment += f".{int(wall % 1 * 1000):03d}Z"
        if self.is_json:
            line = {"time": moment, "level": level, "message": message, **fields}
            text = json.dumps({**line, "sentence": sentence}, default=str)
        else:
            shown = [f"{name}={value}" for name, value in fields.items()]
            text = " ".join([moment, level.upper(), message, *shown, json.dumps(sentence)])
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(text)

    def flush(self) -> None:
        """Waits a moment for what was said; for the end of the process."""
        ends_at_s = now() + FLUSH_S
        while self._lines.unfinished_tasks and now() < ends_at_s:
            threading.Event().wait(0.01)

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(f"{line}\n")
                sys.stderr.flush()
            self._lines.task_done()


def beside(job: Callable[[], None], name: str) -> threading.Thread:
    """A thread that keeps no process from ending. Not alive where the system has room for none."""
    threading.stack_size(STACK)
    thread = threading.Thread(target=job, name=name, daemon=True)
    with contextlib.suppress(RuntimeError):
        thread.start()
    return thread
