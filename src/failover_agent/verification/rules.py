"""What must hold in every history, and what is measured in all of them (design, sections 4 and 9).

Only what ran where counts here, and what was broken meanwhile; nothing an agent says of itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from failover_agent.core.policy import PartitionPolicy, Policy
from failover_agent.verification.tale import Broken, Line

if TYPE_CHECKING:
    from failover_agent.verification.ground import Ground
    from failover_agent.verification.machines import Host, Pace


@dataclass(frozen=True, slots=True)
class Longest:
    """The longest length seen of something, the faults it took, and its story."""

    seconds: float = 0.0
    faults: tuple[str, ...] = ()
    tale: Line | None = None


@dataclass(slots=True)
class Measures:
    """The longest seen in all histories.

    `takeover`: from the crash of the host that serves, the only fault, to the first start call on
    the other; `lossy_takeover` is the same where messages were lost besides, less one interval for
    each. `outage`: nobody serves. `overlap`: both do.
    """

    takeover: Longest = Longest()
    lossy_takeover: Longest = Longest()
    outage: Longest = Longest()
    overlap: Longest = Longest()


def _longer(before: Longest, seconds: float, world: Ground) -> Longest:
    if seconds <= before.seconds:
        return before
    return Longest(seconds, world.spent, world.tale)


def recovery_limit_s(policy: Policy, pace: Pace) -> float:
    """L2, L3: so long after the last fault has ended exactly one serves again.

    Who is back waits out the longest promise, or the grace in which the other goes first, at most
    one after the other, and a refused candidacy is repeated after at most T.
    """
    waits_s = 2 * policy.startup_grace_period_s + 4 * policy.heartbeat_timeout_s
    work_s = pace.start_s + pace.stop_s + pace.restart_s + 3 * policy.heartbeat_interval_s
    return (1 + policy.clock_drift) ** 2 * waits_s + work_s


def contact_limit_s(policy: Policy, pace: Pace) -> float:
    """So long after the last fault has ended a plain pair runs on one host alone again."""
    says_s = (1 + policy.clock_drift) * 2 * policy.heartbeat_interval_s
    return says_s + 2 * pace.trip_s + 2 * pace.save_s + pace.stop_s + pace.restart_s + pace.start_s


def began(world: Ground, host: Host) -> None:
    """The containers of `host` began to run."""
    others = [it for it in world.hosts.values() if it is not host]
    _measure_takeover(world, host)
    if world.outage_since_s is not None:
        if world.spent:
            length_s = world.now_s - world.outage_since_s
            world.measures.outage = _longer(world.measures.outage, length_s, world)
        world.outage_since_s = None
    if any(other.is_alive for other in others):
        _overlap_began(world, host)


def _overlap_began(world: Ground, host: Host) -> None:
    policy = host.policy
    if policy.requires_lease:
        raise Broken("S1: never two with an arbiter", "the containers run on both hosts")
    if policy.partition_policy is PartitionPolicy.CONSISTENCY:
        raise Broken("S1: never two under consistency", "the containers run on both hosts")
    heard = max(world.hosts.values(), key=lambda it: it.heard_at_s)
    silent_s = world.now_s - heard.heard_at_s
    calm_s = 0.0 if world.trouble else world.now_s - world.calm_since_s
    if silent_s < policy.heartbeat_timeout_s and calm_s > 2 * policy.heartbeat_interval_s:
        raise Broken(
            "S1: a plain pair overlaps under a cut alone",
            f"the containers run on both hosts, and the {heard.role} heard the other one"
            f" {silent_s:.2f} s ago",
        )
    world.overlap_since_s = world.now_s


def ended(world: Ground) -> None:
    """The containers of a host ended."""
    if any(other.is_alive for other in world.hosts.values()):
        if world.overlap_since_s is not None:
            length_s = world.now_s - world.overlap_since_s
            world.measures.overlap = _longer(world.measures.overlap, length_s, world)
        world.overlap_since_s = None
        return
    world.outage_since_s = world.now_s


def crashed(world: Ground) -> None:
    """The host that serves alone is about to crash: a takeover is measured from now."""
    world.crashed_at_s = world.now_s


def _measure_takeover(world: Ground, host: Host) -> None:
    at_s, world.crashed_at_s = world.crashed_at_s, None
    others = (other for other in world.hosts.values() if other is not host)
    if at_s is None or any(other.is_on for other in others):
        return  # Who crashed is back already.
    losses = sum(fault.startswith("lose") for fault in world.spent)
    if losses + 1 != len(world.spent):
        return
    length_s, measures = world.now_s - at_s, world.measures
    if losses == 0:
        measures.takeover = _longer(measures.takeover, length_s, world)
    else:
        length_s -= losses * host.policy.heartbeat_interval_s
        measures.lossy_takeover = _longer(measures.lossy_takeover, length_s, world)


def look(world: Ground, policy: Policy) -> None:
    """Now and then: does it take too long?"""
    alive = sum(host.is_alive for host in world.hosts.values())
    if world.trouble or alive == 1:
        return
    calm_s = world.now_s - world.calm_since_s
    if alive == 0 and calm_s > recovery_limit_s(policy, world.pace):
        raise Broken("L3: every state has a way out", f"nobody serves, {calm_s:.1f} s after")
    if alive == 2 and calm_s > contact_limit_s(policy, world.pace):
        raise Broken("L2: first contact ends an overlap", f"both run, {calm_s:.1f} s after")
