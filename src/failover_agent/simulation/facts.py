"""What truly happened, for the story and for the judges. No fact says what an agent thinks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from failover_agent.core.effects import Effect
from failover_agent.core.events import Event
from failover_agent.core.messages import Answer, Request
from failover_agent.simulation.engine import Container

LONGEST_STORY = 4_000


@dataclass(frozen=True, slots=True)
class Started:
    """A process of `container` came to life on `host`."""

    host: str
    container: Container


@dataclass(frozen=True, slots=True)
class Ended:
    """It ended; `by_agent`: because an agent stopped it."""

    host: str
    container: Container
    why: str
    by_agent: bool


@dataclass(frozen=True, slots=True)
class Altered:
    """It was paused, got unhealthy, was removed, recreated, ..."""

    host: str
    container: Container
    what: str


@dataclass(frozen=True, slots=True)
class Ordered:
    """The agent of `host` handed out an effect."""

    host: str
    effect: Effect


@dataclass(frozen=True, slots=True)
class Saved:
    """The agent of `host` wrote its record, or failed to."""

    host: str


@dataclass(frozen=True, slots=True)
class Said:
    """The agent of `host` put words on the wire."""

    host: str
    words: Request | Answer


@dataclass(frozen=True, slots=True)
class Saw:
    """The agent of `host` took an event from its inbox."""

    host: str
    event: Event


@dataclass(frozen=True, slots=True)
class AgentBegan:
    """An agent starts on `host`."""

    host: str


@dataclass(frozen=True, slots=True)
class AgentEnded:
    """It died or left."""

    host: str


@dataclass(frozen=True, slots=True)
class Booted:
    """`host` was switched on: another clock."""

    host: str


@dataclass(frozen=True, slots=True)
class Glanced:
    """A moment has passed: time to look at the whole world."""


Fact = (
    Saved
    | Started
    | Ended
    | Altered
    | Ordered
    | Said
    | Saw
    | AgentBegan
    | AgentEnded
    | Booted
    | Glanced
)


class Watcher(Protocol):
    """Who is told every fact."""

    def see(self, fact: Fact) -> None:
        """Raise when it breaks a rule."""


class Chronicle:
    """The story of one run, and those who watch it."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Nothing has happened."""
        self._now = now
        self._lines: deque[tuple[float, str, str]] = deque(maxlen=LONGEST_STORY)
        self.watchers: list[Watcher] = []

    def happened(self, fact: Fact) -> None:
        """Tell the watchers."""
        for watcher in self.watchers:
            watcher.see(fact)

    def tell(self, who: str, what: str) -> None:
        """Add a line to the story."""
        self._lines.append((self._now(), who, what))

    def tale(self, last: int = 80) -> str:
        """The last lines, for people."""
        lines = list(self._lines)[-last:]
        return "\n".join(f"{at_s:9.3f}  {who:8}  {what}" for at_s, who, what in lines)

    # --- from the engines -----------------------------------------------------------------------

    def container_started(self, host: str, container: Container) -> None:
        """A process came to life."""
        who = "its agent" if container.by_us else "somebody else"
        self.tell(host, f"{container.name} runs, started by {who}")
        self.happened(Started(host, container))

    def container_ended(self, host: str, container: Container, why: str, *, by_agent: bool) -> None:
        """A process ended."""
        self.tell(host, f"{container.name} ended: {why}")
        self.happened(Ended(host, container, why, by_agent))

    def container_altered(self, host: str, container: Container, what: str) -> None:
        """Anything else."""
        self.tell(host, f"{container.name} is {what}")
        self.happened(Altered(host, container, what))
