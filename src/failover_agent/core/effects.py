"""Orders to the outside. Each one that can finish is answered by one event of the same term."""

from __future__ import annotations

from dataclasses import dataclass

from failover_agent.core.messages import Answer, Beat, ReleaseRequest, VoteRequest
from failover_agent.core.policy import Role
from failover_agent.core.state import Reason


@dataclass(frozen=True, slots=True)
class SendHeartbeat:
    """Answered by HeartbeatAnswered or HeartbeatFailed. Gives up after `deadline_s` seconds."""

    to: Role
    beat: Beat
    deadline_s: float


@dataclass(frozen=True, slots=True)
class SendVoteRequest:
    """Answered by VoteAnswered or VoteFailed. Gives up after `deadline_s` seconds."""

    to: Role
    request: VoteRequest
    deadline_s: float


@dataclass(frozen=True, slots=True)
class SendRelease:
    """Answered by ReleaseAnswered or ReleaseFailed. Gives up after `deadline_s` seconds."""

    to: Role
    request: ReleaseRequest
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to the request `request_id`; dropped when its sender has gone."""

    request_id: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class ReplyToOperator:
    """The answer to an operator's command: `accepted`, and a sentence for people."""

    request_id: int
    accepted: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class StartContainers:
    """Start `names` in order, waiting for each to run (and be healthy where it has a check).

    Running ones are left as they are. Answered by ContainersStarted or StartFailed. No start call
    is made once `may_act(term)` is false.
    """

    term: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RepairContainer:
    """Start one dead container again. Answered by RepairFinished."""

    term: int
    name: str


@dataclass(frozen=True, slots=True)
class StopContainers:
    """Stop `names`, in this order, each with its own grace (or `grace_s`), then kill, then confirm.

    With a `grace_s` all are stopped side by side, and 0 kills at once: then time is short (H3).
    Overtakes a running start, and a `grace_s` of 0 a running stop. Answered by ContainersStopped
    or StopFailed.
    """

    term: int
    names: tuple[str, ...]
    grace_s: float | None


@dataclass(frozen=True, slots=True)
class ArmGuard:
    """Let the guard watch over `names` in `term`: from now on it kills them at `valid_until_s`
    less kill_budget, whatever becomes of this process (G1).

    Answered by GuardArmed or GuardFailed. `valid_until_s` is on CLOCK_BOOTTIME.
    """

    term: int
    names: tuple[str, ...]
    valid_until_s: float


@dataclass(frozen=True, slots=True)
class MoveDeadline:
    """An answer moved the end of the lease; infinite while on hold (G1, V8). Not answered."""

    term: int
    valid_until_s: float


@dataclass(frozen=True, slots=True)
class DisarmGuard:
    """Everything is confirmed stopped: the guard has nothing to kill any more. Not answered."""

    term: int


@dataclass(frozen=True, slots=True)
class RunFence:
    """Run fence_command so that `target` cannot run the service. Answered by FenceFinished."""

    term: int
    target: Role
    reason: Reason


@dataclass(frozen=True, slots=True)
class ManageRestartPolicy:
    """Set Docker's restart policy of `name` to "no". Answered by RestartPolicySet."""

    name: str
    was: str


@dataclass(frozen=True, slots=True)
class Exit:
    """Leave the process after everything before this was handed out; `sentence` is logged last."""

    sentence: str


Effect = (
    SendHeartbeat
    | SendVoteRequest
    | SendRelease
    | Reply
    | ReplyToOperator
    | StartContainers
    | RepairContainer
    | StopContainers
    | ManageRestartPolicy
    | ArmGuard
    | MoveDeadline
    | DisarmGuard
    | RunFence
    | Exit
)
