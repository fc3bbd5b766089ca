"""How late this machine is, so that a bound can be held against what the machine added to it."""

import threading
from types import TracebackType
from typing import Self

from tests.lab.truth import now_s

BEAT_S = 0.01
LATE_S = 0.02  # a wake-up less late than this is an ordinary one


class Metronome:
    """Wakes up every 10 ms in a thread of its own, and notes each time that it could not."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._late: list[tuple[float, float]] = []  # when, by how much
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def late_s(self, since_s: float) -> float:
        """All lateness since that moment, added up: whoever had to wake up several times on end
        may have met each of them.
        """
        return sum(late_s for moment_s, late_s in self._late if moment_s >= since_s)

    def latest_s(self, since_s: float) -> float:
        """The worst of them."""
        return max((late_s for moment_s, late_s in self._late if moment_s >= since_s), default=0.0)

    def _run(self) -> None:
        before_s = now_s()
        while not self._over.wait(BEAT_S):
            moment_s = now_s()
            late_s = moment_s - before_s - BEAT_S
            if late_s > LATE_S:
                self._late.append((moment_s, late_s))
            before_s = moment_s
