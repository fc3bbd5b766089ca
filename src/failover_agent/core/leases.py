"""The lease of a holder: until when it may lead, and what falls due before that (H1, H3, H4).

It is held by a majority of promises and exists only with an arbiter; a plain pair has none, and
every moment here is then FOREVER. All of it is on the holder's own CLOCK_BOOTTIME, and counts from
when a question left, never from when its answer came.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from failover_agent.core.changing import replace
from failover_agent.core.effects import MoveDeadline
from failover_agent.core.policy import Policy, Role
from failover_agent.core.state import FOREVER, NEVER, Phase, State
from failover_agent.core.turn import Turn


def valid_until_s(state: State, policy: Policy) -> float:
    """H1: until when this node may lead; NEVER without a term, FOREVER on hold or without a lease.

    `sent + T(1-d)` of the newest answer that, with this node's own vote, completes a majority.
    """
    if not policy.requires_lease:
        return FOREVER
    needed = policy.majority - 1
    if state.held_term is None:
        return NEVER
    if len(state.on_hold_at) >= needed:
        return FOREVER  # V8: nobody else can have a majority, so there is no deadline.
    return ends_at_s(state.renewed_at_s.values(), policy)


def ends_at_s(sent_at_s: Iterable[float], policy: Policy) -> float:
    """When a lease ends whose granted questions left at `sent_at_s`, one for each other voter."""
    newest = sorted(sent_at_s, reverse=True)
    needed = policy.majority - 1
    return newest[needed - 1] + policy.lease_s if len(newest) >= needed else NEVER


def is_majority(
    granted: Collection[Role], sent_at_s: Iterable[float], now: float, policy: Policy
) -> bool:
    """Have enough granted a term, and lately enough that something can still be started in it?"""
    if len(granted) < policy.majority:
        return False
    return not policy.requires_lease or now < ends_at_s(sent_at_s, policy) - policy.stop_budget_s


def is_fresh(sent_at_s: float | None, now: float, policy: Policy) -> bool:
    """Does the yes to a question that left then still count? None: our own vote.

    Where there is a lease something must still fit into it; without one the promise behind the
    answer must still stand, on a clock that may run faster than ours.
    """
    if sent_at_s is None:
        return True
    margin_s = policy.stop_budget_s if policy.requires_lease else 0.0
    return now < sent_at_s + policy.lease_s - margin_s


def is_running(state: State, now: float, policy: Policy) -> bool:
    """May this node say that its lease has not ended (V2)?"""
    return state.is_holding and now < valid_until_s(state, policy)


def stop_at_s(state: State, policy: Policy) -> float:
    """H3: when the containers are to be stopped, unless an answer moves it."""
    return valid_until_s(state, policy) - policy.stop_budget_s


def must_stop_at_s(state: State, policy: Policy) -> float:
    """H3, S2: when the stop begins. Who was away at that moment has first a chance to renew.

    The chance is an interval, at most half of what is left before the kill; its beats are overdue
    and leave at once. Nothing is started meanwhile (H4).
    """
    until_s, woke_s = valid_until_s(state, policy), state.woke_at_s
    stop_s, left_s = until_s - policy.stop_budget_s, until_s - policy.kill_budget_s - woke_s
    if woke_s < stop_s or left_s <= 0:
        return stop_s
    return woke_s + min(policy.heartbeat_interval_s, left_s / 2)


def kill_at_s(state: State, policy: Policy) -> float:
    """H3: when they are to be killed."""
    return valid_until_s(state, policy) - policy.kill_budget_s


def start_deadline_s(state: State, policy: Policy) -> float:
    """H4: no start call is written at or after this moment, on CLOCK_BOOTTIME.

    With a lease that is when the stopping would begin. And an agent that has not stepped for T/2
    does not know any more what it may do.
    """
    awake_s = max(policy.heartbeat_timeout_s / 2, 2 * policy.heartbeat_interval_s)
    awake_until_s = state.stepped_at_s + awake_s
    return min(stop_at_s(state, policy), awake_until_s)


def is_guarded(state: State, policy: Policy) -> bool:
    """G1: has the guard said that it watches in the held term, or is none needed?"""
    return not policy.requires_lease or state.guarded == state.held_term


def voters(state: State, policy: Policy, now: float) -> tuple[Role, ...]:
    """Whose promise to this node still runs, as far as it can know: itself included."""
    if not state.is_holding or not policy.requires_lease:
        return ()
    renewed = {
        role
        for role, sent_at_s in state.renewed_at_s.items()
        if role in state.on_hold_at or now < sent_at_s + policy.lease_s
    }
    return tuple(role for role in policy.voters if role is state.role or role in renewed)


def note_answer(turn: Turn, voter: Role, sent_at_s: float, *, is_hold: bool) -> None:
    """`voter` granted the held term to a question that left at `sent_at_s` (H1, V8).

    An answer counts whenever it comes; one older than another, a word of hold too, changes nothing.
    The guard is told of the new end, and of nothing else (G1).
    """
    state = turn.state
    before_s = valid_until_s(state, turn.policy)
    if sent_at_s >= state.renewed_at_s.get(voter, NEVER):
        on_hold_at = state.on_hold_at | {voter} if is_hold else state.on_hold_at - {voter}
        renewed_at_s = {**state.renewed_at_s, voter: sent_at_s}
        turn.state = replace(state, renewed_at_s=renewed_at_s, on_hold_at=on_hold_at)
    after_s = valid_until_s(turn.state, turn.policy)
    term = turn.state.held_term
    is_told = turn.state.phase is not Phase.FENCING  # it is armed after that, with the newest end
    if turn.policy.requires_lease and term is not None and is_told and after_s != before_s:
        turn.emit(MoveDeadline(term=term, valid_until_s=after_s))


def end_hold(turn: Turn) -> None:
    """V8: a plain renewal leaves now. Whoever held renews by it, whether we hear of that or not.

    So the lease has an end again: this one's, until an answer moves it.
    """
    state = turn.state
    if not state.on_hold_at:
        return
    renewed = dict.fromkeys(state.on_hold_at, turn.now)
    turn.state = replace(
        state, renewed_at_s={**state.renewed_at_s, **renewed}, on_hold_at=frozenset()
    )
    assert state.held_term is not None
    until_s = valid_until_s(turn.state, turn.policy)
    turn.emit(MoveDeadline(term=state.held_term, valid_until_s=until_s))


def moments_s(state: State, policy: Policy) -> Iterator[float | None]:
    """The moments at which something here becomes due; None where nothing will."""
    if policy.requires_lease and state.is_holding:
        until_s = valid_until_s(state, policy)
        yield until_s - policy.stop_budget_s
        yield must_stop_at_s(state, policy)
        yield until_s - policy.kill_budget_s
        yield until_s
    if policy.requires_lease and state.may_resume:
        yield state.lease_until_s - policy.kill_budget_s
