"""A node that asks leave to lead: poll, take a term, ask, win or give up (H0, section 6).

Whether to ask is following.py's question.
"""

from __future__ import annotations

from collections.abc import Mapping

from failover_agent.core import fencing, leading, leases, reports, votes
from failover_agent.core.changing import replace
from failover_agent.core.effects import SendVoteRequest
from failover_agent.core.events import VoteAnswered
from failover_agent.core.messages import Refusal, VoteKind
from failover_agent.core.policy import PartitionPolicy, Policy, Role
from failover_agent.core.state import (
    FOREVER,
    HOLDING_PHASES,
    NEVER,
    Candidacy,
    PeerView,
    Phase,
    Reason,
    Stage,
    State,
)
from failover_agent.core.turn import Turn

UNABLE = frozenset({Refusal.NOT_READY, Refusal.CONTAINERS_RUN})
"""Refusals of a voter that is not able to vote now: no promise of its own stands behind them."""


def could_win(state: State, now: float, policy: Policy) -> bool:
    """H0: is there a majority that might say yes? Without an arbiter that is found out by asking.

    An arbiter that is promised to another was asked already: by each of our beats.
    """
    if not policy.requires_lease:
        return True
    asked = state.candidacy
    refused: frozenset[Role] = frozenset() if asked is None else asked.refused
    might = {state.role}
    for role in policy.voters:
        if role is state.role or role in refused:
            continue
        peer = state.peers[role]
        promised = role is policy.arbiter and now < peer.promised_until_s
        promised = promised and peer.promised_to not in (None, state.me)
        by_word = asked is not None and asked.by_word and peer.promised_until_s == FOREVER
        if reports.is_reachable(peer, now, policy) and not (promised and not by_word):
            might.add(role)
    return len(might) >= policy.majority


def silence_is_leave(state: State, policy: Policy) -> bool:
    """Does silence stand for the vote of the silent (table of section 4)?

    With a fence_command it does once the peer is fenced. Under `consistency` only what is on our
    own disk does: that we held the newest term and never gave it back, or that its holder gave it
    back to us.
    """
    if policy.requires_lease:
        return False
    if fencing.needs(policy) or policy.partition_policy is PartitionPolicy.AVAILABILITY:
        return True
    durable = state.durable
    if durable.holder == state.me:
        return state.led_and_kept
    return durable.released and durable.holder is not None


def begin(turn: Turn, reason: Reason, *, by_word: bool = False) -> None:
    """Ask for leave: poll first (H0)."""
    turn.enter(Phase.ACQUIRING, reason)
    turn.state = replace(
        turn.state,
        candidacy=Candidacy(
            stage=Stage.POLL,
            term=0,
            reason=reason,
            begun_at_s=turn.now,
            granted=frozenset({turn.state.role}),
            silence_counts=silence_is_leave(turn.state, turn.policy),
            by_word=by_word,
        ),
    )


def ask_voters(turn: Turn) -> None:
    """Send the question of the present stage to every voter that has not answered it."""
    candidacy = turn.state.candidacy
    assert candidacy is not None
    turn.state = replace(turn.state, candidacy=replace(candidacy, asked_at_s=turn.now))
    kind = VoteKind.POLL if candidacy.stage is Stage.POLL else VoteKind.CANDIDACY
    for role in turn.policy.voters:
        is_stale = not leases.is_fresh(candidacy.answered_at_s.get(role), turn.now, turn.policy)
        if role in candidacy.refused or (role in candidacy.granted and not is_stale):
            continue
        request = reports.question(turn.state, turn.policy, kind, candidacy.term, candidacy.reason)
        turn.emit(
            SendVoteRequest(to=role, request=request, deadline_s=turn.policy.heartbeat_timeout_s)
        )


def has_majority(state: State, now: float, policy: Policy) -> bool:
    """Do the votes, with silence or the operator's word where they count as one, suffice?"""
    candidacy = state.candidacy
    assert candidacy is not None
    if policy.requires_lease:
        sent_at_s = candidacy.answered_at_s.values()
        return leases.is_majority(candidacy.granted, sent_at_s, now, policy)
    answered_at_s = candidacy.answered_at_s
    fresh = {
        role for role in candidacy.granted if leases.is_fresh(answered_at_s.get(role), now, policy)
    }
    votes_for = fresh | candidacy.fenced
    for peer in reports.members(state, policy):
        gone = _is_absent(state, now, policy, peer)
        gone = gone or not reports.is_heard_lately(peer, now, policy)
        if candidacy.by_word and gone:
            votes_for.add(peer.role)
    if not fencing.needs(policy):
        votes_for |= _silent_votes(state, now, policy)
    return len(votes_for) >= policy.majority


def _is_absent(state: State, now: float, policy: Policy, peer: PeerView) -> bool:
    """Is `peer` silent, or did it say itself that it can do nothing?"""
    assert state.candidacy is not None
    unable = peer.role in state.candidacy.unable and reports.abstains(peer, now, policy)
    return unable or reports.is_silent(peer, now, policy)


def _silent_votes(state: State, now: float, policy: Policy) -> set[Role]:
    """The members whose silence counts as a vote in a plain pair."""
    assert state.candidacy is not None
    if not state.candidacy.silence_counts:
        return set()
    return {
        peer.role for peer in reports.members(state, policy) if _is_absent(state, now, policy, peer)
    }


def highest_term(state: State) -> int:
    """The highest term this node was ever told of, or granted."""
    asked = 0 if state.candidacy is None else state.candidacy.term
    return max(state.durable.term, asked, *(peer.term or 0 for peer in state.peers.values()))


def pursue(turn: Turn) -> None:
    """Acquiring, or fencing in a plain pair: give up, go on to the next stage, or win."""
    state = turn.state
    candidacy = state.candidacy
    assert candidacy is not None
    if reports.holders(state, turn.now, turn.policy):
        give_up(turn, Reason.PEER_ACTIVE, turn.policy.heartbeat_interval_s)
    elif state.stopping is not None or reports.cannot_because(state, turn.now, turn.policy):
        give_up(turn, Reason.NOT_ABLE, turn.policy.heartbeat_interval_s)
    elif not _has_own_vote(state, turn.now, turn.policy):
        give_up(turn, Reason.PEER_ACTIVE, turn.policy.heartbeat_interval_s)
    elif has_majority(state, turn.now, turn.policy):
        if candidacy.stage is Stage.POLL:
            take_term(turn)
            pursue(turn)
        else:
            win(turn)
    elif (
        len(turn.policy.voters) - len(candidacy.refused) < turn.policy.majority
        or not could_win(state, turn.now, turn.policy)
        or _is_to_be_asked_again(turn, candidacy)
    ):
        give_up(turn, Reason.VOTE_REFUSED, _pause_s(state, turn.policy))
    elif candidacy.asked_at_s is None:
        ask_voters(turn)
    elif fencing.needs(turn.policy):
        _fence_the_silent(turn)


def _has_own_vote(state: State, now: float, policy: Policy) -> bool:
    """V2: a poll promises nothing, so our own vote may have been given to a holder meanwhile."""
    return not policy.requires_lease or votes.own_candidacy_is_free(state, now)


def _is_to_be_asked_again(turn: Turn, candidacy: Candidacy) -> bool:
    """A refusal is not for ever, and who has not answered may be deaf: begin anew (H0)."""
    patient_until_s = candidacy.begun_at_s + turn.policy.patience_s
    may_s = max(patient_until_s, turn.state.ask_again_at_s)
    return turn.policy.requires_lease and bool(candidacy.refused) and turn.now >= may_s


def _fence_the_silent(turn: Turn) -> None:
    """A plain pair with a fence_command: the silent peer is fenced, and that is its vote."""
    fencing.advance(turn)
    state = turn.state
    if state.fencing is not None or state.candidacy is None:
        return
    for role in _silent_votes(state, turn.now, turn.policy) - state.candidacy.fenced:
        turn.enter(Phase.FENCING, state.candidacy.reason)
        fencing.begin(turn, highest_term(state) + 1, role, state.candidacy.reason)


def _pause_s(state: State, policy: Policy) -> float:
    """How long to wait after a refusal: twice as long after each, at most T."""
    if policy.requires_lease and state.ask_again_at_s > state.since_s:
        return 0.0  # The voter said when its promise ends: then, and not later (H0).
    doubled_s = policy.heartbeat_interval_s * 2.0 ** min(state.refusals, 10)
    return min(doubled_s, policy.heartbeat_timeout_s)


def take_term(turn: Turn) -> None:
    """A majority would grant: take a term, promise it to ourselves (saved), and ask for it."""
    state = turn.state
    assert state.candidacy is not None
    term = highest_term(state) + 1
    # With an arbiter it is the lease file that tells who led, so that winning saves nothing more.
    led = turn.policy.requires_lease
    votes.grant(turn, state.me, term, turn.policy.heartbeat_timeout_s, led=led)
    turn.state = replace(
        turn.state,
        candidacy=replace(
            state.candidacy,
            stage=Stage.ASK,
            term=term,
            granted=frozenset({state.role}),
            refused=frozenset(),
            answered_at_s={},
            asked_at_s=None,
        ),
    )


def win(turn: Turn) -> None:
    """A majority granted the term: lead. That is on disk before the first start (H6)."""
    candidacy = turn.state.candidacy
    assert candidacy is not None
    turn.set_durable(replace(turn.state.durable, led=True))
    turn.state = replace(turn.state, candidacy=None, invitation=None, prepared_for=None)
    turn.state = replace(turn.state, leaderless_at_s=None, refusals=0, refused_because="")
    leading.begin(turn, candidacy)


def give_up(turn: Turn, reason: Reason, wait_s: float) -> None:
    """The candidacy ends without a majority; ask again no sooner than in `wait_s`."""
    votes.forget_own_promise(turn)
    votes.give_term_back(turn)
    turn.state = replace(
        turn.state,
        candidacy=None,
        fencing=None,
        refusals=turn.state.refusals + (reason is Reason.VOTE_REFUSED),
        ask_again_at_s=max(turn.state.ask_again_at_s, turn.now + wait_s),
    )
    turn.enter(Phase.STANDBY, reason)


def on_vote_answered(turn: Turn, event: VoteAnswered) -> None:
    """Count an answer of the present stage and term; anything else is stale (H0)."""
    candidacy = turn.state.candidacy
    answer = event.answer
    if answer.kind is VoteKind.PREPARE:
        leading.on_prepare_answered(turn, event)
        return
    expected = None if candidacy is None else _question(candidacy)
    is_its_own = candidacy is not None and event.sent_at_s >= candidacy.begun_at_s
    if candidacy is None or not is_its_own or expected != (answer.kind, answer.asked_term):
        turn.count_stale()
        return
    peer = turn.state.peers[event.voter]
    if answer.vote.term > (peer.term or 0):
        turn.set_peer(replace(peer, term=answer.vote.term))
    if answer.vote.granted:
        before_s = candidacy.answered_at_s.get(event.voter, NEVER)
        answered = {**candidacy.answered_at_s, event.voter: max(before_s, event.sent_at_s)}
        candidacy = replace(
            candidacy, granted=candidacy.granted | {event.voter}, answered_at_s=answered
        )
    else:
        candidacy = replace(
            candidacy,
            refused=candidacy.refused | {event.voter},
            granted=candidacy.granted - {event.voter},
            answered_at_s=_without(candidacy.answered_at_s, event.voter),
        )
        if answer.vote.refusal in UNABLE and answer.phase not in HOLDING_PHASES:
            candidacy = replace(candidacy, unable=candidacy.unable | {event.voter})
        because = f"the {event.voter} refused: {answer.vote.refusal}"
        turn.state = replace(turn.state, refused_because=because)
        wait_s = answer.vote.remaining_s
        if wait_s is not None and answer.vote.refusal in (Refusal.PROMISED, Refusal.JUST_STARTED):
            free_at_s = turn.now + min(wait_s, turn.policy.promise_length_s)
            soon_s = _first_free_at_s(turn, candidacy, free_at_s)
            turn.state = replace(turn.state, ask_again_at_s=soon_s)
    turn.state = replace(turn.state, candidacy=candidacy)


def _first_free_at_s(turn: Turn, candidacy: Candidacy, free_at_s: float) -> float:
    """H0: when the first of the others may say yes, one of them saying that it may at `free_at_s`.

    One is enough beside our own vote; and an arbiter that was not asked has said it in its beats.
    """
    moments = [free_at_s]
    if turn.state.ask_again_at_s > candidacy.begun_at_s:
        moments.append(turn.state.ask_again_at_s)
    arbiter = turn.state.peers.get(turn.policy.arbiter or turn.state.role)
    if arbiter is not None and turn.now < arbiter.promised_until_s:
        moments.append(arbiter.promised_until_s)
    return min(moments)


def _without(answered_at_s: Mapping[Role, float], voter: Role) -> Mapping[Role, float]:
    return {role: at_s for role, at_s in answered_at_s.items() if role is not voter}


def _question(candidacy: Candidacy) -> tuple[VoteKind, int]:
    kind = VoteKind.POLL if candidacy.stage is Stage.POLL else VoteKind.CANDIDACY
    return kind, candidacy.term
