"""Promises: the voter (design, section 4, V1-V9). A node is one; a witness will be nothing but one.

A promise is kept on disk as far as a crash could break it (V3): the highest term granted, to whom,
and the longest length. Renewals of the same term write nothing.
"""

from __future__ import annotations

from dataclasses import replace

from failover_agent.core import reports
from failover_agent.core.effects import Reply
from failover_agent.core.events import ReleaseReceived, VoteRequested
from failover_agent.core.messages import (
    LONGEST_LEASE_S,
    Beat,
    Refusal,
    ReleaseAnswer,
    Vote,
    VoteAnswer,
    VoteKind,
    VoteRequest,
)
from failover_agent.core.policy import Policy, Role
from failover_agent.core.state import (
    FOREVER,
    Durable,
    Holder,
    Phase,
    Promise,
    Readiness,
    Reason,
    State,
)
from failover_agent.core.transitions import CANDIDACY_REASONS
from failover_agent.core.turn import Turn


def standing_promise(state: State, now: float) -> Promise | None:
    """The promise that still runs, if any (V1); while this node holds a term it is its own (V5)."""
    if state.held_term is not None:
        return Promise(state.me, state.held_term, FOREVER)
    if state.promise is not None and now < state.promise.until_s:
        return state.promise
    return None


def _answer(turn: Turn, refusal: Refusal | None) -> Vote:
    """Our word as of now: a refusal tells the highest term, whose promise stands, and how long."""
    promise = standing_promise(turn.state, turn.now)
    remaining_s = None if promise is None else promise.until_s - turn.now
    if refusal is Refusal.JUST_STARTED:
        remaining_s = turn.state.grants_after_s - turn.now
    return Vote(
        granted=refusal is None,
        term=turn.state.durable.term,
        holder=None if promise is None else promise.holder,
        remaining_s=remaining_s,
        refusal=refusal,
    )


def _granted(
    durable: Durable, holder: Holder, term: int, lease_s: float, *, hold: bool, led: bool = False
) -> Durable:
    """What is on disk once `term` is promised to `holder`."""
    return replace(
        durable,
        term=term,
        holder=holder,
        released=False,
        led=led,
        hold=hold,
        longest_lease_s=max(durable.longest_lease_s, lease_s),
    )


def grant(
    turn: Turn,
    holder: Holder,
    term: int,
    lease_s: float,
    *,
    hold: bool = False,
    led: bool = False,
) -> None:
    """Promise `term` to `holder` for `lease_s` on our clock (V1); the durable part follows (V3)."""
    turn.set_durable(_granted(turn.state.durable, holder, term, lease_s, hold=hold, led=led))
    until_s = FOREVER if hold else turn.now + lease_s * (1 + turn.policy.clock_drift)
    turn.state = replace(turn.state, promise=Promise(holder, term, until_s))


def gives_way(state: State, policy: Policy, candidate: Role) -> bool:
    """V6: does our own candidacy, without a majority yet, give way to `candidate`?"""
    return (
        state.phase is Phase.ACQUIRING
        and state.candidacy is not None
        and not state.candidacy.by_word
        and policy.preference(candidate) > policy.preference(state.role)
    )


def _is_promised_elsewhere(
    state: State, now: float, request: VoteRequest, *, gives_way: bool
) -> bool:
    """Does a promise stand that forbids this candidate one of its own?

    A hold is for a node id. When that node lost its record, nobody has the id any more: then an
    operator's word on the node of the same role ends it (V8).
    """
    promise = standing_promise(state, now)
    if promise is None or (promise.holder == state.me and gives_way):
        return False
    if promise.holder == Holder(request.sender.role, request.sender.node_id):
        return False
    by_operator = request.reason is Reason.OPERATOR and promise.holder.role is request.sender.role
    return not (state.durable.hold and by_operator)


def refusal_of_candidacy(
    state: State, now: float, policy: Policy, request: VoteRequest
) -> Refusal | None:
    """Why a poll or a candidacy is refused, or None (V2, V4, V5, V6, V9)."""
    candidate = Holder(request.sender.role, request.sender.node_id)
    durable = state.durable
    if request.lease_s > LONGEST_LEASE_S:
        return Refusal.LEASE_TOO_LONG
    if request.sender.fingerprint != policy.fingerprint:
        return Refusal.FINGERPRINT
    if state.is_holding:
        return Refusal.LEADING
    if not state.may_save:
        return Refusal.NOT_READY
    if not reports.is_stopped(state):
        return Refusal.CONTAINERS_RUN
    named = durable.holder == candidate and not durable.released
    if now < state.grants_after_s and not named:
        return Refusal.JUST_STARTED
    way = gives_way(state, policy, candidate.role)
    if state.candidacy is not None and not way:
        return Refusal.PREFERRED
    if _is_promised_elsewhere(state, now, request, gives_way=way):
        return Refusal.PROMISED
    if request.kind is VoteKind.CANDIDACY:
        lowest = durable.term if named or (way and durable.holder == state.me) else durable.term + 1
        if request.term < lowest:
            return Refusal.OLD_TERM
    return None


def refusal_of_prepare(
    state: State, now: float, policy: Policy, request: VoteRequest
) -> Refusal | None:
    """Why this node will not take the service over from its holder, or None (H5)."""
    asker = Holder(request.sender.role, request.sender.node_id)
    if request.sender.fingerprint != policy.fingerprint:
        return Refusal.FINGERPRINT
    if state.is_holding:
        return Refusal.LEADING
    promise = standing_promise(state, now)
    if promise is not None and promise.holder != asker:
        return Refusal.PROMISED
    if state.phase is not Phase.STANDBY or state.stopping is not None:
        return Refusal.NOT_READY
    if reports.readiness(state, now, policy)[0] is not Readiness.READY:
        return Refusal.NOT_READY
    return None if reports.is_stopped(state) else Refusal.CONTAINERS_RUN


def refusal_of_renewal(state: State, now: float, policy: Policy, beat: Beat) -> Refusal | None:
    """Why a renewal is refused, or None (V2). Granted throughout a start (V4).

    One in a term that is new to this voter is a vote, and wants what a vote wants (V5).
    """
    holder = Holder(beat.sender.role, beat.sender.node_id)
    durable = state.durable
    if beat.lease_s > LONGEST_LEASE_S:
        return Refusal.LEASE_TOO_LONG
    if beat.sender.fingerprint != policy.fingerprint:
        return Refusal.FINGERPRINT
    if state.is_holding:
        return Refusal.LEADING
    promise = standing_promise(state, now)
    if promise is not None and promise.holder != holder:
        return Refusal.PROMISED
    if beat.term < durable.term:
        return Refusal.OLD_TERM
    if beat.term == durable.term and (durable.holder != holder or durable.released):
        return Refusal.OLD_TERM
    is_new = beat.term > durable.term
    if is_new and not reports.is_stopped(state):
        return Refusal.CONTAINERS_RUN
    renewed = _granted(durable, holder, beat.term, beat.lease_s, hold=beat.hold)
    return None if state.may_save or renewed == durable else Refusal.NOT_READY


def on_renewal(turn: Turn, beat: Beat) -> Vote | None:
    """Answer the part of a beat that asks for a renewal; None when it asks for none (V2, V8)."""
    if not beat.renews:
        return None
    refusal = refusal_of_renewal(turn.state, turn.now, turn.policy, beat)
    if refusal is None:
        grant(
            turn,
            Holder(beat.sender.role, beat.sender.node_id),
            beat.term,
            beat.lease_s,
            hold=beat.hold,
        )
    return _answer(turn, refusal)


def on_vote_requested(turn: Turn, event: VoteRequested) -> None:
    """Answer a poll, a prepare or a candidacy; only a granted candidacy changes anything."""
    request = event.request
    if request.kind is VoteKind.PREPARE:
        refusal = refusal_of_prepare(turn.state, turn.now, turn.policy, request)
    else:
        refusal = refusal_of_candidacy(turn.state, turn.now, turn.policy, request)
    if refusal is None and request.kind is VoteKind.PREPARE:
        turn.state = replace(turn.state, prepared_for=known_reason(request.reason))
    if refusal is None and request.kind is VoteKind.CANDIDACY:
        if turn.state.candidacy is not None:
            turn.state = replace(turn.state, candidacy=None)
            turn.enter(Phase.STANDBY, Reason.HIGHER_PREFERENCE)
        grant(
            turn,
            Holder(request.sender.role, request.sender.node_id),
            request.term,
            request.lease_s,
        )
    answer = VoteAnswer(
        sender=reports.sender(turn.state, turn.policy),
        kind=request.kind,
        asked_term=request.term,
        vote=_answer(turn, refusal),
        phase=turn.state.phase,
    )
    turn.emit(Reply(event.request_id, answer))


def known_reason(reason: Reason) -> Reason:
    """Why the holder gives up, as far as it is a reason for another to lead."""
    return reason if reason in CANDIDACY_REASONS else Reason.PEER_RELEASED


def invite(turn: Turn, reason: Reason) -> None:
    """The holder released, and this node is the one to take over: at once (H5)."""
    turn.state = replace(turn.state, invitation=reason, ask_again_at_s=turn.now)


def take_release(turn: Turn, holder: Holder, term: int) -> bool:
    """V7: the holder gave `term` back, so its promise is empty; False if it is not the holder."""
    state, durable = turn.state, turn.state.durable
    peer = state.peers[holder.role]
    turn.set_peer(replace(peer, released_term=max(peer.released_term, term)))
    if durable.holder != holder or term < durable.term or state.is_holding or not state.may_save:
        return False
    turn.set_durable(replace(durable, term=term, released=True, hold=False))
    turn.state = replace(turn.state, grants_after_s=min(state.grants_after_s, turn.now))
    promise = turn.state.promise
    if promise is not None and promise.holder == holder:
        turn.state = replace(turn.state, promise=None)
    turn.set_peer(replace(turn.state.peers[holder.role], holding=False))
    return True


def on_release(turn: Turn, event: ReleaseReceived) -> None:
    """Record a release and answer it; one that names us is an invitation (H5)."""
    request = event.request
    holder = Holder(request.sender.role, request.sender.node_id)
    if not turn.state.may_save:
        return  # No answer: it will be said again, until it can be kept.
    if take_release(turn, holder, request.term) and request.to is turn.state.role:
        invite(turn, known_reason(request.reason))
    answer = ReleaseAnswer(
        sender=reports.sender(turn.state, turn.policy),
        released_term=request.term,
        term=turn.state.durable.term,
    )
    turn.emit(Reply(event.request_id, answer))


def own_candidacy_is_free(state: State, now: float) -> bool:
    """Would our own voter let us be a candidate (V2, V4)?"""
    durable = state.durable
    promise = standing_promise(state, now)
    if promise is not None and promise.holder != state.me:
        return False
    return now >= state.grants_after_s or durable.holder == state.me


def forget_own_promise(turn: Turn) -> None:
    """A candidacy of ours is over without a majority: our vote is free for others again (V7)."""
    state, durable = turn.state, turn.state.durable
    if state.promise is not None and state.promise.holder == state.me:
        turn.state = replace(state, promise=None)
    if durable.holder == state.me and not durable.led and state.may_save:
        turn.set_durable(replace(durable, released=True))
