"""A node that holds a term: promote, keep the service up, hand it over, meet another holder.

Never stop a service that nobody can take over (H5, S5): the peer is asked to prepare first, and
only its yes to a question asked after the decision lets anything be stopped. Only a peer that is
active in a newer term stops this node without asking.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from failover_agent.core import containers, fencing, leases, releasing, reports
from failover_agent.core.changing import replace
from failover_agent.core.effects import ArmGuard, SendVoteRequest, StartContainers
from failover_agent.core.events import (
    ContainersStarted,
    GuardArmed,
    GuardFailed,
    StartFailed,
    VoteAnswered,
)
from failover_agent.core.messages import (
    Beat,
    VoteKind,
)
from failover_agent.core.policy import Policy, Role
from failover_agent.core.state import (
    Candidacy,
    Handover,
    Health,
    Overlap,
    PeerView,
    Phase,
    Reason,
    State,
)
from failover_agent.core.turn import Turn


@dataclass(frozen=True, slots=True)
class PromotionStep:
    """One entry of the ordered list of a promotion: the phase it runs in, whether there is
    anything to do, and its order, which one event answers.
    """

    phase: Phase
    is_needed: Callable[[Turn], bool]
    order: Callable[[Turn], None]


def _start_containers(turn: Turn) -> None:
    term = turn.state.held_term
    assert term is not None
    turn.state = replace(turn.state, start_job=term)
    turn.emit(StartContainers(term=term, names=turn.policy.containers))


def arm_guard(turn: Turn) -> None:
    """G1: nothing is started before the guard has said that it watches."""
    state = turn.state
    assert state.held_term is not None
    turn.state = replace(state, guarded=None, is_guard_armed=True)
    turn.emit(
        ArmGuard(
            term=state.held_term,
            names=turn.policy.containers,
            valid_until_s=leases.valid_until_s(state, turn.policy),
        )
    )


PROMOTION: tuple[PromotionStep, ...] = (
    PromotionStep(Phase.FENCING, lambda turn: turn.state.fencing is not None, fencing.run_in_time),
    PromotionStep(Phase.PROMOTING, lambda turn: turn.policy.requires_lease, arm_guard),
    PromotionStep(Phase.PROMOTING, lambda _: True, _start_containers),
)
"""What a node does, in this order, between winning its term and being active."""

FENCE, GUARD, START = range(len(PROMOTION))


def begin(turn: Turn, candidacy: Candidacy) -> None:
    """Hold the term that was won, and take the first step of the promotion."""
    counters, reason = turn.state.counters, candidacy.reason
    turn.state = replace(
        turn.state,
        held_term=candidacy.term,
        is_first=False,
        renewed_at_s=candidacy.answered_at_s,
        on_hold_at=frozenset(),
        guarded=None,
        promoted_at_s=turn.now,
        leading_at_s=turn.now,
        release=None,
        handover=None,
        is_killing=False,
        fencing=fencing.before_promotion(turn, candidacy),
        moves_at_s=releasing.moves(turn.state, turn.now, turn.policy, reason),
        counters=replace(counters, promotions=counters.promotions + 1),
    )
    _take_steps_from(turn, FENCE, reason)


def _take_steps_from(turn: Turn, first: int, reason: Reason) -> None:
    """The first step at or after `first` that there is anything to do for."""
    ahead = range(first, len(PROMOTION))
    at = next(at for at in ahead if PROMOTION[at].is_needed(turn))
    turn.state = replace(turn.state, step_at=at)
    if turn.state.phase is not PROMOTION[at].phase:
        turn.enter(PROMOTION[at].phase, reason)
    PROMOTION[at].order(turn)


def resume(turn: Turn, voter: Role, sent_at_s: float) -> None:
    """H6: the promise of `voter` for the recorded term still stands; nothing is touched."""
    turn.state = replace(
        turn.state,
        held_term=turn.state.durable.term,
        renewed_at_s={voter: sent_at_s},
        promoted_at_s=None,
        leading_at_s=turn.now,
        may_resume=False,
        leaderless_at_s=None,
    )
    turn.enter(Phase.ACTIVE, Reason.RESUMED)
    containers.count_from_now(turn)
    if turn.policy.requires_lease:
        arm_guard(turn)


def on_guard_armed(turn: Turn, event: GuardArmed) -> None:
    """G1: the guard watches, and the promotion that waits for it may go on."""
    state = turn.state
    if _ends_hold(state, event.term):
        assert state.hold_ends_at_s is not None
        turn.state = replace(state, lease_until_s=state.hold_ends_at_s, guard_error="")
        return
    if event.term != state.held_term:
        turn.count_stale()
        return
    turn.state = replace(state, guarded=event.term, guard_error="")


def _ends_hold(state: State, term: int) -> bool:
    """Is this about the guard's deadline for the return from a hold?"""
    is_asked = state.hold_ends_at_s is not None and term == state.durable.term
    return is_asked and reports.is_on_hold_since_before(state)


def return_from_hold(turn: Turn) -> None:
    """V8, G1: renew only once the guard has an end for the lease that a renewal gives one to.

    And once somebody is heard who can grant it: until then the hold has no end, and needs none.
    """
    state, voters = turn.state, turn.state.peers.values()
    is_heard = any(reports.is_heard_lately(peer, turn.now, turn.policy) for peer in voters)
    is_due = is_heard and turn.now >= state.retry_at_s
    if not reports.is_on_hold_since_before(state) or not is_due:
        return
    ends_at_s = turn.now + turn.policy.lease_s
    retry_at_s = turn.now + turn.policy.patience_s
    turn.state = replace(state, hold_ends_at_s=ends_at_s, retry_at_s=retry_at_s)
    turn.emit(
        ArmGuard(term=state.durable.term, names=turn.policy.containers, valid_until_s=ends_at_s)
    )


def on_guard_failed(turn: Turn, event: GuardFailed) -> None:
    """G1: without a guard nothing is started; it is asked again, and a promotion waits for it."""
    state = turn.state
    if _ends_hold(state, event.term):
        turn.state = replace(state, guard_error=event.error)
        return
    if event.term != state.held_term:
        turn.count_stale()
        return
    turn.state = replace(
        state, guard_error=event.error, retry_at_s=turn.now + turn.policy.heartbeat_interval_s
    )
    waits = state.phase is Phase.PROMOTING and state.step_at == GUARD
    if waits and turn.now >= state.since_s + turn.policy.patience_s:
        _fail(turn, f"the guard: {event.error}")


def _arm_again(turn: Turn) -> None:
    """The guard did not answer: ask again, once an interval, until it does."""
    state = turn.state
    if state.guard_error and state.guarded is None and turn.now >= state.retry_at_s:
        turn.state = replace(state, retry_at_s=turn.now + turn.policy.heartbeat_interval_s)
        arm_guard(turn)


def _go_on(turn: Turn) -> None:
    """The next step of a promotion, once that which it waits for is done: while the lease runs."""
    state = turn.state
    if turn.now >= leases.stop_at_s(state, turn.policy):
        return  # H4: one that slept renews first, or stops.
    if state.phase is Phase.FENCING and state.fencing is None:
        _take_steps_from(turn, GUARD, state.reason)
    elif state.phase is Phase.PROMOTING and state.step_at == GUARD and state.guarded is not None:
        _take_steps_from(turn, START, state.reason)


def on_started(turn: Turn, event: ContainersStarted) -> None:
    """All containers run: active."""
    if not _ends_start(turn, event.term):
        return
    turn.state = replace(
        turn.state,
        promoted_at_s=turn.now,
        failures=0,
        failed_because="",
        not_able_until_s=0.0,
    )
    turn.enter(Phase.ACTIVE, turn.state.reason)
    containers.count_from_now(turn)


def on_start_failed(turn: Turn, event: StartFailed) -> None:
    """A container did not start: give it back to a peer that is able, or keep what runs here."""
    if _ends_start(turn, event.term):
        _fail(turn, f"{event.name}: {event.error}")


def _fail(turn: Turn, because: str) -> None:
    turn.state = replace(turn.state, failures=turn.state.failures + 1, failed_because=because)
    turn.enter(Phase.FAILED, Reason.START_FAILED)
    containers.count_from_now(turn)


def _ends_start(turn: Turn, term: int) -> bool:
    """Is this the answer to the start that the present phase waits for?"""
    if turn.state.start_job != term:
        turn.count_stale()
        return False
    turn.state = replace(turn.state, start_job=None)
    return turn.state.phase is Phase.PROMOTING


def advance(turn: Turn) -> None:
    """Do what is due in fencing, promoting, active, demoting or failed."""
    releasing.keep_to_the_lease(turn)
    phase = turn.state.phase
    if phase is Phase.DEMOTING or (
        turn.state.handover is not None and turn.state.handover.is_stopping
    ):
        releasing.stop_again(turn)
        return
    fencing.advance(turn)
    _go_on(turn)
    _arm_again(turn)
    if phase in (Phase.ACTIVE, Phase.FAILED):
        containers.settle(turn)
        containers.repair(turn)
        _notice_repaired(turn)
    _hand_over_if_due(turn)


def _notice_repaired(turn: Turn) -> None:
    """Failed, but everything runs again: active."""
    if turn.state.phase is Phase.FAILED and turn.state.containers.health is Health.OK:
        turn.state = replace(
            turn.state, failures=0, failed_because="", not_able_until_s=0.0, handover=None
        )
        turn.enter(Phase.ACTIVE, Reason.REPAIRED)


def why_hand_over(state: State, now: float, policy: Policy) -> Reason | None:
    """Should this node give the service to its peer, and why?"""
    if state.stopping is not None:
        return None if state.stopping.leave else Reason.AGENT_STOPPING
    if state.phase in (Phase.FENCING, Phase.PROMOTING):
        return None
    if containers.is_service_lost_with_engine(state, now, policy):
        return Reason.ENGINE_LOST
    if state.engine.reachable is False:
        return None
    if state.phase is Phase.FAILED:
        return Reason.START_FAILED
    return Reason.CONTAINER_DOWN if containers.beyond_repair(state, now, policy) else None


def _hand_over_if_due(turn: Turn) -> None:
    """H5: ask a peer that is able to prepare; stop only when it said yes.

    Without a writable record nothing could be released, so nothing is stopped either.
    """
    state, now, policy = turn.state, turn.now, turn.policy
    reason = why_hand_over(state, now, policy)
    to = _taker(state, now, policy)
    if reason in releasing.HELD_BACK and releasing.is_held_back(state, now, policy):
        reason = None
        if state.may_save and not state.durable.on_hold_for_flapping:
            turn.set_durable(replace(state.durable, on_hold_for_flapping=True))
    if releasing.ends_without_taker(state, now, policy, to):
        releasing.stop_without_taker(turn)
    elif reason is None or to is None:
        if state.handover is not None:
            turn.state = replace(turn.state, handover=None)
    elif state.handover is None or now >= state.handover.asked_at_s + policy.heartbeat_interval_s:
        _ask_to_prepare(turn, to, reason)


def _taker(state: State, now: float, policy: Policy) -> Role | None:
    """The member to hand over to: the most preferred that may receive; None without one."""
    if not state.may_save:
        return None
    able = (role for role in policy.others if reports.may_receive(state.peers[role], now, policy))
    return next(able, None)


def _ask_to_prepare(turn: Turn, to: Role, reason: Reason) -> None:
    term, before = turn.state.held_term, turn.state.handover
    assert term is not None
    same = before is not None and (before.to, before.reason) == (to, reason)
    decided_at_s = before.decided_at_s if before is not None and same else turn.now
    handover = Handover(to=to, reason=reason, decided_at_s=decided_at_s, asked_at_s=turn.now)
    turn.state = replace(turn.state, handover=handover)
    request = reports.question(turn.state, turn.policy, VoteKind.PREPARE, term, reason)
    turn.emit(SendVoteRequest(to=to, request=request, deadline_s=turn.policy.patience_s))


def on_prepare_answered(turn: Turn, event: VoteAnswered) -> None:
    """The peer will take it: stop. It will not: keep the service, and ask again later."""
    state, answer = turn.state, event.answer
    handover = state.handover
    asked = (
        handover is not None
        and not handover.is_stopping
        and handover.to is event.voter
        and answer.asked_term == state.held_term
        and event.sent_at_s >= handover.decided_at_s
        and turn.now - event.sent_at_s < turn.policy.heartbeat_timeout_s
    )
    if handover is None or not asked:
        turn.count_stale()
    elif answer.vote.granted:
        if why_hand_over(state, turn.now, turn.policy) is handover.reason:
            releasing.demote(turn, handover.to, handover.reason)
    elif state.stopping is not None:
        releasing.stop_without_taker(turn)


def on_peer_holding(turn: Turn, peer: PeerView, beat: Beat) -> None:
    """Another node leads while we hold a term: the lower (term, preference) stops at once.

    Only a plain pair under `availability` gets here with both running; the overlap is measured. One
    that could start nothing gives way to one that is active, whatever the terms.
    """
    state, policy = turn.state, turn.policy
    if state.held_term is None:
        return
    mine = (state.held_term, policy.preference(state.role))
    theirs = (beat.term, policy.preference(peer.role))
    _note_overlap(turn, beat)
    handover = turn.state.handover
    if handover is not None and handover.is_stopping:
        return
    runs_nothing = state.phase is Phase.FAILED and reports.running(state) == 0
    if runs_nothing and beat.phase is Phase.ACTIVE:
        releasing.demote(turn, peer.role, Reason.START_FAILED)
    elif theirs > mine and reports.serves(beat.phase, beat.running):
        releasing.demote(turn, None, Reason.NEWER_TERM)


def _note_overlap(turn: Turn, beat: Beat) -> None:
    """Both ran from the later of the two beginnings; None while one has not come so far."""
    state = turn.state
    known = state.overlap is not None and state.overlap.ended_at_s is None
    one_runs_nothing = beat.running == 0 or reports.running(state) == 0
    if known or one_runs_nothing or state.leading_at_s is None or beat.leading_for_s is None:
        return
    began_at_s = max(state.leading_at_s, turn.now - beat.leading_for_s)
    counters = state.counters
    turn.state = replace(
        state,
        overlap=Overlap(began_at_s=began_at_s),
        counters=replace(counters, overlaps=counters.overlaps + 1),
    )


def on_peer_not_holding(turn: Turn) -> None:
    """The other node does not lead: an overlap that this node won is over."""
    if turn.state.is_holding:
        releasing.end_overlap(turn)
