"""A node that does not lead: silence, candidacy, strays (design, sections 4 and 6).

`advance` is called after every event; it looks at the facts and does what is due. A candidacy polls
first (H0), then takes a term, saves it, and asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from failover_agent.core import fencing, leading, leases, reports, votes
from failover_agent.core.changing import replace
from failover_agent.core.effects import DisarmGuard, SendVoteRequest, StopContainers
from failover_agent.core.events import VoteAnswered
from failover_agent.core.messages import Refusal, VoteKind, VoteRequest
from failover_agent.core.policy import LoneStart, PartitionPolicy, Policy, Role
from failover_agent.core.state import (
    FOREVER,
    HOLDING_PHASES,
    NEVER,
    Candidacy,
    Overlap,
    PeerView,
    Phase,
    Readiness,
    Reason,
    Stage,
    State,
)
from failover_agent.core.turn import Turn

UNABLE = frozenset({Refusal.NOT_READY, Refusal.CONTAINERS_RUN})
"""Refusals of a voter that is not able to vote now: no promise of its own stands behind them."""


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
            begin_candidacy(turn, reason)
    if turn.state.candidacy is not None:
        _pursue(turn)
    _disarm_guard(turn)


def _disarm_guard(turn: Turn) -> None:
    """G1, G2: a guard that kills, or would, ends with the word that everything is stopped."""
    state = turn.state
    if state.is_guard_armed and not state.is_holding and reports.is_stopped(state):
        turn.state = replace(state, is_guard_armed=False, guarded=None)
        turn.emit(DisarmGuard(term=state.durable.term))


def _holders(state: State, now: float, policy: Policy) -> list[PeerView]:
    return [peer for peer in state.peers.values() if reports.is_holding(peer, now, policy)]


def _watch_for_a_leader(turn: Turn) -> None:
    """Note since when nobody has been seen to lead; an invitation ends when somebody does."""
    state = turn.state
    if _holders(state, turn.now, turn.policy):
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
    told = (peer.term or 0 for peer in state.peers.values())
    if state.is_first and any(term > state.durable.term for term in told):
        turn.state = replace(state, is_first=False)


def _look_around(turn: Turn) -> None:
    """Starting: become standby once somebody leads, or one that goes first is able to."""
    if _holders(turn.state, turn.now, turn.policy):
        turn.enter(Phase.STANDBY, Reason.PEER_ACTIVE)
    elif turn.state.engine.reachable and _is_outranked(turn.state, turn.now, turn.policy):
        turn.enter(Phase.STANDBY, Reason.PEER_PREFERRED)


def _claim(
    is_ready: bool, last_held: int, running: int | None, preference: int
) -> tuple[bool, int, bool, int]:
    """The order of section 6: the last holder, where the containers already run, the preferred.

    One whose last start failed, or whose containers differ, comes after one that is ready.
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
        for peer in _members(state, policy)
    )


def _members(state: State, policy: Policy) -> list[PeerView]:
    return [state.peers[role] for role in policy.others]


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
    for peer in _holders(state, turn.now, turn.policy):
        _note_overlap(turn, peer, names)
    grace_s = 0.0 if turn.policy.requires_lease else None
    turn.emit(StopContainers(term=state.durable.term, names=names, grace_s=grace_s))


def _may_run_on(state: State, now: float, policy: Policy) -> bool:
    """May a container stay that runs here though this node leads in no term?"""
    if policy.requires_lease:
        return reports.asks_to_resume(state) or _may_run_without_lease(state, now, policy)
    leaders = _holders(state, now, policy)
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
        for peer in _members(state, policy)
    )


def _is_unheard_or_here(state: State, now: float, policy: Policy) -> bool:
    """Is no other voter one that was heard, and is not any more, or a member that asks to lead?"""
    calm = (None, Phase.STARTING, Phase.STANDBY)
    return all(
        peer.heard_at_s is None
        or (reports.is_heard_lately(peer, now, policy) and peer.phase in calm)
        for peer in state.peers.values()
    )


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
    if not may_ask(state, now, policy) or _holders(state, now, policy):
        return None
    if policy.requires_lease and reports.asks_to_resume(state):
        return None  # The lease of the agent before this one runs: it is taken up, or it ends (H6).
    if not could_win(state, now, policy):
        return None
    if state.invitation is not None:
        return state.invitation
    if now < state.stand_back_until_s:
        return None
    if _alone(state, now, policy):
        return _reason_alone(state, now, policy)
    waits = [peer for peer in _members(state, policy) if not reports.abstains(peer, now, policy)]
    if reports.asks_to_resume(state) and waits:
        return None
    if any(reports.is_reachable(peer, now, policy) for peer in _members(state, policy)):
        return _reason_together(state, now, policy)
    return None


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


def _alone(state: State, now: float, policy: Policy) -> bool:
    """Are all other members silent?"""
    return all(reports.is_silent(peer, now, policy) for peer in _members(state, policy))


def _reason_alone(state: State, now: float, policy: Policy) -> Reason | None:
    """Everybody else is silent: takeover on silence, or a lone start after a boot."""
    if state.phase is Phase.STARTING and not policy.requires_lease:
        if now < starts_alone_at_s(state, policy):
            return None
        if not knows_its_pair(state, policy):
            return None
    if state.is_first and policy.requires_lease and not knows_its_pair(state, policy):
        return None
    if not policy.requires_lease and not silence_is_leave(state, policy):
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


def knows_its_pair(state: State, policy: Policy) -> bool:
    """May this node start alone: is it the preferred one, or has it heard those before it once?"""
    if state.led_and_kept or fencing.needs(policy):
        return True
    before = policy.members[: policy.members.index(state.role)]
    return policy.lone_start is LoneStart.START or all(
        role in state.durable.heard for role in before
    )


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


def _reason_together(state: State, now: float, policy: Policy) -> Reason | None:
    """The others answer and nobody leads: the first in order asks, the other waits for it."""
    if _is_outranked(state, now, policy) and now < _turn_comes_at_s(state, policy):
        return None
    members = _members(state, policy)
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
    if state.reason is not Reason.PEER_PREFERRED:
        return since_s + time_s
    return max(since_s, state.since_s) + max(time_s, policy.promise_length_s + policy.patience_s)


def begin_candidacy(turn: Turn, reason: Reason, *, by_word: bool = False) -> None:
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
        request = VoteRequest(
            sender=reports.sender(turn.state, turn.policy),
            kind=kind,
            term=candidacy.term,
            lease_s=turn.policy.heartbeat_timeout_s,
            longest_lease_s=reports.longest_lease_s(turn.state, turn.policy),
            reason=candidacy.reason,
        )
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
    for peer in _members(state, policy):
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
    return {peer.role for peer in _members(state, policy) if _is_absent(state, now, policy, peer)}


def highest_term(state: State) -> int:
    """The highest term this node was ever told of, or granted."""
    asked = 0 if state.candidacy is None else state.candidacy.term
    return max(state.durable.term, asked, *(peer.term or 0 for peer in state.peers.values()))


def _pursue(turn: Turn) -> None:
    """Acquiring, or fencing in a plain pair: give up, go on to the next stage, or win."""
    state = turn.state
    candidacy = state.candidacy
    assert candidacy is not None
    if _holders(state, turn.now, turn.policy):
        give_up(turn, Reason.PEER_ACTIVE, turn.policy.heartbeat_interval_s)
    elif state.stopping is not None or reports.cannot_because(state, turn.now, turn.policy):
        give_up(turn, Reason.NOT_ABLE, turn.policy.heartbeat_interval_s)
    elif not _has_own_vote(state, turn.now, turn.policy):
        give_up(turn, Reason.PEER_ACTIVE, turn.policy.heartbeat_interval_s)
    elif has_majority(state, turn.now, turn.policy):
        if candidacy.stage is Stage.POLL:
            take_term(turn)
            _pursue(turn)
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
            soon_s = turn.now + min(wait_s, turn.policy.promise_length_s)
            turn.state = replace(turn.state, ask_again_at_s=soon_s)
    turn.state = replace(turn.state, candidacy=candidacy)


def _without(answered_at_s: Mapping[Role, float], voter: Role) -> Mapping[Role, float]:
    return {role: at_s for role, at_s in answered_at_s.items() if role is not voter}


def _question(candidacy: Candidacy) -> tuple[VoteKind, int]:
    kind = VoteKind.POLL if candidacy.stage is Stage.POLL else VoteKind.CANDIDACY
    return kind, candidacy.term


def moments_s(state: State, policy: Policy) -> Iterator[float | None]:
    """The moments at which something here becomes due; None where nothing will."""
    if state.is_holding:
        return
    yield state.grants_after_s
    yield state.stand_back_until_s
    yield state.ask_again_at_s
    yield state.retry_at_s
    yield starts_alone_at_s(state, policy)
    if state.promise is not None:
        yield state.promise.until_s
    yield _turn_comes_at_s(state, policy)
    for peer in state.peers.values():
        yield reports.silent_at_s(peer, policy)
        yield peer.promised_until_s
        if peer.heard_at_s is not None:
            yield peer.heard_at_s + policy.patience_s
