"""How a node begins: from its record, on this boot or a new one (design, section 6, V4)."""

from __future__ import annotations

from dataclasses import dataclass

from failover_agent.core import voter
from failover_agent.core.policy import Policy
from failover_agent.core.state import (
    NEVER,
    Containers,
    ContainerView,
    Durable,
    Holder,
    PeerView,
    Phase,
    Reason,
    State,
)


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The agent before this one, as the guard knows it: until when its lease runs, and whether the
    guard had to enforce the end of it, on that agent and its containers.
    """

    lease_until_s: float = NEVER
    was_enforced: bool = False


NOBODY = Predecessor()


def begin(
    policy: Policy,
    *,
    node_id: str,
    run_id: str,
    durable: Durable,
    record_lost: bool,
    boot_is_new: bool,
    now: float,
    before: Predecessor = NOBODY,
) -> State:
    """The first state of a process. Nothing is touched before it is known who is active.

    `record_lost`: there was no usable record, so `durable` is empty and we may have promised
    anything: no candidacy is granted, our own included, until the longest lease we could have
    granted has passed (V4). A promise on hold stands across restarts (V8). `before`: by the guard's
    file (H6, G3). After a kill the peer goes first for T, and the guard is left armed (G2); it has
    our vote at once, since the record names us: we promised nobody else anything, and lead no more.
    """
    assert not (record_lost and durable.term), "a lost record says nothing"
    is_own = durable.holder == Holder(policy.role, node_id)
    mine = voter.begin(
        durable,
        now,
        timeout_s=policy.heartbeat_timeout_s,
        forgot=record_lost,
        is_own=is_own,
    )
    recovers = before.was_enforced and policy.requires_lease
    lease_runs = not policy.requires_lease or now < before.lease_until_s - policy.kill_budget_s
    return State(
        role=policy.role,
        node_id=node_id,
        run_id=run_id,
        may_resume=not boot_is_new and lease_runs,
        boot_is_new=boot_is_new,
        durable=durable,
        phase=Phase.STARTING,
        reason=Reason.AGENT_STARTED,
        since_s=now,
        started_at_s=now,
        stepped_at_s=now,
        next_beat_at_s=now,
        peers={
            role: PeerView(role=role, silent_since_s=now)
            for role in policy.voters
            if role is not policy.role
        },
        containers=Containers(ContainerView(name=name) for name in policy.containers),
        promise=mine.promise,
        grants_after_s=now if recovers and is_own else mine.grants_after_s,
        forgot=mine.forgot,
        is_first=durable.holder is None and before == NOBODY,
        lease_until_s=before.lease_until_s,
        recovers_at_s=now + policy.heartbeat_timeout_s if recovers else NEVER,
        is_guard_armed=policy.requires_lease or before != NOBODY,
    )
