"""step(): one event in, a new state and orders out. It is total: any event, any phase.

The rule of every step: take the fact in (a handler an event), then do what is due (`advance`), then
bring the alarms up to date. Handlers of messages check the term first; what is stale changes
nothing but a counter. Time is a parameter; `next_deadline` tells when `Tick` matters next.

The phases, and which module moves a node through them:

    starting -> standby <-> acquiring            following.py, candidate.py
                             acquiring -> promoting -> active -> demoting -> standby      leading.py
                                          (failed: could not start, or could not confirm a stop)
"""

from __future__ import annotations

from typing import assert_never

from failover_agent.core import (
    alarms,
    candidate,
    commands,
    containers,
    fencing,
    following,
    leading,
    leases,
    paths,
    releasing,
    renewing,
    reports,
    votes,
)
from failover_agent.core.changing import replace
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
    FenceFinished,
    GuardArmed,
    GuardFailed,
    HeartbeatAnswered,
    HeartbeatFailed,
    HeartbeatReceived,
    PathAnswered,
    PathFailed,
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
from failover_agent.core.messages import Beat, BeatAnswer, Vote
from failover_agent.core.plan import Step
from failover_agent.core.policy import Policy, Role
from failover_agent.core.state import (
    FOREVER,
    HOLDING_PHASES,
    Conflict,
    Holder,
    PeerView,
    Phase,
    Profile,
    State,
)
from failover_agent.core.turn import Turn

__all__ = ["Step", "next_deadline", "step"]


def step(state: State, event: Event, now: float, policy: Policy) -> Step:
    """The new state and the orders that `event` leads to at `now` (CLOCK_BOOTTIME, seconds).

    Never raises for what the world does; a breach of a rule of the program is an AssertionError.
    """
    turn = Turn(state=state, now=now, policy=policy)
    _note_own_absence(turn)
    _end_resumption(turn)
    _take_in(turn, event)
    _advance(turn)
    alarms.refresh(turn)
    turn.state = replace(turn.state, stepped_at_s=now)
    return Step(turn.state, tuple(turn.effects), tuple(turn.transitions))


def _note_own_absence(turn: Turn) -> None:
    """Silence counts only while we ourselves ran: after an absence of T/2 it starts anew.

    After a shorter one it is known at least, for the lease was not renewed meanwhile (S2).
    """
    if turn.now - turn.state.stepped_at_s > 2 * turn.policy.heartbeat_interval_s:
        turn.state = replace(turn.state, woke_at_s=turn.now)
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
            return event.answer.sender.role
        case VoteRequested() | ReleaseReceived():
            return event.request.sender.role
        case VoteAnswered() | VoteFailed() | ReleaseAnswered() | ReleaseFailed():
            return event.voter
        case HeartbeatFailed():
            return event.to
        case AddressLost() | PathAnswered() | PathFailed():
            return event.peer
        case _:
            return None


def _take_in(turn: Turn, event: Event) -> None:
    speaker = _speaker(event)
    is_question = isinstance(event, HeartbeatReceived | VoteRequested | ReleaseReceived)
    known = turn.policy.others if is_question else turn.state.peers  # An arbiter never asks.
    if speaker is not None and speaker not in known:
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
            if event.voter is turn.policy.arbiter:
                _take_word(turn, event.voter, event.answer.vote)
            candidate.on_vote_answered(turn, event)
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
        case PathAnswered():
            paths.on_answered(turn, event)
        case PathFailed():
            paths.on_failed(turn, event)
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
        case GuardArmed():
            leading.on_guard_armed(turn, event)
        case GuardFailed():
            leading.on_guard_failed(turn, event)
        case FenceFinished():
            fencing.on_finished(turn, event)
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
    may_note = turn.state.may_save and not turn.state.is_holding and role in turn.policy.others
    if may_note and role not in durable.heard:
        turn.set_durable(replace(durable, heard=durable.heard | {role}))


def _take_beat(turn: Turn, beat: Beat) -> None:
    """What a beat tells of its sender, in a request and in an answer alike."""
    role = beat.sender.role
    _hear(turn, role)
    known = turn.state.peers[role]
    if known.run_id == beat.sender.run_id and beat.number == known.beat_number:
        return  # The same one over another path, or said again: it tells nothing more.
    if known.run_id == beat.sender.run_id and beat.number < known.beat_number:
        turn.count_stale()  # Overtaken by a newer one: what it tells is not so any more.
        return
    _note_fingerprint(turn, beat.sender.fingerprint)
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
        running=known.running if is_late else beat.running,
        readiness=beat.readiness,
        not_ready_because=beat.not_ready_because,
        may_lead=beat.may_lead,
        profile_digest=beat.profile_digest,
        knows_digest=beat.knows_digest,
        profile=_profile(known, beat),
        beat_number=beat.number,
        longest_lease_s=max(known.longest_lease_s, beat.longest_lease_s),
    )
    turn.set_peer(peer)
    votes.wait_as_told(turn, beat.longest_lease_s)
    if beat.renews and not beat.hold:
        votes.end_hold_of_arbiter(turn, Holder(role, beat.sender.node_id), beat.term)
    if peer.holding:
        if peer.phase is Phase.ACTIVE:
            turn.state = replace(turn.state, prepared_for=None)
        leading.on_peer_holding(turn, peer, beat)
        return
    leading.on_peer_not_holding(turn)
    if beat.holder is role and beat.released:
        was_released = turn.state.durable.released
        taken = votes.take_release(turn, Holder(role, beat.sender.node_id), beat.term)
        if taken and not was_released and turn.state.prepared_for is not None:
            votes.invite(turn, turn.state.prepared_for)


def _profile(known: PeerView, beat: Beat) -> Profile | None:
    """The sender's profile as it is now: said by this beat, or known already; else None."""
    if beat.profile is not None:
        return beat.profile
    return known.profile if known.profile_digest == beat.profile_digest else None


def _note_fingerprint(turn: Turn, fingerprint: str) -> None:
    """V9: the peer's last one is known after a restart too; a holder notes it when it has ended."""
    state = turn.state
    if state.may_save and not state.is_holding and state.durable.peer_fingerprint != fingerprint:
        turn.set_durable(replace(state.durable, peer_fingerprint=fingerprint))


def _take_word(turn: Turn, role: Role, vote: Vote) -> None:
    """How the promise of an arbiter stands; no use in asking before it ends (H0).

    One that tells an older term than before has lost its record, and perhaps the only word of a
    hold: that stands until the holder itself ends it, or an operator does (V8).
    """
    peer = turn.state.peers[role]
    if peer.promised_until_s == FOREVER and vote.term < (peer.term or 0):
        return
    until_s = turn.now if vote.remaining_s is None else turn.now + vote.remaining_s
    turn.set_peer(
        replace(
            peer,
            promised_to=vote.holder,
            promised_until_s=until_s,
            term=max(peer.term or 0, vote.term),
        )
    )


def _on_heartbeat_received(turn: Turn, event: HeartbeatReceived) -> None:
    _take_beat(turn, event.beat)
    vote = votes.on_renewal(turn, event.beat)
    sender = reports.sender(turn.state, turn.policy)
    peer = turn.state.peers[event.beat.sender.role]
    said = reports.said_to(_say_beat(turn), turn.state, turn.policy, peer)
    turn.emit(Reply(event.request_id, BeatAnswer(sender, said, vote)))


def _on_heartbeat_answered(turn: Turn, event: HeartbeatAnswered) -> None:
    answer = event.answer
    if answer.beat is not None and event.to is not turn.policy.arbiter:
        _take_beat(turn, answer.beat)
    else:
        _hear(turn, event.to)
    if answer.vote is not None and event.to is turn.policy.arbiter:
        _take_word(turn, event.to, answer.vote)
    renewing.on_renewal_answered(turn, event)


def _say_beat(turn: Turn) -> Beat:
    """The next beat; its number is given away here."""
    beat = reports.beat(turn.state, turn.now, turn.policy)
    turn.state = replace(turn.state, beats=beat.number)
    return beat


def _on_conflict(turn: Turn, event: ConflictSeen) -> None:
    conflict = Conflict(
        kind=event.kind,
        detail=event.detail,
        seen_at_s=turn.now,
        node_id=event.node_id,
        holding=event.holding,
        may_lead=event.may_lead,
        received=event.received,
        endpoint=event.endpoint,
    )
    source = "received" if event.received else "endpoint"
    counters = turn.state.counters
    turn.state = replace(
        turn.state,
        conflicts={**turn.state.conflicts, f"{event.kind} {source} {event.endpoint}": conflict},
        counters=replace(counters, rejected=counters.rejected + 1),
    )


def _advance(turn: Turn) -> None:
    """Do what is due: lead or follow, then speak."""
    if turn.state.is_holding:
        renewing.settle_raise(turn)
        leading.advance(turn)
    if not turn.state.is_holding:
        following.advance(turn)
    releasing.say_release(turn)
    _beat_if_due(turn)
    releasing.exit_if_due(turn)


def _end_resumption(turn: Turn) -> None:
    """H6: only a running lease is resumed, and not one that the guard is about to end.

    So before the event is heard: it may be an answer that came too late.
    """
    state, policy = turn.state, turn.policy
    is_over = policy.requires_lease and turn.now >= state.lease_until_s - policy.kill_budget_s
    if state.may_resume and is_over:
        turn.state = replace(state, may_resume=False)


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
    if asked_before:
        candidate.ask_voters(turn)
    beat = _say_beat(turn)
    if beat.renews and not beat.hold and turn.policy.requires_lease:
        leases.end_hold(turn)
    for role in turn.policy.voters:
        if role is turn.state.role:
            continue
        said = beat
        if role is not turn.policy.arbiter:  # It looks at nothing but the promise.
            said = reports.said_to(beat, turn.state, turn.policy, turn.state.peers[role])
        turn.emit(SendHeartbeat(to=role, beat=said, deadline_s=turn.policy.heartbeat_timeout_s))


def next_deadline(state: State, policy: Policy) -> float:
    """The next moment at which `Tick` matters: never more than one heartbeat interval away."""
    if state.next_beat_at_s <= state.stepped_at_s:
        return state.stepped_at_s  # Nothing was said yet.
    moments = [
        state.next_beat_at_s,
        *containers.moments_s(state, policy),
        *following.moments_s(state, policy),
        *releasing.moments_s(state, policy),
        *leases.moments_s(state, policy),
        *fencing.moments_s(state),
    ]
    return min(at_s for at_s in moments if at_s is not None and at_s > state.stepped_at_s)
