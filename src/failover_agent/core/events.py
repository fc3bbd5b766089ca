"""Facts, in the past tense. Everything the core ever learns comes in as one of these."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique

from failover_agent.core.messages import (
    Beat,
    BeatAnswer,
    ReleaseAnswer,
    ReleaseRequest,
    VoteAnswer,
    VoteKind,
    VoteRequest,
)
from failover_agent.core.policy import Role
from failover_agent.core.state import ContainerState


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: `next_deadline` was reached, or the backstop."""


# --- messages of other nodes -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HeartbeatReceived:
    """An authentic beat arrived and waits for `Reply(request_id, BeatAnswer)`."""

    request_id: int
    beat: Beat


@dataclass(frozen=True, slots=True)
class HeartbeatAnswered:
    """Our beat, sent at `sent_at_s` on our clock in `term`, was answered."""

    to: Role
    sent_at_s: float
    term: int
    answer: BeatAnswer


@dataclass(frozen=True, slots=True)
class HeartbeatFailed:
    """Our beat was not answered: `error` is a sentence for people."""

    to: Role
    sent_at_s: float
    error: str


@dataclass(frozen=True, slots=True)
class VoteRequested:
    """A poll, prepare or candidacy arrived and waits for `Reply(request_id, VoteAnswer)`."""

    request_id: int
    request: VoteRequest


@dataclass(frozen=True, slots=True)
class VoteAnswered:
    """A voter answered our request."""

    voter: Role
    sent_at_s: float
    answer: VoteAnswer


@dataclass(frozen=True, slots=True)
class VoteFailed:
    """A voter did not answer our request in time; it may have heard it all the same."""

    voter: Role
    kind: VoteKind
    term: int
    error: str


@dataclass(frozen=True, slots=True)
class ReleaseReceived:
    """A release arrived and waits for `Reply(request_id, ReleaseAnswer)`."""

    request_id: int
    request: ReleaseRequest


@dataclass(frozen=True, slots=True)
class ReleaseAnswered:
    """A voter confirmed our release."""

    voter: Role
    answer: ReleaseAnswer


@dataclass(frozen=True, slots=True)
class ReleaseFailed:
    """A voter did not answer our release."""

    voter: Role
    term: int
    error: str


@unique
class ConflictKind(StrEnum):
    """Ways in which two nodes cannot be a pair (section 8); each is an alarm's code."""

    ENDPOINT_IS_SELF = "endpoint_is_self"
    SAME_ROLE = "same_role"
    OTHER_CLUSTER = "other_cluster"
    OTHER_PROTOCOL = "other_protocol"
    WRONG_ROLE = "wrong_role"
    NOT_AUTHENTIC = "not_authentic"


@dataclass(frozen=True, slots=True)
class ConflictSeen:
    """A message, received or answered, shows that the set-up is wrong; it was refused.

    `holding` and `may_lead` tell, for SAME_ROLE, whether the other node holds a term or could.
    `received`: it was a message sent to us, so it tells nothing about where our endpoint leads;
    otherwise `endpoint` is the one that leads there.
    """

    kind: ConflictKind
    detail: str
    node_id: str = ""
    holding: bool = False
    may_lead: bool = False
    received: bool = False
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class AddressLost:
    """The only endpoint of `peer` does not resolve and no earlier address is known."""

    peer: Role
    error: str


@dataclass(frozen=True, slots=True)
class PathAnswered:
    """`peer` answers over `endpoint`. Told when that changes, and not with each answer."""

    peer: Role
    endpoint: str


@dataclass(frozen=True, slots=True)
class PathFailed:
    """`peer` does not answer over `endpoint`, and `error` says why. Told when one of them changes.

    `silent_since_s`: when its last answer came over it, or, if none ever did, when our first
    message left.
    """

    peer: Role
    endpoint: str
    silent_since_s: float
    error: str


# --- containers ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ContainerObservation:
    """What the engine told of one managed container.

    `alive`: a process of it runs or may run (running, paused, restarting). `incarnation`
    changes with each start. `restart_policy` is Docker's own ("no", "always", ...). `image` and
    `settings` are digests that are equal where the containers are alike.
    """

    name: str
    state: ContainerState
    detail: str
    exists: bool
    alive: bool
    incarnation: str
    image: str
    settings: str
    restart_policy: str


@dataclass(frozen=True, slots=True)
class ContainersObserved:
    """A whole snapshot: every managed container is in it, missing ones as DOWN and not existing.

    `withheld`: what the engine does not tell between two snapshots, a clause for people; "" for
    nothing.
    """

    containers: tuple[ContainerObservation, ...]
    withheld: str = ""


@dataclass(frozen=True, slots=True)
class ContainerChanged:
    """One container, fresh from the engine."""

    container: ContainerObservation


@dataclass(frozen=True, slots=True)
class ContainerDied:
    """The engine reported `die`: down at once, without an inspect (section 5)."""

    name: str
    incarnation: str
    detail: str


@dataclass(frozen=True, slots=True)
class EngineLost:
    """The engine does not answer. `alive`: for each container whether its processes were seen
    alive (True), gone (False), or could not be told (None). Repeated while it lasts.
    """

    error: str
    alive: tuple[tuple[str, bool | None], ...]


@dataclass(frozen=True, slots=True)
class ContainersStarted:
    """Answers `StartContainers`: all run (and are healthy where they have a check)."""

    term: int


@dataclass(frozen=True, slots=True)
class StartFailed:
    """Answers `StartContainers`: `name` did not start; no start call is outstanding any more."""

    term: int
    name: str
    error: str


@dataclass(frozen=True, slots=True)
class RepairFinished:
    """Answers `RepairContainer`; `error` is empty when the engine started it."""

    term: int
    name: str
    error: str


@dataclass(frozen=True, slots=True)
class ContainersStopped:
    """Answers `StopContainers`: no start call outstanding, and a fresh list and inspect (or the
    pids, by start time) say that none of them runs.
    """

    term: int


@dataclass(frozen=True, slots=True)
class StopFailed:
    """Answers `StopContainers`: it could not be confirmed that `names` are stopped."""

    term: int
    names: tuple[str, ...]
    error: str


@dataclass(frozen=True, slots=True)
class GuardArmed:
    """Answers `ArmGuard`: the guard has it, and the deadline lies on its tmpfs."""

    term: int


@dataclass(frozen=True, slots=True)
class GuardFailed:
    """Answers `ArmGuard`: the guard did not say in time that it has it."""

    term: int
    error: str


@dataclass(frozen=True, slots=True)
class FenceFinished:
    """Answers `RunFence`; `error` is empty when the command exited with 0 within its deadline."""

    term: int
    target: Role
    error: str


@dataclass(frozen=True, slots=True)
class RestartPolicySet:
    """Answers `ManageRestartPolicy`; `error` is empty when it is now "no"."""

    name: str
    was: str
    error: str


# --- this host -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RecordWriteFailed:
    """The durable part could not be saved; the step that wanted it was undone."""

    error: str


@dataclass(frozen=True, slots=True)
class RecordWritable:
    """The record was saved again after a failure."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """SIGTERM or SIGINT. `restarting`: the supervisor restarts us, so leave the containers.
    `host_is_shutting_down`: always hand over.
    """

    restarting: bool = False
    host_is_shutting_down: bool = False


@unique
class CommandKind(StrEnum):
    """What an operator can order."""

    TAKEOVER = "takeover"
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class CommandReceived:
    """An operator's order over the control socket; waits for `ReplyToOperator`."""

    request_id: int
    command: CommandKind


Event = (
    Tick
    | HeartbeatReceived
    | HeartbeatAnswered
    | HeartbeatFailed
    | VoteRequested
    | VoteAnswered
    | VoteFailed
    | ReleaseReceived
    | ReleaseAnswered
    | ReleaseFailed
    | ConflictSeen
    | AddressLost
    | PathAnswered
    | PathFailed
    | ContainersObserved
    | ContainerChanged
    | ContainerDied
    | EngineLost
    | ContainersStarted
    | StartFailed
    | RepairFinished
    | ContainersStopped
    | StopFailed
    | RestartPolicySet
    | GuardArmed
    | GuardFailed
    | FenceFinished
    | RecordWriteFailed
    | RecordWritable
    | StopRequested
    | CommandReceived
)
