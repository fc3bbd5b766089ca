"""What is known of one container, by the engine's word and by what the host's /proc shows.

The two can differ, and then /proc is right: while its containerd is away an engine calls running
what has ended, and a dockerd that was killed in the middle of a start has left running what the
next one calls created or exited.
"""

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path

from failover_agent.adapters.docker import processes
from failover_agent.adapters.docker.parse import Listed, Sight, missing
from failover_agent.core.events import ContainerObservation
from failover_agent.core.state import ContainerState

ENDED = "its process has ended"

LATELY_S = 2.0
"""That a process was seen to end says for so long that nothing runs; then the engine is asked."""

UNNOTICED_S = 2.0
"""A process that is gone for so long, and that the engine still calls running, is dead to us."""


@dataclass(slots=True)
class Watched:
    """One container. `sight` is the last word of the engine; `believed` puts it right."""

    name: str
    sight: Sight | None = None
    number: int = 0  # of the look that `sight` comes from
    is_stale: bool = True  # no look since the engine was lost
    was_here: bool = False
    told: ContainerObservation | None = None
    process: processes.Process | None = None
    gone_at_s: float | None = None  # it was first seen to be gone, by the loop's clock
    ended: str = ""  # the incarnation whose process was seen to end
    ended_at_s: float = 0.0  # by the loop's clock
    strays: tuple[processes.Process, ...] = ()  # its processes that the engine does not know
    deaths: int = 0
    starts: int = 0  # told by the stream
    starts_seen: int = 0  # how many there were when the last look began, or the last death came
    orders: int = 0  # our own calls that may have started it
    orders_seen: int = 0  # how many there were when the last look began
    failed_looks: int = 0
    hint: asyncio.Event = field(default_factory=asyncio.Event)

    def alive(self) -> bool | None:
        """Does a process of it run, by what can be seen without the engine?"""
        if self.has_strays():
            return True
        if self.sight is None:
            return None
        if (self.starts, self.orders) != (self.starts_seen, self.orders_seen):
            return None
        if not self.sight.observation.alive:
            return False
        return None if self.process is None else processes.is_alive(self.process)

    def has_just_ended(self) -> bool:
        """Was its process seen to end, all others in it with that one, and will it stay so?

        That needs no word of the engine, if it does not start the container anew by itself.
        """
        sight = self.sight
        if sight is None or sight.observation.alive or self.has_strays():
            return False
        is_it = bool(self.ended) and sight.observation.incarnation == self.ended
        stays = sight.has_own_pids and sight.observation.restart_policy == "no"
        nothing_since = (self.starts, self.orders) == (self.starts_seen, self.orders_seen)
        is_new = asyncio.get_running_loop().time() - self.ended_at_s < LATELY_S
        return is_it and stays and nothing_since and is_new

    def is_as(self, listed: Listed | None) -> bool:
        """Does a list say of it what is known already? Then there is no need for a look.

        Where its process was seen to go, or a hint waits, there is; nobody lists a restart whose
        events were lost, but the process that ran before it has gone.
        """
        sight = self.sight
        if sight is None or listed is None or self.is_stale or self.hint.is_set():
            return False
        if sight.observation.alive:
            if self.process is not None and processes.is_alive(self.process) is not True:
                return False
        elif self.has_strays():
            return False
        nothing_since = (self.starts, self.orders) == (self.starts_seen, self.orders_seen)
        known = Listed(sight.container_id, sight.status, sight.health)
        # The health of what does not run is that of its last run, which no list shows.
        return nothing_since and known == (
            listed if sight.observation.alive else replace(listed, health=sight.health)
        )

    @property
    def startable(self) -> Sight | None:
        """What was seen last, where that is a container that only has to be started."""
        sight = self.sight
        known = sight is not None and not self.is_stale and not self.hint.is_set()
        known = known and (self.starts, self.orders) == (self.starts_seen, self.orders_seen)
        if sight is None or not known or self.has_strays() or not sight.observation.exists:
            return None
        # One that the engine starts anew by itself may be between two rounds of a crash loop.
        stays = sight.observation.restart_policy == "no"
        return sight if stays and sight.status in ("created", "exited") else None

    def has_strays(self) -> bool:
        """What cannot be told is not dead."""
        return any(processes.is_alive(stray) is not False for stray in self.strays)

    @property
    def believed(self) -> Sight | None:
        """What was seen last, with what the engine denies."""
        sight = self.sight
        if sight is None or sight.observation.alive or not self.has_strays():
            return sight
        denied = f"{sight.observation.detail}, but a process of it runs that the engine denies"
        return replace(sight, observation=replace(sight.observation, detail=denied, alive=True))

    def take(self, sight: Sight, proc: Path) -> None:
        """The engine's word of this moment."""
        self.process = self._process_of(sight, proc)
        self.sight = self._unless_gone(sight)
        if self.sight.observation.alive:
            self.strays = ()
        self.is_stale = False
        self.was_here = self.was_here or sight.observation.exists
        self.failed_looks = 0

    def take_death(self, sight: Sight, detail: str) -> ContainerObservation:
        """The engine reported the end of what `sight` shows."""
        dead = _down(sight, detail)
        self.sight = replace(dead, pid=0)
        self.starts_seen = self.starts  # The stream is in order: those starts came before.
        self.process = None
        return dead.observation

    def take_end(self, sight: Sight) -> ContainerObservation:
        """The process that `sight` shows has ended; the engine is about to say so."""
        self.ended = sight.observation.incarnation
        self.ended_at_s = asyncio.get_running_loop().time()
        return self.take_death(sight, ENDED)

    def unknown(self, detail: str) -> ContainerObservation:
        """It may run: nobody knows."""
        last = self.told or missing(self.name).observation
        return replace(last, state=ContainerState.UNKNOWN, detail=detail, exists=True, alive=True)

    def _process_of(self, sight: Sight, proc: Path) -> processes.Process | None:
        """What was found to be this incarnation's process stays it, even when it has ended."""
        if not sight.pid:
            return None
        if self.process is not None and self.sight is not None:
            before, now = self.sight.observation.incarnation, sight.observation.incarnation
            if (before, self.sight.pid) == (now, sight.pid):
                return self.process
        return processes.find(sight.pid, sight.container_id, proc)

    def _unless_gone(self, sight: Sight) -> Sight:
        is_ended = bool(self.ended) and sight.observation.incarnation == self.ended
        if is_ended and sight.status in ("running", "paused"):
            return _down(sight, ENDED)
        if self.process is None or processes.is_alive(self.process) is not False:
            self.gone_at_s = None
            return sight
        now_s = asyncio.get_running_loop().time()
        if self.gone_at_s is None:
            self.gone_at_s = now_s
        if now_s - self.gone_at_s < UNNOTICED_S:
            return sight  # most probably the engine is about to notice
        return _down(sight, "its process is gone, and the engine has not noticed")


def _down(sight: Sight, detail: str) -> Sight:
    observation = replace(sight.observation, state=ContainerState.DOWN, detail=detail, alive=False)
    return replace(sight, observation=observation, status="exited")
