"""A node that does not lead: silence, candidacy, strays (design, sections 4 and 6).

`advance` is called after every event; it looks at the facts and does what is due. How a candidate
asks is candidate.py's.
"""

from __future__ import annotations

from collections.abc import Iterator

from failover_agent.core import candidate, fencing, leading, reports, votes
from failover_agent.core.changing import replace
from failover_agent.core.effects import DisarmGuard, StopContainers
from failover_agent.core.policy import LoneStart, Policy
from failover_agent.core.state import (
    Overlap,
    PeerView,
    Phase,
    Readiness,
    Reason,
    State,
)
from failover_agent.core.turn import Turn


def advance(turn: Turn) -> None:
    """Do what is due in starting, standby or acquiring."""
    _watch_for_a_leader(turn)
    _watch_for_a_past(turn)
    state = turn.state
    if state.phase is Phase.STARTING:
        leading.return_from_hold(turn)
        _look_around(turn)
    if turn.policy.requires_lease or turn.state.phase is Phase.STANDBY:
        _stop_strays(turn)
    if turn.state.phase in (Phase.STARTING, Phase.STANDBY):
        reason = wants_to_lead(turn.state, turn.now, turn.policy)
        if reason is not None:
            candidate.begin(turn, reason)
    if turn.state.candidacy is not None:
        candidate.pursue(turn)
    _disarm_guard(turn)


def _disarm_guard(turn: Turn) -> None:
    """G1, G2: a guard that kills, or would, ends with the word that everything is stopped.

    One that had to kill goes on for a while: a start that the killed agent ordered may still be on
    its way through the engine.
    """
    state = turn.state
    if turn.now < state.recovers_at_s and state.stopping is None:
        return
    if state.is_guard_armed and not state.is_holding and reports.is_stopped(state):
        turn.state = replace(state, is_guard_armed=False, guarded=None)
        turn.emit(DisarmGuard(term=state.durable.term))


def _watch_for_a_leader(turn: Turn) -> None:
    """Note since when nobody has been seen to lead; an invitation ends when somebody does."""
    state = turn.state
    if reports.holders(state, turn.now, turn.policy):
        noted = (state.leaderless_at_s, state.invitation, state.refusals, state.refused_because)
        if noted != (None, None, 0, ""):
            turn.state = replace(
                state, leaderless_at_s=None, invitation=None, refusals=0, refused_because=""
            )
    elif state.leaderless_at_s is None:
        turn.state = replace(state, leaderless_at_s=turn.now)


def _watch_for_a_past(turn: Turn) -> None:
    """Note that somebody was granted a term before: this pair is not led for the first time."""
    state = turn.state
    if not state.is_first:
        return
    told = (peer.term or 0 for peer in state.peers.values())
    if max(told) > state.durable.term:
        turn.state = replace(state, is_first=False)


def _look_around(turn: Turn) -> None:
    """Starting: become standby once somebody leads, or one that goes first is able to."""
    if reports.holders(turn.state, turn.now, turn.policy):
        turn.enter(Phase.STANDBY, Reason.PEER_ACTIVE)
    elif turn.state.engine.reachable and _is_outranked(turn.state, turn.now, turn.policy):
        was_killed = turn.now < turn.state.recovers_at_s
        turn.enter(Phase.STANDBY, Reason.GUARD_KILL if was_killed else Reason.PEER_PREFERRED)


def _claim(
    is_ready: bool, last_held: int, running: int | None, preference: int
) -> tuple[bool, int, bool, int]:
    """The order of section 6: the last holder, where the containers already run, the preferred.

    One whose last start failed, whose guard had to kill, or whose containers differ, comes after
    one that is ready.
    """
    return (is_ready, last_held, bool(running), preference)


def goes_before(state: State, now: float, policy: Policy, peer: PeerView) -> bool:
    """Would `peer` go before this node if neither leads? Both nodes find the same answer."""
    durable = state.durable
    mine = _claim(
        reports.readiness(state, now, policy)[0] is Readiness.READY,
        durable.term if durable.holder == state.me and not durable.released else 0,
        reports.running(state),
        policy.preference(state.role),
    )
    theirs = _claim(
        peer.readiness is Readiness.READY,
        (peer.term or 0) if peer.holder is peer.role and not peer.released else 0,
        peer.running,
        policy.preference(peer.role),
    )
    return theirs > mine


def _is_outranked(state: State, now: float, policy: Policy) -> bool:
    """Is there a member that goes first and is able to?"""
    return any(
        reports.is_able(peer, now, policy) and goes_before(state, now, policy, peer)
        for peer in reports.members(state, policy)
    )


def _stop_strays(turn: Turn) -> None:
    """A managed container that runs on a standby is stopped, once somebody else has the service.

    While nobody leads and nobody who goes first could, nothing is stopped (S5). With a lease it may
    run under none, so it is stopped at once (G3).
    """
    state = turn.state
    names = state.containers.alive
    may_stay = _may_run_on(state, turn.now, turn.policy)
    if not names or may_stay or state.stop_job is not None or turn.now < state.retry_at_s:
        return
    names = tuple(reversed(names))
    turn.state = replace(state, stop_job=state.durable.term, stop_names=names)
    for peer in reports.holders(state, turn.now, turn.policy):
        _note_overlap(turn, peer, names)
    grace_s = 0.0 if turn.policy.requires_lease else None
    turn.emit(StopContainers(term=state.durable.term, names=names, grace_s=grace_s))


def _may_run_on(state: State, now: float, policy: Policy) -> bool:
    """May a container stay that runs here though this node leads in no term?"""
    if policy.requires_lease:
        return reports.asks_to_resume(state) or _may_run_without_lease(state, now, policy)
    leaders = reports.holders(state, now, policy)
    serving = [peer for peer in leaders if reports.serves(peer.phase, peer.running)]
    return not (serving or (not leaders and _is_outranked(state, now, policy)))


def _may_run_without_lease(state: State, now: float, policy: Policy) -> bool:
    """G3: only while every other member itself answers that it does not lead, nor asks to.

    Not what Docker started after a reboot, since nobody gave leave for it. Before the pair was ever
    led, a service was there before its agents: it runs on while a voter is not up yet.
    """
    if state.boot_is_new:
        return False
    if state.is_first and _is_unheard_or_here(state, now, policy):
        return True
    idle = (Phase.STARTING, Phase.STANDBY)
    return all(
        reports.is_heard_lately(peer, now, policy) and peer.phase in idle
        for peer in reports.members(state, policy)
    )


def _is_unheard_or_here(state: State, now: float, policy: Policy) -> bool:
    """Is no other voter one that was heard, and is not any more, or a member that asks to lead?"""
    calm = (None, Phase.STARTING, Phase.STANDBY)
    return all(
        peer.heard_at_s is None
        or (reports.is_heard_lately(peer, now, policy) and peer.phase in calm)
        for peer in state.peers.values()
    )


def left_running(state: State, now: float, policy: Policy) -> tuple[str, ...]:
    """For people: what runs here though this node leads in no term, is not being stopped, and runs
    nowhere else as far as is known.
    """
    stops = policy.requires_lease or state.phase is Phase.STANDBY
    is_ordered = state.is_holding or state.stop_job is not None
    if is_ordered or (stops and not _may_run_on(state, now, policy)):
        return ()
    members = reports.members(state, policy)
    runs_here_alone = not any(_may_run_it(peer, state, now, policy) for peer in members)
    return state.containers.alive if runs_here_alone else ()


def _may_run_it(peer: PeerView, state: State, now: float, policy: Policy) -> bool:
    """Does `peer`, by its last word, run something, or may it since?"""
    if peer.heard_at_s is not None:
        return peer.running != 0 or not reports.is_reachable(peer, now, policy)
    holder = state.durable.holder
    return holder is not None and holder.role is peer.role and not state.durable.released


def _note_overlap(turn: Turn, peer: PeerView, names: tuple[str, ...]) -> None:
    """Containers run here though `peer` leads: both run, at the latest since they were seen.

    What ran already at the first look ran through this agent's absence: since the peer began.
    """
    state = turn.state
    if state.overlap is not None and state.overlap.ended_at_s is None:
        return
    seen_at_s = min(state.containers[name].up_since_s or turn.now for name in names)
    if seen_at_s - state.started_at_s < turn.policy.heartbeat_timeout_s:
        seen_at_s = state.started_at_s if peer.leading_at_s is None else peer.leading_at_s
    counters = state.counters
    turn.state = replace(
        state,
        overlap=Overlap(began_at_s=seen_at_s),
        counters=replace(counters, overlaps=counters.overlaps + 1),
    )


def may_ask(state: State, now: float, policy: Policy) -> bool:
    """Is there nothing about this node itself that forbids a candidacy now?"""
    return (
        state.stopping is None
        and state.stop_job is None
        and not state.durable.hold
        and now >= state.ask_again_at_s
        and votes.own_candidacy_is_free(state, now)
        and not reports.cannot_because(state, now, policy)
    )


def wants_to_lead(state: State, now: float, policy: Policy) -> Reason | None:
    """Should this node ask to be active now, and why (section 6)?"""
    if not may_ask(state, now, policy) or reports.holders(state, now, policy):
        return None
    if policy.requires_lease and reports.asks_to_resume(state):
        return None  # The lease of the agent before this one runs: it is taken up, or it ends (H6).
    if not candidate.could_win(state, now, policy):
        return None
    if state.invitation is not None:
        return state.invitation
    if now < state.stand_back_until_s:
        return None
    if _alone(state, now, policy):
        return _reason_alone(state, now, policy)
    waits = [
        peer for peer in reports.members(state, policy) if not reports.abstains(peer, now, policy)
    ]
    if reports.asks_to_resume(state) and waits:
        return None
    if any(reports.is_reachable(peer, now, policy) for peer in reports.members(state, policy)):
        return _reason_together(state, now, policy)
    return None


def _alone(state: State, now: float, policy: Policy) -> bool:
    """Are all other members silent?"""
    return all(reports.is_silent(peer, now, policy) for peer in reports.members(state, policy))


def _reason_alone(state: State, now: float, policy: Policy) -> Reason | None:
    """Everybody else is silent: takeover on silence, or a lone start after a boot."""
    if state.phase is Phase.STARTING and not policy.requires_lease:
        if now < starts_alone_at_s(state, policy):
            return None
        if not knows_its_pair(state, policy):
            return None
    if state.is_first and policy.requires_lease and not knows_its_pair(state, policy):
        return None
    if not policy.requires_lease and not candidate.silence_is_leave(state, policy):
        return None
    return Reason.FIRST_START if state.durable.term == 0 else Reason.PEER_SILENT


def starts_alone_at_s(state: State, policy: Policy) -> float:
    """When, after a boot, a node of a plain pair may start alone.

    Where it would fence its peer first, the one that goes second waits one T more: two nodes that
    boot together must not fence each other.
    """
    at_s = state.started_at_s + policy.startup_grace_period_s
    second = policy.has_fence and policy.role is not policy.members[0]
    return at_s + (policy.heartbeat_timeout_s if second else 0.0)


def wait_for_the_peer(state: State, now: float, policy: Policy) -> tuple[str, float | None] | None:
    """For people: by which setting a node of a plain pair that starts waits to hear its peer, and
    until when, None for ever; None where it waits for nothing of that kind.
    """
    if policy.requires_lease or state.phase is not Phase.STARTING or state.durable.hold:
        return None
    if reports.cannot_because(state, now, policy):
        return None
    members = reports.members(state, policy)
    if any(reports.is_reachable(peer, now, policy) for peer in members):
        return None
    if not knows_its_pair(state, policy):
        return "lone_start", None
    if not candidate.silence_is_leave(state, policy):
        return "partition_policy", None
    ends = [(starts_alone_at_s(state, policy), "startup_grace_period")]
    ends += [(reports.silent_at_s(peer, policy), "heartbeat_timeout") for peer in members]
    at_s, setting = max(ends)
    return (setting, at_s) if now < at_s else None


def knows_its_pair(state: State, policy: Policy) -> bool:
    """May this node start alone: is it the preferred one, or has it heard those before it once?"""
    if state.led_and_kept or fencing.needs(policy):
        return True
    before = policy.members[: policy.members.index(state.role)]
    return policy.lone_start is LoneStart.START or all(
        role in state.durable.heard for role in before
    )


def _reason_together(state: State, now: float, policy: Policy) -> Reason | None:
    """The others answer and nobody leads: the first in order asks, the other waits for it."""
    if _is_outranked(state, now, policy) and now < _turn_comes_at_s(state, policy):
        return None
    members = reports.members(state, policy)
    if state.durable.term or any(peer.term for peer in members):
        return Reason.NOBODY_ACTIVE
    if any(_may_run_it_already(state, now, policy, peer) for peer in members):
        return None
    return Reason.FIRST_START


def _may_run_it_already(state: State, now: float, policy: Policy, peer: PeerView) -> bool:
    """Before the first start: has `peer`, preferred to this node, yet to look what runs there?"""
    is_preferred = policy.preference(peer.role) > policy.preference(state.role)
    unknown = peer.running is None and not reports.running(state)
    return is_preferred and unknown and reports.is_reachable(peer, now, policy)


def _turn_comes_at_s(state: State, policy: Policy) -> float:
    """When the one that goes first, though able, has had its time to ask (section 6).

    It has none before it is there: then it is counted from when this node began to stand back, and
    is enough for one without a record, which may not ask for a lease's length (V4).
    """
    since_s = max(state.leaderless_at_s or state.started_at_s, state.grants_after_s)
    time_s = max(policy.startup_grace_period_s, policy.patience_s)
    if state.reason not in (Reason.PEER_PREFERRED, Reason.GUARD_KILL):
        return since_s + time_s
    return max(since_s, state.since_s) + max(time_s, policy.promise_length_s + policy.patience_s)


def moments_s(state: State, policy: Policy) -> Iterator[float | None]:
    """The moments at which something here becomes due; None where nothing will."""
    if state.is_holding:
        return
    yield state.grants_after_s
    yield state.stand_back_until_s
    yield state.ask_again_at_s
    yield state.retry_at_s
    yield state.recovers_at_s
    yield starts_alone_at_s(state, policy)
    if state.promise is not None:
        yield state.promise.until_s
    yield _turn_comes_at_s(state, policy)
    for peer in state.peers.values():
        yield reports.silent_at_s(peer, policy)
        yield peer.promised_until_s
        if peer.heard_at_s is not None:
            yield peer.heard_at_s + policy.patience_s
