"""The ground of a history: time, what is under way, and the story. A history can fork.

Without a fault it is deterministic: what is due next happens next.
"""

from __future__ import annotations

import copy
import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

from failover_agent.core.events import Event, Tick
from failover_agent.core.policy import Role
from failover_agent.simulation.product import Product
from failover_agent.verification import rules
from failover_agent.verification.machines import Host, Letter, Pace, Witness
from failover_agent.verification.tale import Line

Happening = Callable[..., None]
"""What is called with the world of its moment first: it must outlive the forking of worlds."""


class Ground(ABC):
    """Hosts, a witness, what is under way, and what the properties are about.

    `spoke`: whose step it was that just did something a fault could break off; `is_checkpoint`: a
    node has just said its beat. `trouble` counts the faults that last, `calm_since_s` is when the
    last of them began or ended; `spent` are those that were had.
    """

    def __init__(self, core: Product, pace: Pace, measures: rules.Measures) -> None:
        """Empty, at 0 seconds."""
        self.core = core
        self.pace = pace
        self.measures = measures
        self.now_s = 0.0
        self.events = 0
        self.hosts: dict[Role, Host] = {}
        self.witness: Witness | None = None
        self.queue: list[tuple[float, int, Happening, tuple[Any, ...]]] = []
        self.serial = 0
        self.cuts: tuple[tuple[Role, Role], ...] = ()
        self.spoke: Role | None = None
        self.is_checkpoint = False
        self.trouble = 0
        self.calm_since_s = 0.0
        self.spent: tuple[str, ...] = ()
        self.tale: Line | None = None
        self.outage_since_s: float | None = None
        self.overlap_since_s: float | None = None
        self.crashed_at_s: float | None = None

    def fork(self) -> Self:
        """The same world, whose history may go another way from here."""
        twin = copy.copy(self)
        twin.hosts = {role: host.fork() for role, host in self.hosts.items()}
        twin.witness = None if self.witness is None else self.witness.fork()
        twin.queue = self.queue.copy()
        return twin

    # --- time -----------------------------------------------------------------------------------

    def after(self, seconds: float, function: Happening, *args: Any) -> None:
        """Let `function(world, *args)` happen in `seconds`."""
        self.serial += 1
        heapq.heappush(self.queue, (self.now_s + seconds, self.serial, function, args))

    def next_due(self) -> tuple[float, Happening, tuple[Any, ...], bool]:
        """When, what and with what; and is it from the queue, or the deadline of a process?"""
        at_s, queued = float("inf"), False
        function: Happening = Ground.wake_agent
        args: tuple[Any, ...] = ()
        if self.queue:
            at_s, _, function, args = self.queue[0]
            queued = True
        for role, host in self.hosts.items():
            agent = host.agent
            if host.guard_at_s < at_s and not host.is_guard_frozen:
                at_s, function, args, queued = host.guard_at_s, Ground.wake_guard, (role,), False
            is_awake = agent is not None and not agent.is_frozen and agent.saving is None
            if agent is not None and is_awake and agent.wake_at_s < at_s:
                at_s, function, args, queued = agent.wake_at_s, Ground.wake_agent, (role,), False
        return at_s, function, args, queued

    def drop_next(self) -> None:
        """What is at the head of the queue never happens."""
        heapq.heappop(self.queue)

    def advance(self) -> None:
        """Let happen what is due next."""
        at_s, function, args, is_queued = self.next_due()
        if is_queued:
            heapq.heappop(self.queue)
        self.now_s = max(self.now_s, at_s)
        self.events += 1
        self.spoke, self.is_checkpoint = None, False
        function(self, *args)

    def tell(self, who: str, what: str, *, is_fault: bool = False) -> None:
        """One more line of the story."""
        self.tale = Line(self.now_s, who, what, is_fault, self.tale)

    def last(self, seconds: float, end: Happening, *args: Any) -> None:
        """Something is wrong until, in `seconds`, `end` makes it well again."""
        self.trouble += 1
        self.calm_since_s = self.now_s
        self.after(seconds, Ground._heal, end, args)

    def _heal(self, end: Happening, args: tuple[Any, ...]) -> None:
        self.trouble -= 1
        self.calm_since_s = self.now_s
        end(self, *args)

    # --- processes ------------------------------------------------------------------------------

    def in_agent(self, role: Role, run: int, function: Happening, *args: Any) -> None:
        """`function(world, host, *args)` inside the process: now, when it is thawed, or never."""
        host = self.hosts[role]
        agent = host.agent
        if agent is None or agent.run != run:
            return
        if agent.is_frozen:
            agent.backlog = (*agent.backlog, (function, args))
        else:
            function(self, host, *args)

    def wake_agent(self, role: Role) -> None:
        """The moment has come that the core named."""
        self.take(self.hosts[role], Tick(), None)

    def wake_guard(self, role: Role) -> None:
        """The moment has come that the guard waits for."""
        self.enforce(role)

    @abstractmethod
    def take(self, host: Host, event: Event, letter: Letter | None) -> None:
        """The agent of `host` takes one event in; `letter` is what it came by."""

    @abstractmethod
    def enforce(self, role: Role) -> None:
        """What the guard does when a lease ends."""
