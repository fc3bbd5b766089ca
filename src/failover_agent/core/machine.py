"""step(): one event in, a new state and orders out. It is total: any event, any phase.

The rule of every step: take the fact in (a handler an event), then do what is due (`advance`), then
bring the alarms up to date. Handlers of messages check the term first; what is stale changes
nothing but a counter. Time is a parameter; `next_deadline` tells when `Tick` matters next.

The phases, and which module moves a node through them:

    starting -> standby <-> acquiring            following.py
                             acquiring -> promoting -> active -> demoting -> standby      leading.py
                                          (failed: could not start, or could not confirm a stop)
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from failover_agent.core import (
    alarms,
    commands,
    containers,
    following,
    leading,
    releasing,
    reports,
    votes,
)
from failover_agent.core.effects import Reply, SendHeartbeat
from failover_agent.core.events import (
    AddressLost,
    CommandReceived,
    ConflictSeen,
    ContainerChanged,
    ContainerDied,
    ContainersObserved,
    ContainersStarted,
    ContainersStopped,
    EngineLost,
    Event,
    HeartbeatAnswered,
    HeartbeatFailed,
    HeartbeatReceived,
    RecordWritable,
    RecordWriteFailed,
    ReleaseAnswered,
    ReleaseFailed,
    ReleaseReceived,
    RepairFinished,
    RestartPolicySet,
    StartFailed,
    StopFailed,
    StopRequested,
    Tick,
    VoteAnswered,
    VoteFailed,
    VoteRequested,
)
from failover_agent.core.messages import LONGEST_LEASE_S, Beat, BeatAnswer
from failover_agent.core.plan import Step
from failover_agent.core.policy import Policy, Role
from failover_agent.core.state import HOLDING_PHASES, Conflict, Holder, Phase, State
from failover_agent.core.turn import Turn

__all__ = ["Step", "next_deadline", "step"]


def step(state: State, event: Event, now: float, policy: Policy) -> Step:
    """The new state and the orders that `event` leads to at `now` (CLOCK_BOOTTIME, seconds).

    Never raises for what the world does; a breach of a rule of the program is an AssertionError.
    """
    turn = Turn(state=state, now=now, policy=policy)
    _note_own_absence(turn)
    _take_in(turn, event)
    _advance(turn)
    alarms.refresh(turn)
    turn.state = replace(turn.state, stepped_at_s=now)
    return Step(turn.state, tuple(turn.effects), tuple(turn.transitions))


def _note_own_absence(turn: Turn) -> None:
    """Silence counts only while we ourselves ran: after an absence of T/2 it starts anew."""
    if turn.now - turn.state.stepped_at_s <= turn.policy.heartbeat_timeout_s / 2:
        return
    for peer in turn.state.peers.values():
        turn.set_peer(replace(peer, silent_since_s=turn.now))


def _speaker(event: Event) -> Role | None:
    """Whose message this is, None for what is no message."""
    match event:
        case HeartbeatReceived():
            return event.beat.sender.role
        case HeartbeatAnswered():
            return event.answer.beat.sender.role
        case VoteRequested() | ReleaseReceived():
            return event.request.sender.role
        case VoteAnswered() | VoteFailed() | ReleaseAnswered() | ReleaseFailed():
            return event.voter
        case HeartbeatFailed():
            return event.to
        case AddressLost():
            return event.peer
        case _:
            return None


def _take_in(turn: Turn, event: Event) -> None:
    speaker = _speaker(event)
    if speaker is not None and speaker not in turn.state.peers:
        turn.count_stale()
        return
    match event:
        case Tick() | VoteFailed() | ReleaseFailed():
            pass  # No answer is no vote; what is still wanted is said again with the next beat.
        case HeartbeatReceived():
            _on_heartbeat_received(turn, event)
        case HeartbeatAnswered():
            _on_heartbeat_answered(turn, event)
        case HeartbeatFailed():
            turn.set_peer(replace(turn.state.peers[event.to], error=event.error))
        case VoteRequested():
            _hear(turn, event.request.sender.role)
            votes.on_vote_requested(turn, event)
        case VoteAnswered():
            _hear(turn, event.voter)
            following.on_vote_answered(turn, event)
        case ReleaseReceived():
            _hear(turn, event.request.sender.role)
            votes.on_release(turn, event)
        case ReleaseAnswered():
            _hear(turn, event.voter)
            releasing.on_release_answered(turn, event)
        case ConflictSeen():
            _on_conflict(turn, event)
        case AddressLost():
            turn.set_peer(replace(turn.state.peers[event.peer], error=event.error))
        case ContainersObserved():
            containers.on_observed(turn, event)
        case ContainerChanged():
            containers.on_changed(turn, event)
        case ContainerDied():
            containers.on_died(turn, event)
        case EngineLost():
            containers.on_engine_lost(turn, event)
        case ContainersStarted():
            leading.on_started(turn, event)
        case StartFailed():
            leading.on_start_failed(turn, event)
        case RepairFinished():
            containers.on_repair_finished(turn, event)
        case ContainersStopped():
            releasing.on_stopped(turn, event)
        case StopFailed():
            releasing.on_stop_failed(turn, event)
        case RestartPolicySet():
            containers.on_restart_policy_set(turn, event)
        case RecordWriteFailed():
            turn.state = replace(turn.state, record_error=event.error)
        case RecordWritable():
            turn.state = replace(turn.state, record_error="")
        case StopRequested():
            commands.on_stop_requested(turn, event)
        case CommandReceived():
            commands.on_command(turn, event)
        case _:
            assert_never(event)


def _hear(turn: Turn, role: Role) -> None:
    """An authentic message of `role` arrived."""
    peer = turn.state.peers[role]
    turn.set_peer(replace(peer, heard_at_s=turn.now, error=""))
    durable = turn.state.durable
    may_note = turn.state.may_save and not turn.state.is_holding
    if may_note and role not in durable.heard:
        turn.set_durable(replace(durable, heard=durable.heard | {role}))


def _take_beat(turn: Turn, beat: Beat) -> None:
    """What a beat tells of its sender, in a request and in an answer alike."""
    role = beat.sender.role
    _hear(turn, role)
    leading_at_s = None if beat.leading_for_s is None else turn.now - beat.leading_for_s
    holds = beat.phase in HOLDING_PHASES and beat.renews
    is_late = holds and beat.term <= turn.state.peers[role].released_term
    if is_late:
        turn.count_stale()
    peer = replace(
        turn.state.peers[role],
        node_id=beat.sender.node_id,
        run_id=beat.sender.run_id,
        fingerprint=beat.sender.fingerprint,
        phase=beat.phase,
        term=beat.term,
        holding=holds and not is_late,
        holder=beat.holder,
        released=beat.released,
        leading_at_s=leading_at_s,
        health=beat.health,
        running=beat.running,
        readiness=beat.readiness,
        not_ready_because=beat.not_ready_because,
        may_lead=beat.may_lead,
        specs=beat.specs,
        settings=beat.settings,
    )
    turn.set_peer(peer)
    _wait_as_long_as_told(turn, beat)
    if peer.holding:
        if peer.phase is Phase.ACTIVE:
            turn.state = replace(turn.state, prepared_for=None)
        leading.on_peer_holding(turn, peer, beat)
        return
    leading.on_peer_not_holding(turn)
    if beat.holder is role and beat.released:
        known = turn.state.durable.released
        taken = votes.take_release(turn, Holder(role, beat.sender.node_id), beat.term)
        if taken and not known and turn.state.prepared_for is not None:
            votes.invite(turn, turn.state.prepared_for)


def _wait_as_long_as_told(turn: Turn, beat: Beat) -> None:
    """Without a record nothing is granted before the longest T, told by the others too, is over."""
    state = turn.state
    told_s = min(beat.lease_s, LONGEST_LEASE_S) * (1 + turn.policy.clock_drift)
    if state.durable.term == 0 and state.started_at_s + told_s > state.grants_after_s:
        turn.state = replace(state, grants_after_s=state.started_at_s + told_s)


def _on_heartbeat_received(turn: Turn, event: HeartbeatReceived) -> None:
    _take_beat(turn, event.beat)
    vote = votes.on_renewal(turn, event.beat)
    answer = BeatAnswer(beat=reports.beat(turn.state, turn.now, turn.policy), vote=vote)
    turn.emit(Reply(event.request_id, answer))


def _on_heartbeat_answered(turn: Turn, event: HeartbeatAnswered) -> None:
    _take_beat(turn, event.answer.beat)
    leading.on_renewal_answered(turn, event.to, event.term, event.answer)


def _on_conflict(turn: Turn, event: ConflictSeen) -> None:
    conflict = Conflict(
        kind=event.kind,
        detail=event.detail,
        seen_at_s=turn.now,
        node_id=event.node_id,
        holding=event.holding,
        may_lead=event.may_lead,
        received=event.received,
    )
    source = "received" if event.received else "endpoint"
    counters = turn.state.counters
    turn.state = replace(
        turn.state,
        conflicts={**turn.state.conflicts, f"{event.kind} {source}": conflict},
        counters=replace(counters, rejected=counters.rejected + 1),
    )


def _advance(turn: Turn) -> None:
    """Do what is due: lead or follow, then speak."""
    if turn.state.is_holding:
        leading.settle_raise(turn)
        leading.advance(turn)
    if not turn.state.is_holding:
        following.advance(turn)
    releasing.say_release(turn)
    _beat_if_due(turn)
    releasing.exit_if_due(turn)


def _beat_if_due(turn: Turn) -> None:
    """Beats go to every voter side by side, one an interval, whatever became of the last (H2)."""
    if turn.now < turn.state.next_beat_at_s:
        return
    interval_s = turn.policy.heartbeat_interval_s
    late = turn.now - turn.state.next_beat_at_s >= interval_s
    next_at_s = turn.now + interval_s if late else turn.state.next_beat_at_s + interval_s
    turn.state = replace(turn.state, next_beat_at_s=next_at_s)
    candidacy = turn.state.candidacy
    asked_before = candidacy is not None and candidacy.asked_at_s != turn.now
    if asked_before and not turn.state.is_holding:
        following.ask_voters(turn)
    beat = reports.beat(turn.state, turn.now, turn.policy)
    for role in turn.policy.voters:
        if role is not turn.state.role:
            turn.emit(SendHeartbeat(to=role, beat=beat, deadline_s=turn.policy.heartbeat_timeout_s))


def next_deadline(state: State, policy: Policy) -> float:
    """The next moment at which `Tick` matters: never more than one heartbeat interval away."""
    if state.next_beat_at_s <= state.stepped_at_s:
        return state.stepped_at_s  # Nothing was said yet.
    moments = [
        state.next_beat_at_s,
        *containers.moments_s(state, policy),
        *following.moments_s(state, policy),
        *releasing.moments_s(state, policy),
    ]
    return min(at_s for at_s in moments if at_s is not None and at_s > state.stepped_at_s)
