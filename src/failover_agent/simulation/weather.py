"""What is wrong with the world right now, by its own book.

Checkers judge by it: an overlap is forgiven while wires are cut, and must end once it is calm. Only
faults are booked here, never what an agent thinks.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, unique

LONG_AGO_S = -1e9


@unique
class Kind(Enum):
    """What a fault befell."""

    WIRE = "wire"
    AGENT = "agent"
    HOST = "host"
    ENGINE = "engine"
    CONTAINER = "container"
    DISK = "disk"
    GUARD = "guard"
    ARBITER = "arbiter"


PATH = frozenset({Kind.WIRE, Kind.AGENT, Kind.HOST})
"""What can keep one agent from hearing another."""

ANY = frozenset(Kind)


class Weather:
    """Open faults by (kind, place, what), and when the last one of a kind ended."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Calm since ever."""
        self._now = now
        self._open: dict[tuple[Kind, str, str], float] = {}
        self._ended: dict[tuple[Kind, str], float] = {}

    def begin(self, kind: Kind, place: str, what: str) -> None:
        """A fault begins; beginning it twice is one fault."""
        self._open.setdefault((kind, place, what), self._now())

    def end(self, kind: Kind, place: str, what: str) -> None:
        """It ended; without effect where it was not open."""
        if self._open.pop((kind, place, what), None) is not None:
            self._ended[kind, place] = self._now()

    def strike(self, kind: Kind, place: str) -> None:
        """A fault without a length: a process that died at once."""
        self._ended[kind, place] = self._now()

    def is_open(self, kinds: frozenset[Kind] = ANY, place: str | None = None) -> bool:
        """Is there a fault of `kinds`, at `place` if given?"""
        return any(kind in kinds and place in (None, where) for kind, where, _ in self._open)

    def last_s(self, kinds: frozenset[Kind] = ANY, place: str | None = None) -> float:
        """When there was last a fault of `kinds`: now, some time ago, or LONG_AGO_S."""
        if self.is_open(kinds, place):
            return self._now()
        return max(
            (
                at_s
                for (kind, where), at_s in self._ended.items()
                if kind in kinds and place in (None, where)
            ),
            default=LONG_AGO_S,
        )

    def calm_for_s(self, kinds: frozenset[Kind] = ANY, place: str | None = None) -> float:
        """For how long there has been no fault of `kinds`."""
        return self._now() - self.last_s(kinds, place)

    def words(self) -> str:
        """What is wrong now, for a story."""
        return ", ".join(f"{what} ({place})" for _, place, what in self._open) or "calm"
