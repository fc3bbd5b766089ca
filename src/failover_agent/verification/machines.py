"""What a world is made of: hosts with their clocks, disks, agents and guards, and a witness.

All of it is data that is copied when a history forks; what happens to it is `world`'s.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from failover_agent.core.events import Event
from failover_agent.core.messages import Answer, Request, Sender
from failover_agent.core.policy import Policy, Role
from failover_agent.core.state import Durable, State
from failover_agent.core.voter import Voter
from failover_agent.guard.watch import Watch

Call = tuple[Callable[..., None], tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take, in seconds. All of it is the same each time: it is faults that vary.

    `trip_s`: a message on its way. `save_s`: an fsync. `wake_s`: how late a timer is. `start_s`:
    from a start call to its end; the container counts as running from the call. `stop_s`: a stop
    with the container's own grace. `guard_s`: until the guard has answered. `restart_s`: until a
    supervisor or a guard has started an agent anew. A kill takes the whole of kill_budget, and a
    stop whose grace the lease limits takes all of that, so that nothing ends earlier than it must.
    """

    trip_s: float = 0.005
    save_s: float = 0.005
    wake_s: float = 0.001
    lane_s: float = 0.001
    start_s: float = 0.2
    stop_s: float = 1.0
    guard_s: float = 0.002
    list_s: float = 0.005
    restart_s: float = 0.1
    fence_s: float = 0.5


@dataclass(frozen=True, slots=True)
class Letter:
    """A message under way. `run` and `sent_clock_s`: its sender's; `question`: what it answers."""

    source: Role
    target: Role
    body: Request | Answer
    number: int
    run: int
    sent_at_s: float
    sent_clock_s: float
    deadline_s: float
    question: Letter | None = None


@dataclass(frozen=True, slots=True)
class Saving:
    """A step that waits for its save; `rest` is what its plan has behind that."""

    state: State
    durable: Durable
    rest: tuple[Any, ...]
    letter: Letter | None


@dataclass(slots=True)
class Agent:
    """One run of an agent. While it is frozen, what reaches it waits in `backlog`.

    `child` is its number with the guard; `stops` are the stops that are under way.
    """

    run: int
    child: int
    state: State
    wake_at_s: float
    is_frozen: bool = False
    saving: Saving | None = None
    inbox: tuple[tuple[Event, Letter | None], ...] = ()
    backlog: tuple[Call, ...] = ()
    stops: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """What is on a disk."""

    node_id: str
    boot: int
    durable: Durable


@dataclass(slots=True)
class Clock:
    """CLOCK_BOOTTIME of one machine, that runs at `rate`."""

    rate: float
    zero_s: float = 100.0
    booted_at_s: float = 0.0

    def read(self, now_s: float) -> float:
        """What it shows at the world's `now_s`."""
        return self.zero_s + (now_s - self.booted_at_s) * self.rate

    def when(self, moment_s: float) -> float:
        """When it will show `moment_s`, in the world's time."""
        return self.booted_at_s + (moment_s - self.zero_s) / self.rate


@dataclass(slots=True)
class Host:
    """A machine with the containers, which are one here: they start and stop together.

    `is_alive`: they run; `call_until_s`: a start call is outstanding until then. `watch` is what
    the guard knows, on a tmpfs; `guard_at_s` is when it is due. `node_ids` counts lost records.
    """

    policy: Policy
    clock: Clock
    is_on: bool = False
    boot: int = 0
    record: Record | None = None
    node_ids: int = 0
    agent: Agent | None = None
    watch: Watch = field(default_factory=Watch)
    guard_at_s: float = float("inf")
    is_guard_frozen: bool = False
    guard_mail: tuple[Call, ...] = ()
    is_alive: bool = False
    incarnation: int = 0
    call_until_s: float = float("-inf")
    heard_at_s: float = float("-inf")

    @property
    def role(self) -> Role:
        """Its role."""
        return self.policy.role

    def fork(self) -> Host:
        """The same, on its own."""
        twin = copy.copy(self)
        twin.clock = copy.copy(self.clock)
        twin.agent = copy.copy(self.agent)
        return twin


@dataclass(slots=True)
class Witness:
    """The third machine: one voter, its disk, and nothing else."""

    clock: Clock
    voter: Voter | None = None
    disk: Durable | None = None
    runs: int = 0
    node_ids: int = 1
    is_frozen: bool = False
    backlog: tuple[Call, ...] = ()

    @property
    def me(self) -> Sender:
        """As its answers name it."""
        return Sender(Role.WITNESS, f"witness-{self.node_ids}", f"witness-run-{self.runs}", "")

    def fork(self) -> Witness:
        """The same, on its own."""
        twin = copy.copy(self)
        twin.clock = copy.copy(self.clock)
        return twin
