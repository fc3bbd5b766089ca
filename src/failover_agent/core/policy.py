"""The operator's settings, as the core decides by them. Lengths end in `_s` and are seconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique
from functools import cached_property

from failover_agent.core.managed import digest


@unique
class Role(StrEnum):
    """What the configuration says a node is. It never changes while the node runs."""

    PRIMARY = "primary"
    BACKUP = "backup"
    WITNESS = "witness"

    __hash__ = str.__hash__  # A voter is looked up by its role all the time.


@unique
class PartitionPolicy(StrEnum):
    """What a plain pair does when it cannot tell a dead peer from a cut wire."""

    AVAILABILITY = "availability"
    CONSISTENCY = "consistency"


@unique
class OnStop(StrEnum):
    """What SIGTERM does to a node that is active."""

    HANDOVER = "handover"
    LEAVE = "leave"


@unique
class OnEngineLost(StrEnum):
    """What an active node does whose engine is gone and whose processes cannot be seen."""

    STAY = "stay"
    HANDOVER = "handover"


@unique
class LoneStart(StrEnum):
    """Whether a backup that has never heard its primary may start alone."""

    WAIT = "wait"
    START = "start"


@unique
class RestartPolicyMode(StrEnum):
    """What is done about Docker's own restart policies on managed containers."""

    MANAGE = "manage"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Policy:
    """The operator's settings, as the core sees them; the same on every node but for `role`.

    `members` are the roles that can run the containers, most preferred first; `arbiter` is the
    voter that cannot, whatever its kind (a witness, or etcd): there is a lease only with one.
    `has_fence`: a fence_command is configured. `fingerprint` covers what decides quorum (V9),
    `settings` the rest that should be equal on both nodes, as (name, value) pairs.
    """

    role: Role
    containers: tuple[str, ...]
    members: tuple[Role, ...] = (Role.PRIMARY, Role.BACKUP)
    arbiter: Role | None = None
    heartbeat_interval_s: float = 1.0
    check_heartbeat_interval_s: float = 1.0
    heartbeat_timeout_s: float = 10.0
    startup_grace_period_s: float = 20.0
    restart_grace_period_s: float = 30.0
    stop_budget_s: float = 2.5
    kill_budget_s: float = 1.0
    partition_policy: PartitionPolicy = PartitionPolicy.AVAILABILITY
    restart_attempts: int = 3
    restart_policy: RestartPolicyMode = RestartPolicyMode.MANAGE
    max_failovers: int = 3
    failover_window_s: float = 3600.0
    on_engine_lost: OnEngineLost = OnEngineLost.STAY
    on_stop: OnStop = OnStop.HANDOVER
    lone_start: LoneStart = LoneStart.WAIT
    has_fence: bool = False
    clock_drift: float = 0.01
    settled_after_s: float = 3.0
    fingerprint: str = ""
    settings: tuple[tuple[str, str], ...] = ()

    @cached_property
    def settings_digest(self) -> str:
        """Equal for equal `settings`."""
        return digest(self.settings)

    @cached_property
    def requires_lease(self) -> bool:
        """A lease exists only with an arbiter (table of section 4)."""
        return self.arbiter is not None

    @cached_property
    def lease_s(self) -> float:
        """How long an answer lets its holder lead, from when the question was sent (H1)."""
        return self.heartbeat_timeout_s * (1 - self.clock_drift)

    @cached_property
    def others(self) -> tuple[Role, ...]:
        """The other members, most preferred first."""
        return tuple(role for role in self.members if role is not self.role)

    @cached_property
    def voters(self) -> tuple[Role, ...]:
        """Everybody with a vote, this node included."""
        return self.members if self.arbiter is None else (*self.members, self.arbiter)

    @cached_property
    def majority(self) -> int:
        """How many votes make a majority: more than half of all voters."""
        return len(self.voters) // 2 + 1

    @cached_property
    def promise_length_s(self) -> float:
        """How long a promise of `heartbeat_timeout` runs on the voter's own clock (V1)."""
        return self.heartbeat_timeout_s * (1 + self.clock_drift)

    @cached_property
    def patience_s(self) -> float:
        """How long an old holder stands back, and a leaving agent waits for an answer (H5)."""
        return min(max(3 * self.heartbeat_interval_s, 1.0), self.heartbeat_timeout_s)

    def preference(self, role: Role) -> int:
        """Higher is more preferred; only a tie-break, never a reason to take over."""
        return -self.members.index(role)
