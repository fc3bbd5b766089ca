"""What ran where and when, by the word of the containers themselves.

Every service container (service.sh) writes a line into its file at once when it starts, and then
about every 50 ms: proof of its life, with the moment in seconds of CLOCK_BOOTTIME, which is one
clock for all hosts of a lab. No agent and no engine is asked.

How far it is to be trusted:
- A run's `first_s` and `last_s` are both proven. Between them it existed; where two of its ticks
  lie further apart than HOLE_S, or a pause lies between them, it counts as not running there.
- So an overlap that is claimed did happen. One that happened is seen but for its edges: a tick's
  distance (50 ms, and what a loaded machine adds) at its begin and at its end.
- The clock has steps of CLOCK_STEP_S; an overlap is shortened by one, never lengthened.
"""

import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path

CLOCK_STEP_S = 0.01  # of /proc/uptime
SILENCE_S = 0.4  # without a tick for so long: it does not run now
LATELY_BYTES = 4096  # hold the ticks of several seconds: enough to see what runs now
HOLE_S = 1.0  # between two ticks of one run; less is a busy machine


def now_s() -> float:
    """This moment by the clock of the ticks."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(slots=True)
class Run:
    """A stretch of one container's life: from start to end, or a part of it between pauses."""

    host: str
    name: str
    ticks: list[float]
    has_started: bool  # its first tick is that of a start, and not of waking from a pause
    has_ended: bool = False  # it said so itself; one that is killed says nothing

    @property
    def place(self) -> str:
        return f"{self.host}/{self.name}"

    @property
    def first_s(self) -> float:
        return self.ticks[0]

    @property
    def last_s(self) -> float:
        return self.ticks[-1]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Proven: for these seconds both ran, each on its host."""

    one: str
    other: str
    start_s: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.one} and {self.other} both ran for {self.seconds:.2f} s"


@dataclass(frozen=True, slots=True)
class Truth:
    """Reads the ticks below `folder`/HOST/NAME/ticks anew at every question."""

    folder: Path

    def runs(self, host: str | None = None, name: str | None = None) -> list[Run]:
        """All of them, of one host, of one name, or both; by their first ticks."""
        found: list[Run] = []
        for file in self.folder.glob(f"{host or '*'}/{name or '*'}/ticks"):
            found += _read(file)
        return sorted(found, key=lambda run: run.first_s)

    def starts(self, since_s: float = 0.0) -> list[tuple[str, str]]:
        """(host, name) of every container start, in their order."""
        started = (run for run in self.runs() if run.has_started and run.first_s >= since_s)
        return [(run.host, run.name) for run in started]

    def running_now(self, host: str | None = None) -> set[tuple[str, str]]:
        """(host, name) of all that ticked within the last SILENCE_S and did not say goodbye."""
        since = now_s() - SILENCE_S
        files = self.folder.glob(f"{host or '*'}/*/ticks")
        runs = (run for file in files for run in _read(file, LATELY_BYTES))
        return {(run.host, run.name) for run in runs if run.last_s >= since and not run.has_ended}

    def overlaps(self, *, since_s: float = 0.0, group: bool = False) -> list[Overlap]:
        """Where a name ran on two hosts at once; with `group`, where any name on each did."""
        found = []
        for one, other in itertools.combinations(self.runs(), 2):
            if one.host == other.host or (one.name != other.name and not group):
                continue
            start_s = max(one.first_s, other.first_s, since_s) + CLOCK_STEP_S
            seconds = min(one.last_s, other.last_s) - start_s
            if seconds > 0:
                found.append(Overlap(one.place, other.place, start_s, seconds))
        return found

    def first_tick_after(
        self, moment_s: float, host: str | None = None, name: str | None = None
    ) -> float | None:
        """The first proof of life after that moment; None where there is none yet."""
        ticks = (tick for run in self.runs(host, name) for tick in run.ticks if tick > moment_s)
        return min(ticks, default=None)

    def downtime(self, name: str, since_s: float) -> float:
        """The longest time since `since_s`, until now, in which the name ran nowhere, in seconds.

        Never 0 for a running one: its ticks have a distance.
        """
        ticks = (tick for run in self.runs(name=name) for tick in run.ticks if tick > since_s)
        moments = [since_s, *sorted(ticks), now_s()]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))


def _read(file: Path, last_bytes: int | None = None) -> list[Run]:
    """The lines of one file, or its last ones, cut into runs.

    A last line that is still being written is left out.
    """
    host, name = file.parts[-3:-1]
    runs: list[Run] = []
    is_awake = False  # the next tick goes on with the last run
    for line in _lines(file, last_bytes):
        word, _, moment = line.partition(" ")
        if word == "pause":
            is_awake = False
            continue
        tick_s = float(moment)
        if word == "start" or not is_awake or tick_s - runs[-1].last_s > HOLE_S:
            runs.append(Run(host, name, [tick_s], has_started=word == "start"))
        else:
            runs[-1].ticks.append(tick_s)
        is_awake = word != "end"
        runs[-1].has_ended = word == "end"
    return runs


def _lines(file: Path, last_bytes: int | None) -> list[str]:
    """Whole lines alone."""
    with file.open("rb") as ticks:
        size = ticks.seek(0, os.SEEK_END)
        begin = 0 if last_bytes is None else max(0, size - last_bytes)
        ticks.seek(begin)
        lines = ticks.read().decode().split("\n")[:-1]
    return lines[1:] if begin else lines
