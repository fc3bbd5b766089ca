"""What the answer to a renewal means: a lease that goes on, one that is taken up again, or a term
that has to be raised (H1, H6, H7).
"""

from __future__ import annotations

from failover_agent.core import leading, leases, releasing, reports, votes
from failover_agent.core.changing import replace
from failover_agent.core.effects import SendVoteRequest
from failover_agent.core.events import HeartbeatAnswered
from failover_agent.core.messages import Refusal, Vote, VoteKind
from failover_agent.core.policy import Policy
from failover_agent.core.state import FOREVER, Candidacy, Phase, Stage, State
from failover_agent.core.turn import Turn


def on_renewal_answered(turn: Turn, event: HeartbeatAnswered) -> None:
    """A voter answered a beat that asked for a renewal (H1, H6, H7, V8)."""
    state, vote = turn.state, event.answer.vote
    if vote is None or not (vote.granted or vote.refusal or event.to is not turn.policy.arbiter):
        return  # It was asked for nothing.
    if reports.asks_to_resume(state):
        if vote.granted and event.term == state.durable.term:
            leading.resume(turn, event.to, event.sent_at_s)
        elif not vote.granted and _ends_resumption(turn, vote):
            turn.state = replace(state, may_resume=False)
    elif vote.granted and event.term == state.held_term:
        leases.note_answer(turn, event.to, event.sent_at_s, is_hold=vote.remaining_s == FOREVER)
        releasing.note_hold(turn, event)
    elif _outgrew(state, vote) and _is_free(state, vote):
        _raise_term(turn, vote.term)


def _ends_resumption(turn: Turn, vote: Vote) -> bool:
    """H6: is the term over? With an arbiter not because one of two voters cannot renew it.

    While our own lease runs nobody else leads, whoever that voter is promised to. A hold may have
    been ended by an operator.
    """
    if not turn.policy.requires_lease or vote.refusal is Refusal.LEADING:
        return True
    held = turn.state.hold_ends_at_s is not None
    return vote.refusal is Refusal.PROMISED and held


def _outgrew(state: State, vote: Vote) -> bool:
    """Did this voter grant our term to another, or a higher one (two lone starts, a cut healed)?"""
    return vote.refusal is Refusal.OLD_TERM and vote.term >= (state.held_term or 0)


def _is_free(state: State, vote: Vote) -> bool:
    return vote.holder is None or vote.holder == state.me


def _raise_term(turn: Turn, told: int) -> None:
    """H7: a voter promised to nobody outgrew our term: ask for one above it in place."""
    state = turn.state
    calm = state.stop_job is None and not state.repairing
    ready = state.phase is Phase.ACTIVE and state.handover is None and state.stopping is None
    ready = ready and state.may_save and state.held_term is not None
    if not (calm and ready) or turn.now < state.ask_again_at_s:
        return
    term = max(told, state.durable.term) + 1
    votes.grant(turn, state.me, term, turn.policy.heartbeat_timeout_s, led=True)
    turn.state = replace(
        turn.state,
        ask_again_at_s=turn.now + turn.policy.promise_length_s,
        candidacy=Candidacy(
            stage=Stage.ASK,
            term=term,
            reason=state.reason,
            begun_at_s=turn.now,
            asked_at_s=turn.now,
            granted=frozenset({state.role}),
        ),
    )
    request = reports.question(turn.state, turn.policy, VoteKind.CANDIDACY, term, state.reason)
    for role in turn.policy.voters:
        if role is not state.role:
            turn.emit(
                SendVoteRequest(
                    to=role, request=request, deadline_s=turn.policy.heartbeat_timeout_s
                )
            )


def settle_raise(turn: Turn) -> None:
    """H7: a majority granted the higher term: it is ours; refused or too late: drop it."""
    state, candidacy = turn.state, turn.state.candidacy
    if candidacy is None or candidacy.asked_at_s is None:
        return
    sent_at_s = candidacy.answered_at_s.values()
    if leases.is_majority(candidacy.granted, sent_at_s, turn.now, turn.policy):
        turn.state = replace(
            state,
            held_term=candidacy.term,
            renewed_at_s=candidacy.answered_at_s,
            candidacy=None,
        )
        if turn.policy.requires_lease:
            leading.arm_guard(turn)
    elif (
        _is_refused(turn.policy, candidacy)
        or turn.now >= candidacy.begun_at_s + turn.policy.promise_length_s
    ):
        turn.state = replace(state, candidacy=None)


def _is_refused(policy: Policy, candidacy: Candidacy) -> bool:
    """Have so many refused that no majority can come together any more?"""
    return len(policy.voters) - len(candidacy.refused) < policy.majority
