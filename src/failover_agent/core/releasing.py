"""Giving the service up: stop, confirm, release, and leave when the agent is told to.

Renewing goes on until every container is confirmed stopped; the release is said until it is
answered (H5, V7). A stop that cannot be confirmed is tried again, and nothing is released
meanwhile (H3).
"""

from __future__ import annotations

from collections.abc import Iterator

from failover_agent.core import containers, leases, reports
from failover_agent.core.changing import replace
from failover_agent.core.effects import DisarmGuard, Exit, SendRelease, StopContainers
from failover_agent.core.events import (
    ContainersStopped,
    HeartbeatAnswered,
    ReleaseAnswered,
    StopFailed,
)
from failover_agent.core.messages import ReleaseRequest
from failover_agent.core.policy import Policy, Role
from failover_agent.core.state import (
    FOREVER,
    ContainerState,
    ContainerView,
    Handover,
    PendingRelease,
    Phase,
    Reason,
    State,
)
from failover_agent.core.turn import Turn

NOT_ABLE_FOR_S = 60.0
"""After a failed start nobody hands over to this node for so long, doubled with each failure."""

LONGEST_NOT_ABLE_S = 3600.0

UNPLANNED = frozenset(
    {Reason.CONTAINER_DOWN, Reason.ENGINE_LOST, Reason.START_FAILED, Reason.PEER_SILENT}
)
"""The moves that count towards `max_failovers`."""

HELD_BACK = frozenset({Reason.CONTAINER_DOWN, Reason.START_FAILED})
"""The moves that stop when it is reached, where something still runs here."""


def is_flapping(state: State, now: float, policy: Policy) -> bool:
    """Has the service moved so often that it stays until an operator says `resume`?"""
    recent = [at_s for at_s in state.moves_at_s if now - at_s < policy.failover_window_s]
    return state.durable.on_hold_for_flapping or len(recent) >= policy.max_failovers


def is_held_back(state: State, now: float, policy: Policy) -> bool:
    """Does the service stay for flapping? Only where some of it runs: nothing is not better."""
    return is_flapping(state, now, policy) and reports.running(state) != 0


def ends_without_taker(state: State, now: float, policy: Policy, to: Role | None) -> bool:
    """Was the agent told to stop, and nobody can take the service, or said so in time?"""
    stopping = state.stopping
    if stopping is None or stopping.leave:
        return False
    return to is None or now >= _patient_until_s(state, stopping.asked_at_s, policy)


def _patient_until_s(state: State, asked_at_s: float, policy: Policy) -> float:
    """How long an answer is waited for; our own absence is not the silence of those we asked, but
    nobody who stops and is kept from running again and again waits for ever.
    """
    longest_s = asked_at_s + policy.heartbeat_timeout_s
    return min(max(asked_at_s, state.woke_at_s), longest_s) + policy.patience_s


def moves(state: State, now: float, policy: Policy, reason: Reason) -> tuple[float, ...]:
    """The unplanned moves within failover_window, with this one if it is one; bounded."""
    recent = [at_s for at_s in state.moves_at_s if now - at_s < policy.failover_window_s]
    if reason in UNPLANNED:
        recent.append(now)
    return tuple(recent[-max(policy.max_failovers, 1) :])


def keep_to_the_lease(turn: Turn) -> None:
    """H3: stop in time before the lease ends, and kill what still runs shortly before.

    Only answers move that; the guard does the same if this process does not (G2).
    """
    state, policy = turn.state, turn.policy
    if turn.now < leases.must_stop_at_s(state, policy):
        return
    is_stopping = state.handover is not None and state.handover.is_stopping
    if not is_stopping:
        demote(turn, None, Reason.LEASE_LOST)
    elif turn.now >= leases.kill_at_s(state, policy) and not state.is_killing:
        _order_stop(turn)


def demote(turn: Turn, to: Role | None, reason: Reason) -> None:
    """Stop the containers, last first; renewing goes on until they are confirmed stopped."""
    turn.state = replace(
        turn.state,
        handover=Handover(
            to=to, reason=reason, decided_at_s=turn.now, asked_at_s=turn.now, is_stopping=True
        ),
        candidacy=None,
        fencing=None,
        is_killing=False,
    )
    turn.enter(Phase.DEMOTING, reason)
    _order_stop(turn)


def _order_stop(turn: Turn) -> None:
    term = turn.state.held_term
    assert term is not None
    names = tuple(reversed(turn.policy.containers))
    grace_s = _grace_s(turn)
    turn.state = replace(turn.state, stop_job=term, stop_names=names, is_killing=grace_s == 0)
    turn.emit(StopContainers(term=term, names=names, grace_s=grace_s))


def _grace_s(turn: Turn) -> float | None:
    """How long the containers have to end: each its own, unless the lease ends (H3)."""
    if turn.now < leases.stop_at_s(turn.state, turn.policy):
        return None
    return max(0.0, leases.kill_at_s(turn.state, turn.policy) - turn.now)


def stop_again(turn: Turn) -> None:
    """A stop that could not be confirmed is tried again."""
    if turn.state.stop_job is None and turn.now >= turn.state.retry_at_s:
        _order_stop(turn)


def on_stopped(turn: Turn, event: ContainersStopped) -> None:
    """Everything is confirmed stopped, and no start is outstanding: give the term back (V7)."""
    if turn.state.stop_job != event.term:
        turn.count_stale()
        return
    turn.set_containers(_stopped(turn.state.containers[name]) for name in turn.state.stop_names)
    turn.state = replace(
        turn.state, stop_job=None, start_job=None, repairing=frozenset(), is_killing=False
    )
    handover, term = turn.state.handover, turn.state.held_term
    if term is None or handover is None:
        if not turn.state.containers.alive:
            end_overlap(turn)
        return
    if not turn.state.may_save:
        _keep_what_cannot_be_released(turn, handover)
        return
    if turn.state.phase is Phase.FAILED:
        turn.enter(Phase.DEMOTING, handover.reason)
    _release(turn, term, handover)


def _stopped(view: ContainerView) -> ContainerView:
    is_unknown = view.state is ContainerState.UNKNOWN
    state = ContainerState.UNKNOWN if is_unknown else ContainerState.DOWN
    return replace(view, alive=False, state=state, up_since_s=None)


def end_overlap(turn: Turn) -> None:
    """Only one of the two runs from now on."""
    overlap = turn.state.overlap
    if overlap is not None and overlap.ended_at_s is None:
        turn.state = replace(turn.state, overlap=replace(overlap, ended_at_s=turn.now))


def _keep_what_cannot_be_released(turn: Turn, handover: Handover) -> None:
    """The disk failed between stop and release: serve on here rather than nowhere (S5).

    Where somebody else serves already, or the host goes down, the stop is confirmed again until
    the release can be saved.
    """
    stopping = turn.state.stopping
    going_down = stopping is not None and stopping.host_is_shutting_down
    if handover.to is None or going_down:
        _retry_later(turn)
        return
    because = f"the release could not be saved: {turn.state.record_error}"
    turn.state = replace(turn.state, handover=None, failed_because=because)
    if turn.state.phase is Phase.DEMOTING:
        turn.enter(Phase.FAILED, Reason.RECORD_NOT_WRITABLE)
    containers.count_from_now(turn)


def _release(turn: Turn, term: int, handover: Handover) -> None:
    state, policy = turn.state, turn.policy
    not_able_s = 0.0
    if handover.reason is Reason.START_FAILED:
        doubled_s = NOT_ABLE_FOR_S * 2 ** min(state.failures, 6)
        not_able_s = turn.now + min(doubled_s, LONGEST_NOT_ABLE_S)
    end_overlap(turn)
    turn.set_durable(replace(state.durable, released=True, hold=False))
    if policy.requires_lease:
        turn.emit(DisarmGuard(term=term))
    turn.state = replace(
        turn.state,
        held_term=None,
        renewed_at_s={},
        on_hold_at=frozenset(),
        guarded=None,
        guard_error="",
        is_guard_armed=False,
        promoted_at_s=None,
        leading_at_s=None,
        promise=None,
        handover=None,
        release=PendingRelease(
            term=max(term, state.durable.term),
            to=handover.to,
            reason=handover.reason,
            next_at_s=turn.now,
            until_s=turn.now + policy.promise_length_s if policy.requires_lease else FOREVER,
        ),
        stand_back_until_s=turn.now + policy.patience_s,
        not_able_until_s=max(state.not_able_until_s, not_able_s),
        moves_at_s=moves(state, turn.now, policy, handover.reason),
        leaderless_at_s=turn.now,
    )
    containers.stop_counting(turn)
    turn.enter(Phase.STANDBY, Reason.ALL_STOPPED)


def on_stop_failed(turn: Turn, event: StopFailed) -> None:
    """It cannot be confirmed that everything is stopped: hold on to the term, and try again."""
    if turn.state.stop_job != event.term:
        turn.count_stale()
        return
    _retry_later(turn)
    if turn.state.is_holding:
        turn.state = replace(turn.state, failed_because=f"{', '.join(event.names)}: {event.error}")
        if turn.state.phase is Phase.DEMOTING:
            turn.enter(Phase.FAILED, Reason.STOP_NOT_CONFIRMED)


def _retry_later(turn: Turn) -> None:
    retry_at_s = turn.now + max(turn.policy.heartbeat_interval_s, 1.0)
    turn.state = replace(turn.state, stop_job=None, retry_at_s=retry_at_s)


def say_release(turn: Turn) -> None:
    """Say a release until it is answered, or somebody holds a newer term (H5)."""
    release = turn.state.release
    if release is None or turn.now < release.next_at_s:
        return
    if turn.now >= release.until_s and release.to in (None, *release.answered):
        turn.state = replace(turn.state, release=None)
        return
    turn.state = replace(
        turn.state,
        release=replace(release, next_at_s=turn.now + turn.policy.heartbeat_interval_s),
    )
    request = ReleaseRequest(
        sender=reports.sender(turn.state, turn.policy),
        term=release.term,
        to=release.to,
        reason=release.reason,
    )
    for role in turn.policy.voters:
        if role is not turn.state.role and role not in release.answered:
            turn.emit(
                SendRelease(to=role, request=request, deadline_s=turn.policy.heartbeat_timeout_s)
            )


def on_release_answered(turn: Turn, event: ReleaseAnswered) -> None:
    """The one it was for knows (anyone, when it was for nobody); with an arbiter all do."""
    release = turn.state.release
    if release is None or event.answer.released_term != release.term:
        turn.count_stale()
        return
    answered = release.answered | {event.voter}
    others = set(turn.policy.voters) - {turn.state.role}
    enough = others <= answered if turn.policy.requires_lease else release.to in (None, event.voter)
    turn.state = replace(
        turn.state, release=None if enough else replace(release, answered=answered)
    )


def stop_without_taker(turn: Turn) -> None:
    """The agent is to stop and nobody said that it will take the service over (section 6, V8).

    Leave it running, on hold; but a host that shuts down ends its containers anyway, so there they
    are stopped in good order and the term is given back for whoever comes.
    """
    stopping = turn.state.stopping
    assert stopping is not None
    if turn.state.phase is Phase.FENCING:
        demote(turn, None, Reason.AGENT_STOPPING)  # Nothing was begun: nothing is left behind.
    elif stopping.host_is_shutting_down:
        demote(turn, turn.policy.others[0], Reason.AGENT_STOPPING)
    else:
        turn.state = replace(
            turn.state,
            stopping=replace(stopping, leave=True, asked_at_s=turn.now),
            handover=None,
            next_beat_at_s=turn.now,
        )


def note_hold(turn: Turn, event: HeartbeatAnswered) -> None:
    """Another voter has put its promise on hold, so that nobody else has a majority: leave."""
    vote = event.answer.vote
    held = vote is not None and vote.remaining_s == FOREVER
    if reports.asks_to_hold(turn.state) and held:
        role = event.to
        turn.emit(
            Exit(
                f"The containers are left running; the {role} holds: nobody will take over"
                " until this agent is back or an operator says takeover."
            )
        )


def _last_words(state: State) -> str:
    """Of an agent that holds no term."""
    if state.led_and_kept:
        return (
            "Nobody confirmed the term of this restarted agent; the containers are left as they"
            " are, and another node may take over after heartbeat_timeout."
        )
    return "This agent holds no term: nothing is left to do."


def _words_untold(state: State, policy: Policy) -> str:
    """Of an agent that holds its term, and whose peer did not confirm a hold."""
    peers = " and ".join(f"the {role}" for role in policy.others)
    if reports.running(state) == 0:
        return f"Nothing runs here; {peers} may take over after heartbeat_timeout."
    return (
        f"The containers are left running, but {peers} could not be told to hold:"
        " it may take over after heartbeat_timeout."
    )


def exit_if_due(turn: Turn) -> None:
    """After SIGTERM: exit once the service is somebody else's, or on hold, or time is up.

    Until then this node still answers: the one that takes over needs its vote.
    """
    state, policy = turn.state, turn.policy
    stopping = state.stopping
    if stopping is None:
        return
    asked_at_s = max(stopping.asked_at_s, state.since_s)
    in_time = turn.now < _patient_until_s(state, asked_at_s, policy)
    if reports.asks_to_resume(state) and in_time:
        return
    if not state.is_holding:
        taken = any(reports.is_holding(peer, turn.now, policy) for peer in state.peers.values())
        if taken or turn.now >= state.stand_back_until_s:
            turn.emit(Exit(_last_words(state)))
    elif reports.is_leaving(state) and not in_time:
        if policy.requires_lease and reports.running(state) != 0:
            demote(turn, None, Reason.AGENT_STOPPING)  # V8: a lease ends, and nobody holds.
        else:
            turn.emit(Exit(_words_untold(state, policy)))


def moments_s(state: State, policy: Policy) -> Iterator[float | None]:
    """The moments at which something here becomes due; None where nothing will."""
    if state.release is not None:
        yield state.release.next_at_s
        yield state.stand_back_until_s
    if state.handover is not None:
        yield state.handover.asked_at_s + policy.heartbeat_interval_s
        yield state.retry_at_s
    if state.stopping is not None:
        yield _patient_until_s(state, state.stopping.asked_at_s, policy)
