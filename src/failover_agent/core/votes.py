"""The vote of a node: what it asks of itself before its voter says yes (design, section 4, V2-V9).

`voter` knows about promises; a node adds that it votes for nobody while it leads, while a container
of its own may run (V5), or while it cannot save; and that it gives way to who is preferred (V6).
"""

from __future__ import annotations

from failover_agent.core import reports, voter
from failover_agent.core.changing import replace
from failover_agent.core.effects import Reply
from failover_agent.core.events import ReleaseReceived, VoteRequested
from failover_agent.core.messages import (
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
    Holder,
    PendingRelease,
    Phase,
    Promise,
    Readiness,
    Reason,
    Stage,
    State,
)
from failover_agent.core.transitions import CANDIDACY_REASONS
from failover_agent.core.turn import Turn
from failover_agent.core.voter import Voter


def voter_of(state: State) -> Voter:
    """The voter that this node is; while the node holds a term its promise is its own (V5)."""
    promise = state.promise
    if state.held_term is not None:
        promise = Promise(state.me, state.held_term, FOREVER)
    return Voter(
        durable=state.durable,
        promise=promise,
        grants_after_s=state.grants_after_s,
        began_at_s=state.started_at_s,
        forgot=state.forgot,
        newest=state.newest_renewal,
    )


def become(turn: Turn, after: Voter) -> None:
    """This node's voter is `after` from now on; the durable part follows (V3)."""
    turn.state = replace(
        turn.state,
        durable=after.durable,
        promise=after.promise,
        grants_after_s=after.grants_after_s,
    )


def standing_promise(state: State, now: float) -> Promise | None:
    """The promise that still runs, if any (V1)."""
    return voter.standing(voter_of(state), now)


def grant(
    turn: Turn,
    holder: Holder,
    term: int,
    lease_s: float,
    *,
    hold: bool = False,
    led: bool = False,
) -> None:
    """Promise `term` to `holder` for `lease_s` on our clock (V1)."""
    mine = voter_of(turn.state)
    become(turn, voter.grant(mine, turn.now, holder, term, lease_s, hold=hold, led=led))


def gives_way(state: State, policy: Policy, candidate: Role) -> bool:
    """V6: does our own candidacy, without a majority yet, give way to `candidate`?"""
    return (
        not state.is_holding
        and state.candidacy is not None
        and not state.candidacy.by_word
        and policy.preference(candidate) > policy.preference(state.role)
    )


def refusal_of_candidacy(
    state: State, now: float, policy: Policy, request: VoteRequest
) -> Refusal | None:
    """Why a poll or a candidacy is refused, or None (V2, V4, V5, V6, V9)."""
    if request.sender.fingerprint != policy.fingerprint:
        return Refusal.FINGERPRINT
    if state.is_holding:
        return Refusal.LEADING
    if not state.may_save:
        return Refusal.NOT_READY
    if not reports.is_stopped(state):
        return Refusal.CONTAINERS_RUN
    way = gives_way(state, policy, request.sender.role)
    refusal = voter.refusal_of_candidacy(
        voter_of(state),
        now,
        Holder(request.sender.role, request.sender.node_id),
        request.term if request.kind is VoteKind.CANDIDACY else None,
        request.lease_s,
        run_id=request.sender.run_id,
        by_operator=request.reason is Reason.OPERATOR,
        way_of=state.me if way else None,
    )
    if state.candidacy is not None and not way and refusal is not Refusal.JUST_STARTED:
        return Refusal.PREFERRED
    return refusal


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
    """Why a renewal is refused, or None (V2).

    One in a term that is new to this voter is a vote, and wants what a vote wants (V5).
    """
    holder = Holder(beat.sender.role, beat.sender.node_id)
    if beat.sender.fingerprint != policy.fingerprint:
        return Refusal.FINGERPRINT
    if state.is_holding:
        return Refusal.LEADING
    mine = voter_of(state)
    refusal = voter.refusal_of_renewal(mine, now, holder, beat.term, beat.lease_s)
    if refusal is not None:
        return refusal
    if beat.term > state.durable.term and not reports.is_stopped(state):
        return Refusal.CONTAINERS_RUN
    renewed = voter.grant(mine, now, holder, beat.term, beat.lease_s, hold=beat.hold)
    return None if state.may_save or renewed.durable == state.durable else Refusal.NOT_READY


def on_renewal(turn: Turn, beat: Beat) -> Vote | None:
    """Answer the part of a beat that asks for a renewal; None when it asks for none (V2, V8).

    Nor does one that a newer one overtook.
    """
    run_id, number = beat.sender.run_id, beat.number
    if not beat.renews or voter.is_overtaken(voter_of(turn.state), run_id, number):
        return None
    refusal = refusal_of_renewal(turn.state, turn.now, turn.policy, beat)
    if refusal is None:
        holder = Holder(beat.sender.role, beat.sender.node_id)
        grant(turn, holder, beat.term, beat.lease_s, hold=beat.hold)
        turn.state = replace(turn.state, newest_renewal=(run_id, number))
    return voter.word(voter_of(turn.state), turn.now, refusal, granted=refusal is None)


def on_vote_requested(turn: Turn, event: VoteRequested) -> None:
    """Answer a poll, a prepare or a candidacy; only a granted candidacy changes anything."""
    request = event.request
    if request.kind is VoteKind.PREPARE:
        refusal = refusal_of_prepare(turn.state, turn.now, turn.policy, request)
    else:
        _note_candidate(turn, request)
        refusal = refusal_of_candidacy(turn.state, turn.now, turn.policy, request)
    if refusal is None and request.kind is VoteKind.PREPARE:
        turn.state = replace(turn.state, prepared_for=known_reason(request.reason))
    if refusal is None and request.kind is VoteKind.CANDIDACY:
        if turn.state.candidacy is not None:
            give_term_back(turn)
            turn.state = replace(turn.state, candidacy=None, fencing=None)
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
        vote=voter.word(voter_of(turn.state), turn.now, refusal, granted=refusal is None),
        phase=turn.state.phase,
    )
    turn.emit(Reply(event.request_id, answer))


def _note_candidate(turn: Turn, request: VoteRequest) -> None:
    """Who asks for a vote is on its way to lead: nothing may run here on its word any more (G3)."""
    peer = turn.state.peers[request.sender.role]
    told_s = max(peer.longest_lease_s, request.longest_lease_s)
    turn.set_peer(replace(peer, longest_lease_s=told_s))
    if not peer.holding:
        turn.set_peer(replace(turn.state.peers[peer.role], phase=Phase.ACQUIRING))
    wait_as_told(turn, request.longest_lease_s)


def wait_as_told(turn: Turn, longest_lease_s: float) -> None:
    """V4: without a record nothing is granted before the longest lease known to anybody is over."""
    mine = voter_of(turn.state)
    after = voter.wait_as_told(mine, longest_lease_s)
    if after is not mine:
        turn.state = replace(turn.state, grants_after_s=after.grants_after_s)


def known_reason(reason: Reason) -> Reason:
    """Why the holder gives up, as far as it is a reason for another to lead."""
    return reason if reason in CANDIDACY_REASONS else Reason.PEER_RELEASED


def invite(turn: Turn, reason: Reason) -> None:
    """The holder released, and this node is the one to take over: at once (H5)."""
    turn.state = replace(turn.state, invitation=reason, ask_again_at_s=turn.now)


def take_release(turn: Turn, holder: Holder, term: int) -> bool:
    """V7: the holder gave `term` back, so its promise is empty; False if it is not the holder."""
    state = turn.state
    peer = state.peers[holder.role]
    turn.set_peer(replace(peer, released_term=max(peer.released_term, term)))
    end_hold_of_arbiter(turn, holder, term)
    if state.is_holding or not state.may_save:
        return False
    after = voter.release(voter_of(state), turn.now, holder, term)
    if after is None:
        return False
    become(turn, after)
    turn.set_peer(replace(turn.state.peers[holder.role], holding=False))
    return True


def end_hold_of_arbiter(turn: Turn, holder: Holder, term: int) -> None:
    """V8: `holder` renews or releases `term`, so it is held for no more: an arbiter that does not
    know of that yet will say so again, and one that forgot the hold need not be waited for.
    """
    arbiter = turn.state.peers.get(turn.policy.arbiter or turn.state.role)
    if arbiter is None or arbiter.promised_until_s != FOREVER or arbiter.promised_to != holder:
        return
    if term >= (arbiter.term or 0):
        turn.set_peer(replace(arbiter, promised_to=None, promised_until_s=turn.now))


def on_release(turn: Turn, event: ReleaseReceived) -> None:
    """Record a release and answer it; one that names us is an invitation (H5)."""
    request = event.request
    holder = Holder(request.sender.role, request.sender.node_id)
    if not turn.state.may_save:
        return  # No answer: it will be said again, until it can be kept.
    if take_release(turn, holder, request.term):
        # It confirmed that it stopped (H3), which its last beat could not know yet.
        turn.set_peer(replace(turn.state.peers[holder.role], running=0))
        if request.to is turn.state.role:
            invite(turn, known_reason(request.reason))
    if request.to is turn.state.role and request.reason is Reason.AGENT_STOPPING:
        peer = turn.state.peers[holder.role]  # A candidacy given up names nobody.
        turn.set_peer(replace(peer, ending_run=request.sender.run_id))
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
    only_asked = not durable.led or turn.policy.requires_lease
    if durable.holder == state.me and only_asked and state.may_save:
        turn.set_durable(replace(durable, released=True))


def give_term_back(turn: Turn) -> None:
    """V7: a voter may have granted what is given up, its answer lost: nobody is to wait."""
    state, candidacy = turn.state, turn.state.candidacy
    if not turn.policy.requires_lease or candidacy is None or candidacy.stage is not Stage.ASK:
        return
    turn.state = replace(
        state,
        release=PendingRelease(
            term=candidacy.term,
            to=None,
            reason=candidacy.reason,
            next_at_s=turn.now,
            until_s=turn.now + turn.policy.promise_length_s,
        ),
    )
