"""How long things take at most, in closed form (design, section 4, "Timing").

Each bound is in seconds of real time, for clocks whose rate is right to d (`policy.clock_drift`),
T being `heartbeat_timeout`; `verify` explores the same rules and has to find nothing that takes
longer. What depends on the machines is a `Measured`. A message that is lost costs one interval
more, each.
"""

from __future__ import annotations

from dataclasses import dataclass

from failover_agent.core.policy import PartitionPolicy, Policy

NEVER_S = float("inf")
"""The bound of what has none."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What this machine and its network need; the defaults stand for what was not measured.

    `rtt_s`: a question and its answer, to the slower of peer and arbiter. `fsync_s`: a save of the
    record, on the slowest disk. `wake_s`: how late a timer fires. `kill_s`: from SIGKILL to the
    end of a process.
    """

    rtt_s: float = 0.005
    fsync_s: float = 0.01
    wake_s: float = 0.05
    kill_s: float = 0.05


def takeover_s(
    policy: Policy, measured: Measured, *, fence_timeout_s: float = 0.0, is_register: bool = False
) -> float:
    """From a crash of the active host to the first start call on the other.

    With an arbiter `δ + T·(1+d)² + w + 2·rtt + 2·fsync` (+ `fence_timeout`). δ: the last beat was
    on its way to the arbiter, and the arbiter's word on its promise is on its way to us, a round
    trip together; the promise runs for T·(1+d) of a clock that may be slow (V1); w: our timer is
    late; the poll and the request for the term, a round trip each (H0); our record and the
    arbiter's, a save each (V3). An arbiter started within the last T counts from its start.

    A register (etcd) is seen only when it is read, once an interval, and the promise counts from
    the arrival of the first read that shows it: up to `interval·(1+d) + w + rtt` more, and the
    renewal's own commit, a save.

    Without an arbiter silence is a vote, or the success of a fence command, and nobody is asked.
    Under `consistency` without one, never.
    """
    drift, silence_s = 1 + policy.clock_drift, _silence_s(policy)
    fence_s = fence_timeout_s if policy.has_fence else 0.0
    if not policy.requires_lease:
        if policy.partition_policy is PartitionPolicy.CONSISTENCY and not policy.has_fence:
            return NEVER_S
        return measured.rtt_s + silence_s + measured.wake_s + 2 * measured.fsync_s + fence_s
    seen_s = 0.0
    if is_register:
        seen_s = policy.heartbeat_interval_s * drift + measured.wake_s + measured.rtt_s
        seen_s += measured.fsync_s
    asking_s = 2 * measured.rtt_s + 2 * measured.fsync_s
    return measured.rtt_s + seen_s + silence_s + measured.wake_s + asking_s + fence_s


def lone_start_s(policy: Policy, measured: Measured, *, fence_timeout_s: float = 0.0) -> float:
    """From the start of an agent that hears no peer to its first start call (section 6).

    With an arbiter its answer replaces `startup_grace_period`: the silence, `T·(1+d)²`, which is
    also as long as a voter waits after its own start (V4), and then as in a takeover. Without one
    not before `startup_grace_period`; where a peer would be fenced first, the node that goes second
    waits one T more.
    """
    fence_s = fence_timeout_s if policy.has_fence else 0.0
    late_s = measured.wake_s + 2 * measured.fsync_s + fence_s
    if policy.requires_lease:
        return _silence_s(policy) + 2 * measured.rtt_s + late_s
    grace_s = policy.startup_grace_period_s
    if policy.has_fence and policy.role is not policy.members[0]:
        grace_s += policy.heartbeat_timeout_s
    return max(grace_s * (1 + policy.clock_drift), _silence_s(policy)) + late_s


def stop_window_s(policy: Policy) -> tuple[float, float]:
    """When an active that hears nobody begins to stop, and when nothing of it runs any more.

    `T·(1-d) - stop_budget` and `T·(1-d)` after its last answered beat left (H1, H3); what is left
    `kill_budget` before the end is killed. Without a lease it never stops.
    """
    if not policy.requires_lease:
        return NEVER_S, NEVER_S
    return policy.lease_s - policy.stop_budget_s, policy.lease_s


def absence_s(policy: Policy) -> float:
    """How long an agent may be away, frozen or restarted, and nothing moves.

    `T·(1-d) - interval - kill_budget`: its last beat was up to an interval old, and before the kill
    an agent that is back renews first (H3, S2); it needs a round trip for that. Without a lease
    its peer takes over after T of silence, of which one interval may have passed.
    """
    if not policy.requires_lease:
        return policy.heartbeat_timeout_s - policy.heartbeat_interval_s
    return policy.lease_s - policy.heartbeat_interval_s - policy.kill_budget_s


def overlap_s(policy: Policy, *, unguarded_s: float = 0.0) -> float:
    """How long both may run. With an arbiter 0, as long as agent or guard is there at the deadline.

    `unguarded_s`: both are away for so long, just then: their absence, and the kill when they are
    back (G3). Without an arbiter, under `availability`, as long as the wire is cut; unless a fence
    command makes sure of the peer first.
    """
    if policy.requires_lease:
        return unguarded_s + policy.kill_budget_s if unguarded_s else 0.0
    waits = policy.partition_policy is PartitionPolicy.CONSISTENCY
    return 0.0 if waits or policy.has_fence else NEVER_S


def fits(policy: Policy, measured: Measured) -> bool:
    """Do these machines keep up with such a lease?

    Three beats in a row must be answered in time before the stop begins, each a round trip and a
    save later than it is due: `T·(1-d) >= stop_budget + 3·interval + rtt + fsync + w`. And a kill
    must be over within its budget though it begins late: `kill_budget >= kill + w`.
    """
    late_s = measured.rtt_s + measured.fsync_s + measured.wake_s
    needed_s = policy.stop_budget_s + 3 * policy.heartbeat_interval_s + late_s
    kills = policy.kill_budget_s >= measured.kill_s + measured.wake_s
    return policy.lease_s >= needed_s and kills


def _silence_s(policy: Policy) -> float:
    """T·(1+d) of a clock that may be slow."""
    return policy.promise_length_s * (1 + policy.clock_drift)
