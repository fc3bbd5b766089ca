"""GET /v1/status: what a node says of itself (design, section 8). Pure, and total for every state.

Scripts rely on these names: fields are added, and never changed. What is unknown is null. Moments
stay inside; what is told is how long ago they were, in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from failover_agent.core import following, leases, paths, reports
from failover_agent.core.policy import Policy, Role
from failover_agent.core.state import (
    ContainerState,
    ContainerView,
    PeerView,
    Phase,
    Readiness,
    State,
)
from failover_agent.protocol.envelope import PROTOCOL


def status_of(
    state: State,
    policy: Policy,
    now: float,
    *,
    cluster: str,
    version: str,
    pid: int,
    rejected: Mapping[str, int],
    arbiter_kind: str | None = None,
) -> dict[str, Any]:
    """The whole status. `rejected`: how many messages were refused, by error code."""
    not_ready = not_ready_because(state, policy, now)
    lost_because = redundancy_lost_because(state, policy, now)
    return {
        "cluster": cluster,
        "role": state.role,
        "node_id": state.node_id,
        "phase": state.phase,
        "term": state.durable.term if state.held_term is None else state.held_term,
        "reason": state.reason,
        "since_s": _ago(state.since_s, now),
        "version": version,
        "protocol": PROTOCOL,
        "pid": pid,
        "paused": None,
        "drained": None,
        "held": _held(state, now),
        "lease": _lease(state, policy, now),
        "ready": not not_ready,
        "not_ready_because": list(not_ready),
        "failed_because": state.failed_because or None,
        "refused_because": state.refused_because or None,
        "peer": _peer(policy.others[0], state, policy, now) if policy.others else None,
        "arbiter": _arbiter(state, policy, now, arbiter_kind),
        "waits": _waits(state, policy, now),
        "left_running": list(following.left_running(state, now, policy)),
        "engine": {"reachable": state.engine.reachable, "error": state.engine.error or None},
        "containers": [
            _container(state.containers.get(name, ContainerView(name)), now)
            for name in policy.containers
        ],
        "redundancy": {"ok": not lost_because, "lost_because": list(lost_because)},
        "alarms": [
            {"code": alarm.code, "sentence": alarm.sentence, "since_s": _ago(alarm.since_s, now)}
            for alarm in state.alarms.values()
        ],
        "overlap": _overlap(state, now),
        "counters": {
            "promotions": state.counters.promotions,
            "overlaps": state.counters.overlaps,
            "stale": state.counters.stale,
            "rejected": dict(sorted(rejected.items())),
        },
    }


def not_ready_because(state: State, policy: Policy, now: float) -> tuple[str, ...]:
    """Why this node is not what it should be; empty for an active one with all containers up, and
    for a standby that could take over (GET /readyz).
    """
    if state.phase is Phase.ACTIVE:
        views = [state.containers.get(name, ContainerView(name)) for name in policy.containers]
        return tuple(
            f"{view.name} is {view.state}: {view.detail}"
            for view in views
            if view.state is not ContainerState.UP
        )
    if state.phase is Phase.STANDBY:
        return reports.readiness(state, now, policy)[1]
    return (f"this node is {state.phase}",)


def redundancy_lost_because(state: State, policy: Policy, now: float) -> tuple[str, ...]:
    """Why the next failure would be an outage: one sentence for each member that could not help."""
    because: list[str] = []
    if not state.is_holding:
        readiness, reasons = reports.readiness(state, now, policy)
        if readiness is not Readiness.READY:
            because.append(f"this node is not ready: {'; '.join(reasons)}")
    for role in policy.others if policy.arbiter is None else (*policy.others, policy.arbiter):
        view = state.peers.get(role, PeerView(role))
        if not is_reachable(view, policy, now):
            never = "" if view.heard_at_s is not None else ", and never was since this agent began"
            error = f" ({view.error})" if view.error else ""
            because.append(f"the {role} is not heard{never}{error}")
        elif not view.holding and _is_ready(view) is False:
            because.append(f"the {role} is not ready: {'; '.join(reports.why_not_ready(view))}")
        because += [
            f"one of the paths to the {role} is lost: {path.endpoint} ({path.error})"
            for path in paths.lost(view, now, policy)
        ]
    return tuple(because)


def _is_ready(view: PeerView) -> bool | None:
    """Could it take over, by its own word? None: it has not told."""
    if view.readiness is None:
        return None
    return view.readiness is Readiness.READY and not reports.is_ending(view)


def is_reachable(view: PeerView, policy: Policy, now: float) -> bool:
    """Was it heard within heartbeat_timeout?"""
    return view.heard_at_s is not None and now - view.heard_at_s < policy.heartbeat_timeout_s


def _peer(role: Role, state: State, policy: Policy, now: float) -> dict[str, Any]:
    view = state.peers.get(role, PeerView(role))
    was_heard = view.heard_at_s is not None
    return {
        "role": role,
        "reachable": is_reachable(view, policy, now),
        "phase": view.phase,
        "term": view.term,
        "heartbeat_age_s": _ago(view.heard_at_s, now),
        "ready": _is_ready(view),
        "not_ready_because": list(reports.why_not_ready(view)) if was_heard else None,
        "node_id": view.node_id,
        "health": view.health if view.holding else None,
        "error": view.error or None,
        "paths": _paths(view, now),
        "running": view.running,
        "released_term": view.released_term or None,
        "ending": reports.is_ending(view),
    }


def _waits(state: State, policy: Policy, now: float) -> dict[str, Any] | None:
    """For whom a node that starts waits, and by which setting; None where it does not.

    `remaining_s` is null where only the peer, or an operator, ends the wait.
    """
    wait = following.wait_for_the_peer(state, now, policy)
    if wait is None:
        return None
    setting, until_s = wait
    return {
        "for": policy.others[0],
        "setting": setting,
        "remaining_s": None if until_s is None else round(until_s - now, 3),
    }


def _arbiter(state: State, policy: Policy, now: float, kind: str | None) -> dict[str, Any] | None:
    """Its `kind` is that of the configuration: to the core a witness and etcd are alike."""
    if policy.arbiter is None:
        return None
    view = state.peers.get(policy.arbiter, PeerView(policy.arbiter))
    return {
        "kind": kind or policy.arbiter,
        "reachable": is_reachable(view, policy, now),
        "error": view.error or None,
        "paths": _paths(view, now),
    }


def _paths(view: PeerView, now: float) -> list[dict[str, Any]] | None:
    """The ways to it, in the order of the configuration; null for an etcd, which has members.

    `reachable` null: nothing has come of it yet. `silent_for_s`: while it does not answer.
    """
    return [
        {
            "endpoint": path.endpoint,
            "reachable": path.is_answering,
            "silent_for_s": _ago(path.silent_since_s, now),
            "error": path.error or None,
        }
        for path in view.paths
    ] or None


def _lease(state: State, policy: Policy, now: float) -> dict[str, Any]:
    """`remaining_s` is null while the lease is on hold, and has no end."""
    if not policy.requires_lease:
        return {"required": False, "held": None, "remaining_s": None, "votes": []}
    until_s = leases.valid_until_s(state, policy)
    remaining_s = until_s - now if math.isfinite(until_s - now) else None
    return {
        "required": True,
        "held": state.is_holding and now < until_s,
        "remaining_s": None if remaining_s is None else round(max(0.0, remaining_s), 3),
        "votes": list(leases.voters(state, policy, now)),
    }


def _held(state: State, now: float) -> dict[str, Any] | None:
    """The hold that stands (V8): the one we promised, or the one that we leave behind."""
    leaves = state.is_holding and state.stopping is not None and state.stopping.leave
    if not leaves and not state.durable.hold:
        return None
    holder = state.me if leaves else state.durable.holder
    alarm = state.alarms.get("held")
    return {
        "by": None if holder is None else holder.role,
        "since_s": None if alarm is None else _ago(alarm.since_s, now),
    }


def _container(view: ContainerView, now: float) -> dict[str, Any]:
    is_down = view.state is ContainerState.DOWN
    return {
        "name": view.name,
        "state": view.state,
        "detail": view.detail,
        "down_for_s": _ago(view.down_since_s, now) if is_down else None,
        "restarts": view.restarts,
    }


def _overlap(state: State, now: float) -> dict[str, Any] | None:
    """The last time two actives met: how long ago that began, and how long it lasted, if it did."""
    overlap = state.overlap
    if overlap is None:
        return None
    ended_at_s = overlap.ended_at_s
    return {
        "since_s": _ago(overlap.began_at_s, now),
        "lasted_s": None if ended_at_s is None else _ago(overlap.began_at_s, ended_at_s),
    }


def _ago(moment_s: float | None, now: float) -> float | None:
    """How long ago, to the millisecond; None for never, and for what is not a moment at all."""
    if moment_s is None or not math.isfinite(now - moment_s):
        return None
    return round(max(0.0, now - moment_s), 3)
