"""How a node begins: from its record, on this boot or a new one (design, section 6, V4)."""

from __future__ import annotations

from failover_agent.core.policy import Policy
from failover_agent.core.state import (
    FOREVER,
    ContainerView,
    Durable,
    PeerView,
    Phase,
    Promise,
    Reason,
    State,
)


def begin(
    policy: Policy,
    *,
    node_id: str,
    run_id: str,
    durable: Durable,
    record_lost: bool,
    boot_is_new: bool,
    now: float,
) -> State:
    """The first state of a process. Nothing is touched before it is known who is active.

    `record_lost`: there was no usable record, so `durable` is empty and we may have promised
    anything: no candidacy is granted, our own included, until the longest lease we could have
    granted has passed (V4). A promise on hold stands across restarts (V8).
    """
    holder = durable.holder
    is_mine = holder is not None and holder.node_id == node_id and holder.role is policy.role
    assert not (record_lost and durable.term), "a lost record says nothing"
    if durable.term == 0:
        wait_s = max(durable.longest_lease_s, policy.heartbeat_timeout_s)
    else:
        wait_s = 0.0 if durable.released else durable.longest_lease_s
    on_hold = durable.hold and holder is not None and not is_mine
    return State(
        role=policy.role,
        node_id=node_id,
        run_id=run_id,
        may_resume=not boot_is_new,
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
        containers={name: ContainerView(name=name) for name in policy.containers},
        promise=Promise(holder, durable.term, FOREVER) if on_hold and holder is not None else None,
        grants_after_s=now + wait_s * (1 + policy.clock_drift),
    )
