"""The managed containers as this node last saw them, and all that follows from them alone.

There may be hundreds, and a beat a second changes none of them. So what is asked about all of them
is found out once, when it is first asked after one has changed: a step that changes no container
looks at none. `Containers` is immutable, and an answer depends on nothing but the views in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, ValuesView
from dataclasses import dataclass
from enum import StrEnum, unique
from functools import cached_property

MOST_NAMED = 8
"""So many containers are named in what is told to people; the others are counted."""


@unique
class ContainerState(StrEnum):
    """Design, section 5. Unknown is not down (S4)."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"


@unique
class Health(StrEnum):
    """The containers of a node in one word, in its heartbeats."""

    OK = "ok"
    DEGRADED = "degraded"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ContainerView:
    """One managed container as this node last saw it.

    `alive` says whether a process of it may run (true while paused or restarting; None: cannot be
    told). `incarnation` is opaque: id and StartedAt. `down_since_s` is when we first saw it down,
    kept until the same incarnation has been up for `settled_after_s`. `attempts` counts repairs
    since then; `restarts` all repairs that worked, for people.
    """

    name: str
    state: ContainerState = ContainerState.UNKNOWN
    detail: str = "not seen yet"
    exists: bool = False
    alive: bool | None = None
    incarnation: str = ""
    image: str = ""
    settings: str = ""
    restart_policy: str = "no"
    up_since_s: float | None = None
    down_since_s: float | None = None
    attempts: int = 0
    next_attempt_at_s: float | None = None
    restarts: int = 0


Spec = tuple[str, str, str]
"""How a container was made: its name, and digests of its image and of its settings, "" unknown."""


class Containers(Mapping[str, ContainerView]):
    """Every managed container, in start order. Never changed: `seen` makes another."""

    def __init__(self, views: Iterable[ContainerView]) -> None:
        """In this order."""
        self._views = {view.name: view for view in views}
        self._compared: tuple[tuple[Spec, ...], tuple[tuple[str, str], ...]] = ((), ())

    def __getitem__(self, name: str) -> ContainerView:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def values(self) -> ValuesView[ContainerView]:
        """All views."""
        return self._views.values()

    def __repr__(self) -> str:
        return f"Containers({list(self._views.values())!r})"

    def seen(self, views: Iterable[ContainerView]) -> Containers:
        """These as they are now, the others as they were; itself where nothing is new."""
        fresh = [view for view in views if self._views[view.name] != view]
        if not fresh:
            return self
        return Containers((self._views | {view.name: view for view in fresh}).values())

    # --- what runs -------------------------------------------------------------------------------

    @cached_property
    def alive(self) -> tuple[str, ...]:
        """Those with a living process."""
        return tuple(view.name for view in self._views.values() if view.alive is True)

    @cached_property
    def are_stopped(self) -> bool:
        """Is it known of each that no process of it runs?"""
        return all(view.alive is False for view in self._views.values())

    @cached_property
    def running(self) -> int | None:
        """How many have a living process; None when one cannot be told."""
        if any(view.alive is None for view in self._views.values()):
            return None
        return len(self.alive)

    @cached_property
    def health(self) -> Health:
        """In one word: what an active node would say of its service."""
        states = {view.state for view in self._views.values()}
        if ContainerState.UNKNOWN in states:
            return Health.UNKNOWN
        return Health.DEGRADED if ContainerState.DOWN in states else Health.OK

    @cached_property
    def counted(self) -> tuple[ContainerView, ...]:
        """Those that were seen down against the will of this node, and have not settled since."""
        return tuple(view for view in self._views.values() if view.down_since_s is not None)

    # --- how they were made ----------------------------------------------------------------------

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """Those that do not exist here."""
        return tuple(view.name for view in self._views.values() if not view.exists)

    @cached_property
    def self_starting(self) -> tuple[str, ...]:
        """Those that Docker would start by itself."""
        views = self._views.values()
        return tuple(view.name for view in views if view.restart_policy not in ("", "no"))

    @cached_property
    def specs(self) -> tuple[Spec, ...]:
        """How each that exists was made, as a peer is told it."""
        return tuple(_spec(view) for view in self._views.values() if view.exists)

    @cached_property
    def digest(self) -> str:
        """Equal for equal `specs`."""
        return digest(self.specs)

    def unlike(self, specs: tuple[Spec, ...]) -> tuple[tuple[str, str], ...]:
        """The name, and "image" or "settings", of each that is made otherwise than `specs` say.

        What one side does not know does not differ. The last answer is kept: a peer says the same
        for days.
        """
        if self._compared[0] is not specs:
            self._compared = (specs, tuple(self._differences(specs)))
        return self._compared[1]

    def _differences(self, specs: tuple[Spec, ...]) -> Iterator[tuple[str, str]]:
        mine = {name: (image, settings) for name, image, settings in self.specs}
        for name, image, settings in specs:
            my_image, my_settings = mine.get(name, ("", ""))
            if image and my_image and image != my_image:
                yield name, "image"
            elif settings and my_settings and settings != my_settings:
                yield name, "settings"


def _spec(view: ContainerView) -> Spec:
    return view.name, view.image.removeprefix("sha256:")[:16], view.settings


def digest(parts: tuple[tuple[str, ...], ...]) -> str:
    """64 bits of a hash, as 16 letters."""
    return hashlib.sha256(repr(parts).encode(errors="replace")).hexdigest()[:16]


def some(sentences: Iterable[str]) -> tuple[str, ...]:
    """Of many alike the first few, and how many more there are: for people, and of bounded size."""
    told = tuple(sentences)
    if len(told) <= MOST_NAMED:
        return told
    return (*told[:MOST_NAMED], f"and {len(told) - MOST_NAMED} more")
