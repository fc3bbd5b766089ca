"""The open conditions of a node: a code, a sentence, a start; derived after each step.

A sentence holds no running number, so that an alarm is one condition from its start to its end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from failover_agent.core import candidate, containers, following, leases, paths, reports
from failover_agent.core.changing import replace
from failover_agent.core.managed import some
from failover_agent.core.policy import Policy, Role
from failover_agent.core.state import (
    FOREVER,
    Alarm,
    Fencing,
    Health,
    PeerView,
    Phase,
    Readiness,
    State,
)
from failover_agent.core.turn import Turn

IF_OFF = "if it is off for good: failover-agent takeover --peer-is-off"


def refresh(turn: Turn) -> None:
    """Open the alarms whose condition holds and end the others; one that stays keeps its start."""
    before = turn.state.alarms
    after: dict[str, Alarm] = {}
    for name, sentence in _conditions(turn.state, turn.now, turn.policy):
        since_s = before[name].since_s if name in before else turn.now
        code = name.partition(" ")[0]
        after.setdefault(name, Alarm(code=code, sentence=sentence, since_s=since_s))
    if after != before:
        turn.state = replace(turn.state, alarms=after)


def _conditions(state: State, now: float, policy: Policy) -> Iterator[tuple[str, str]]:
    """Each under its code, and under "CODE WHICH" where there may be several of that code."""
    yield from _of_the_record(state)
    yield from _of_the_set_up(state, now, policy)
    yield from _of_the_paths(state, now, policy)
    if state.is_holding:
        yield from _of_a_leader(state, now, policy)
    else:
        yield from _of_a_follower(state, now, policy)
    yield from _of_the_engine(state)


def _of_the_record(state: State) -> Iterator[tuple[str, str]]:
    if state.record_error:
        yield "record_not_writable", f"the record cannot be written: {state.record_error}"
    if state.durable.on_hold_for_flapping:
        yield (
            "flapping",
            "max_failovers reached: container failures move nothing until failover-agent resume",
        )


def _of_the_set_up(state: State, now: float, policy: Policy) -> Iterator[tuple[str, str]]:
    for conflict in reports.open_conflicts(state, now, policy):
        which = f" {conflict.endpoint}" if paths.is_one_of_several(state, conflict.endpoint) else ""
        yield f"{conflict.kind}{which}", conflict.detail
    if reports.differing_fingerprint(state, policy):
        yield "fingerprint_differs", reports.FINGERPRINT_DIFFERS
    for peer in state.peers.values():
        names = differing_settings(peer, policy)
        if names:
            yield (
                "settings_differ",
                f"settings differ from those of the {peer.role}: {', '.join(names)}",
            )


def _of_the_paths(state: State, now: float, policy: Policy) -> Iterator[tuple[str, str]]:
    """One that leads astray has its alarm, and a peer that is silent altogether too."""
    astray = {one.endpoint for one in reports.open_conflicts(state, now, policy)}
    for peer in state.peers.values():
        for path in paths.lost(peer, now, policy):
            if path.endpoint not in astray:
                yield f"path_lost {path.endpoint}", paths.why_lost(peer, path)


def differing_settings(peer: PeerView, policy: Policy) -> tuple[str, ...]:
    """The names of the settings that should be equal on both nodes and are not."""
    profile = peer.profile
    if profile is None or not profile.settings or profile.settings == policy.settings:
        return ()
    theirs: Mapping[str, str] = dict(profile.settings)
    return tuple(name for name, value in policy.settings if theirs.get(name) != value)


def _of_a_leader(state: State, now: float, policy: Policy) -> Iterator[tuple[str, str]]:
    lost = [_why_no_redundancy(state, role, now, policy) for role in policy.others]
    lost.append(_why_no_arbiter(state, now, policy))
    if any(lost):
        yield "redundancy_lost", "; ".join(filter(None, lost))
    yield from _of_the_guard(state, policy)
    if state.overlap is not None and state.overlap.ended_at_s is None:
        yield "two_actives", "the peer is active too: the lower term stops at once"
    if state.phase is not Phase.PROMOTING:
        down = containers.beyond_repair(state, now, policy)
        if down:
            yield "container_down", f"down beyond restart_grace_period: {', '.join(some(down))}"
    if state.phase is Phase.FAILED:
        yield "failed", f"not everything could be started or stopped: {state.failed_because}"
    if containers.is_service_lost_with_engine(state, now, policy):
        yield "service_lost", "the Docker Engine is gone and no container is seen to run"
    if state.stopping is not None and state.stopping.leave:
        yield "held", "the agent stops and leaves the containers running"


def _of_the_guard(state: State, policy: Policy) -> Iterator[tuple[str, str]]:
    if state.guard_error and not leases.is_guarded(state, policy):
        yield "guard_lost", f"nothing is started without the guard: {state.guard_error}"
    if state.fencing is not None and state.fencing.error:
        yield _fence_failed(state.fencing)


def _fence_failed(fencing: Fencing) -> tuple[str, str]:
    return "fence_failed", f"fence_command did not fence the {fencing.target}: {fencing.error}"


def _why_no_arbiter(state: State, now: float, policy: Policy) -> str:
    """The third vote is missing: one more loss, and nobody may lead."""
    if policy.arbiter is None:
        return ""
    peer = state.peers[policy.arbiter]
    settled_in = now - state.started_at_s >= policy.promise_length_s
    if reports.is_reachable(peer, now, policy) or not (peer.heard_at_s or settled_in):
        return ""
    detail = f" ({peer.error})" if peer.error else ""
    return f"nothing is heard from the arbiter{detail}"


def _why_no_redundancy(state: State, role: Role, now: float, policy: Policy) -> str:
    peer = state.peers[role]
    if not reports.is_reachable(peer, now, policy):
        detail = f" ({peer.error})" if peer.error else ""
        return f"nothing is heard from the {peer.role}{detail}"
    if peer.readiness is not Readiness.READY or reports.is_ending(peer):
        return f"the {peer.role} is not ready: {'; '.join(reports.why_not_ready(peer))}"
    return ""


def _of_a_follower(state: State, now: float, policy: Policy) -> Iterator[tuple[str, str]]:
    readiness, because = reports.readiness(state, now, policy)
    settled_in = now - state.started_at_s > policy.heartbeat_interval_s
    if readiness is not Readiness.READY and settled_in:
        yield "not_ready", "; ".join(because)
    if lost := _why_no_arbiter(state, now, policy):
        yield "redundancy_lost", lost
    if state.fencing is not None and state.fencing.error:
        yield _fence_failed(state.fencing)
    if state.durable.hold:
        yield "held", _why_held(state)
    if state.overlap is not None and state.overlap.ended_at_s is None:
        yield "two_actives", "containers run here though the peer is active: they are being stopped"
    if strays := _strays(state, now, policy):
        yield "stray_container", f"runs on a standby: {', '.join(some(strays))}"
    if not any(reports.is_reachable(state.peers[role], now, policy) for role in policy.others):
        yield from _of_a_lone_follower(state, now, policy)
    elif state.refused_because and _is_leaderless_too_long(state, now, policy):
        yield "nobody_active", f"nobody is active, and {state.refused_because}"
    for role in policy.others:
        peer = state.peers[role]
        serves = reports.is_holding(peer, now, policy) and peer.phase is not Phase.PROMOTING
        if not serves or peer.phase is Phase.DEMOTING:
            continue
        if peer.health is Health.DEGRADED:
            yield "peer_degraded", f"a container is down on the {peer.role}"
        if peer.health is Health.UNKNOWN:
            yield "peer_degraded", f"the {peer.role} cannot see its containers: its engine is gone"


def _strays(state: State, now: float, policy: Policy) -> tuple[str, ...]:
    """What runs on a standby and should not. What goes on running until somebody leads is none, as
    long as every other member says that it runs nothing.
    """
    if state.phase is not Phase.STANDBY or not state.containers.alive:
        return ()
    members = reports.members(state, policy)
    all_tell = all(reports.is_reachable(peer, now, policy) for peer in members)
    is_fine = all_tell and following.left_running(state, now, policy)
    return () if is_fine else state.containers.alive


def _is_leaderless_too_long(state: State, now: float, policy: Policy) -> bool:
    assert state.leaderless_at_s is not None, "a refusal is forgotten when somebody leads"
    patience_s = policy.startup_grace_period_s + policy.promise_length_s
    return now >= max(state.leaderless_at_s, state.grants_after_s) + patience_s


def _why_held(state: State) -> str:
    holder = state.durable.holder
    assert holder is not None
    peer = state.peers.get(holder.role)
    if peer is not None and peer.node_id not in (None, holder.node_id):
        return (
            f"the {holder.role} that left its containers running has lost its record:"
            f" failover-agent takeover --peer-is-off on the {holder.role} ends the hold"
        )
    return f"the {holder.role} left its containers running: no takeover until it is back; {IF_OFF}"


def _of_a_lone_follower(state: State, now: float, policy: Policy) -> Iterator[tuple[str, str]]:
    if now - state.started_at_s < policy.promise_length_s:
        return
    roles: tuple[Role, ...] = policy.others
    details = [
        f"the {role} ({error})" if (error := state.peers[role].error) else f"the {role}"
        for role in roles
    ]
    yield "peer_silent", f"nothing is heard from {' and '.join(details)}"
    is_new = state.is_first if policy.requires_lease else state.phase is Phase.STARTING
    if is_new and not following.knows_its_pair(state, policy):
        yield (
            "waiting_for_primary",
            f"has never heard the primary, so it does not start alone (lone_start); {IF_OFF}",
        )
    elif policy.requires_lease:
        yield from _of_no_majority(state, now, policy)
    elif not candidate.silence_is_leave(state, policy):
        yield (
            "waiting_for_release",
            f"nobody may take over on silence under this partition_policy; {IF_OFF}",
        )


def _of_no_majority(state: State, now: float, policy: Policy) -> Iterator[tuple[str, str]]:
    """The peer is silent, and this node cannot lead: who keeps it from it?"""
    assert policy.arbiter is not None
    arbiter = state.peers[policy.arbiter]
    if not reports.is_reachable(arbiter, now, policy):
        yield "no_majority", "neither the peer nor the arbiter is heard: this node may not lead"
    elif arbiter.promised_to not in (None, state.me) and now < arbiter.promised_until_s:
        assert arbiter.promised_to is not None
        role = arbiter.promised_to.role
        if arbiter.promised_until_s == FOREVER:
            yield (
                "held",
                f"the arbiter holds for the {role}: no takeover until it is back; {IF_OFF}",
            )
        else:
            yield (
                "peer_unheard",
                f"the arbiter hears the {role}, which leads, and this node does not",
            )


def _of_the_engine(state: State) -> Iterator[tuple[str, str]]:
    if state.engine.reachable is False:
        yield "engine_lost", f"the Docker Engine does not answer: {state.engine.error}"
    if state.engine.withheld:
        yield "engine_withholds", f"a container's death is seen late: {state.engine.withheld}"
    if state.engine.policy_error and state.containers.self_starting:
        why = f"its restart policy could not be set to no: {state.engine.policy_error}"
        yield "restart_policy", f"after a boot Docker may start a container by itself: {why}"
