"""What the guard watches over, and when its time has come. Pure: no clock, no system.

Moments are seconds on CLOCK_BOOTTIME. A `Watch` never changes; each function returns the next one,
or raises RefusedError and nothing has changed. Whoever speaks is named by the number of the child
it is: only the last agent that was started is heard, and none is once its time was over.
"""

import math
import re
from dataclasses import dataclass, replace

NEVER_S = math.inf
NO_LEASE_S = -math.inf

MOST_TARGETS = 1024

CONTAINER_ID = re.compile(r"[0-9a-f]{64}")
"""In whole: what is shorter, or empty, would be found in the groups of strangers."""


class RefusedError(Exception):
    """What was asked for would make the guard unsafe; the text is for people."""


@dataclass(frozen=True, slots=True)
class Target:
    """A managed container as it was seen last. `pid` 0: no process of it is known.

    `started` is the start time of that process as /proc/PID/stat has it. `folders` are its control
    groups, absolute, as the kernel named them; each holds the container's id.
    """

    name: str
    container_id: str
    pid: int = 0
    started: str = ""
    folders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lease:
    """The containers `names` may run in `term` until `valid_until_s`; infinite while on hold."""

    term: int
    names: tuple[str, ...]
    valid_until_s: float


@dataclass(frozen=True, slots=True)
class Watch:
    """`child` is the number of the agent that is heard. `lease` is what is armed.

    `is_over`: its end has come, and everything is killed until the next agent disarms (G2).
    """

    heartbeat_timeout_s: float = 0.0
    kill_budget_s: float = 0.0
    child: int = 0
    lease: Lease | None = None
    is_over: bool = False
    targets: tuple[Target, ...] = ()


# --- what is asked --------------------------------------------------------------------------------


def kill_at_s(watch: Watch) -> float:
    """When everything is to be killed, the agent first; infinite where nothing is armed (G2)."""
    if watch.lease is None or watch.is_over:
        return NEVER_S
    return watch.lease.valid_until_s - watch.kill_budget_s


def is_due(watch: Watch, now: float) -> bool:
    """Has the moment come to kill?"""
    return now >= kill_at_s(watch)


def lease_until_s(watch: Watch) -> float:
    """Until when an agent that starts now has a lease; minus infinity where it has none.

    A lease whose end was enforced is over, however long it would still run.
    """
    return NO_LEASE_S if watch.lease is None or watch.is_over else watch.lease.valid_until_s


def was_enforced(watch: Watch) -> bool:
    """Did the guard have to kill, and has no agent disarmed it since, or armed a newer term?"""
    return watch.is_over


def may_be_left(watch: Watch) -> bool:
    """May the guard end? Nothing is armed, or what is has no end: a hold outlives us (V8)."""
    return watch.lease is None or (not watch.is_over and math.isinf(watch.lease.valid_until_s))


def condemned(watch: Watch) -> tuple[Target, ...]:
    """What is known of the containers that are armed."""
    names = watch.lease.names if watch.lease is not None else ()
    return tuple(target for target in watch.targets if target.name in names)


# --- what happens ---------------------------------------------------------------------------------


def begin_child(watch: Watch) -> Watch:
    """Another agent is about to start: from now on no earlier one is heard (G1)."""
    return replace(watch, child=watch.child + 1)


def enforce(watch: Watch) -> Watch:
    """The end has come. The agent is killed first, and nothing more of it is heard."""
    return replace(watch, child=watch.child + 1, is_over=True)


def greet(watch: Watch, child: int, heartbeat_timeout_s: float, kill_budget_s: float) -> Watch:
    """An agent tells the timings that it runs with. Raises RefusedError."""
    _check_speaker(watch, child)
    if not 0 < kill_budget_s < heartbeat_timeout_s < math.inf:
        raise RefusedError(f"kill_budget {kill_budget_s:g} of {heartbeat_timeout_s:g} s")
    return replace(watch, heartbeat_timeout_s=heartbeat_timeout_s, kill_budget_s=kill_budget_s)


def see(watch: Watch, child: int, target: Target) -> Watch:
    """A managed container was seen; what was known under its name is forgotten. RefusedError."""
    _check_speaker(watch, child)
    if not CONTAINER_ID.fullmatch(target.container_id):
        raise RefusedError(f"{target.container_id!r} is no container's id")
    others = tuple(it for it in watch.targets if it.name != target.name)
    return replace(watch, targets=(*others, target)[-MOST_TARGETS:])


def arm(watch: Watch, child: int, lease: Lease, now: float) -> Watch:
    """Before the first start of a term, and after a resume (G1). Raises RefusedError.

    A term whose end was enforced is over: only a newer one ends the killing.
    """
    _check_speaker(watch, child)
    _check_deadline(watch, lease.valid_until_s, now)
    if watch.lease is not None and lease.term < watch.lease.term + watch.is_over:
        raise RefusedError(f"term {lease.term}, and term {watch.lease.term} is armed, or over")
    if now >= lease.valid_until_s - watch.kill_budget_s:
        raise RefusedError("the lease has ended, or is about to")
    return replace(watch, lease=lease, is_over=False)


def move(watch: Watch, child: int, term: int, valid_until_s: float, now: float) -> Watch:
    """An answer moved the end of the lease (G1). Raises RefusedError."""
    _check_speaker(watch, child)
    _check_deadline(watch, valid_until_s, now)
    if watch.lease is None or watch.is_over or watch.lease.term != term:
        raise RefusedError(f"term {term} is not armed")
    return replace(watch, lease=replace(watch.lease, valid_until_s=valid_until_s))


def disarm(watch: Watch, child: int, term: int) -> Watch:
    """Everything was seen to be stopped, in this term or a later one. Raises RefusedError.

    After the end was enforced a later agent says it, which may have lost its record, and its terms.
    """
    _check_speaker(watch, child)
    if watch.lease is not None and not watch.is_over and term < watch.lease.term:
        raise RefusedError(f"term {term}, and term {watch.lease.term} is armed")
    return replace(watch, lease=None, is_over=False)


def _check_speaker(watch: Watch, child: int) -> None:
    if child != watch.child:
        raise RefusedError("an earlier agent said it")


def _check_deadline(watch: Watch, valid_until_s: float, now: float) -> None:
    if not watch.heartbeat_timeout_s:
        raise RefusedError("the agent has not told its timings")
    if math.isnan(valid_until_s):
        raise RefusedError("the end of the lease is not a number")
    if math.isfinite(valid_until_s) and valid_until_s > now + watch.heartbeat_timeout_s:
        raise RefusedError(
            f"{valid_until_s - now:g} s ahead, and no lease is longer than heartbeat_timeout"
            f" ({watch.heartbeat_timeout_s:g} s)"
        )
