"""What an operator can order (design, section 8), and what a signal asks."""

from __future__ import annotations

from failover_agent.core import candidate, reports, votes
from failover_agent.core.changing import replace
from failover_agent.core.effects import ReplyToOperator
from failover_agent.core.events import CommandKind, CommandReceived, StopRequested
from failover_agent.core.policy import OnStop, Policy
from failover_agent.core.state import FOREVER, Reason, State, Stopping
from failover_agent.core.turn import Turn

DIFFERENCE_ENDS = (
    " Nobody takes over from a peer that keeps to other rules: write back here what it had, restart"
    " this agent, and say it again."
)
NOT_OFF = (
    "Stop its agent and look there with docker ps, or switch that host off;"
    " then say this again once nothing is heard from it."
)


def on_command(turn: Turn, event: CommandReceived) -> None:
    """Carry a command out, or say why not."""
    orders = {CommandKind.TAKEOVER: _takeover, CommandKind.RESUME: _resume}
    accepted, sentence = orders[event.command](turn)
    turn.emit(ReplyToOperator(event.request_id, accepted=accepted, sentence=sentence))


def _takeover(turn: Turn) -> tuple[bool, str]:
    """The operator's word stands for the peer's release; a peer that answers belies it."""
    state, now, policy = turn.state, turn.now, turn.policy
    if state.is_holding:
        return False, "This node holds the service already: nothing to take over."
    if policy.requires_lease and (because := _why_no_majority(state, now, policy)):
        return False, because
    cannot = reports.cannot_because(state, now, policy)
    if cannot:
        way = DIFFERENCE_ENDS if reports.differing_fingerprint(state, policy) else ""
        return False, f"This node cannot run the service: {'; '.join(cannot)}.{way}"
    for role in policy.others:
        peer = state.peers[role]
        runs = peer.holding or peer.running is None or peer.running > 0
        if reports.is_heard_lately(peer, now, policy) and runs:
            return (
                False,
                f"The {role} is not off: it answers, and may run the containers. {NOT_OFF}",
            )
    if state.stopping is not None:
        return False, "This agent is stopping."
    if state.stop_job is not None:
        return False, "Containers are still being stopped here: try again in a moment."
    if state.candidacy is not None:
        turn.state = replace(state, candidacy=replace(state.candidacy, by_word=True))
        return True, "Taking over."
    if state.durable.hold:  # The word ends it, and with it what its holder might wait for (V4, V8).
        turn.state = replace(state, grants_after_s=min(state.grants_after_s, now))
    turn.set_durable(replace(state.durable, hold=False))
    for role in policy.others:
        peer = turn.state.peers[role]
        turn.set_peer(replace(peer, holding=False))
    turn.state = replace(turn.state, promise=None, may_resume=False)
    candidate.begin(turn, Reason.OPERATOR, by_word=True)
    heard = [
        role
        for role in policy.others
        if reports.is_heard_lately(turn.state.peers[role], now, policy)
    ]
    if heard:
        return True, f"Taking over if the {heard[0]}, which answers, gives its vote: see status."
    return True, "Taking over."


def _why_no_majority(state: State, now: float, policy: Policy) -> str:
    """With an arbiter the operator's word ends a hold, and never stands for a vote (V8)."""
    assert policy.arbiter is not None
    if not any(reports.is_reachable(peer, now, policy) for peer in state.peers.values()):
        return (
            "Neither the other node nor the arbiter is heard, and there is no lease without one of"
            " them. Get the arbiter back; or, if it is gone for good, stop the other node, take"
            " [arbiter] out of the configuration of both, and restart this agent."
        )
    arbiter = state.peers[policy.arbiter]
    holder, until_s = arbiter.promised_to, arbiter.promised_until_s
    if holder not in (None, state.me) and now < until_s < FOREVER:
        return (
            "The arbiter hears the other node: it is not off, or was lost only a moment ago. If it"
            f" is off, this node takes over by itself within {policy.promise_length_s:.0f} s."
        )
    promise = votes.standing_promise(state, now)
    if promise is not None and promise.holder != state.me and promise.until_s < FOREVER:
        return (
            "The other node was heard a moment ago. If it is off, this node takes over by itself"
            f" within {policy.promise_length_s:.0f} s."
        )
    if not (state.durable.hold or votes.own_candidacy_is_free(state, now)):
        return (
            "This agent was only just started, and may have given its vote away before:"
            f" it is free again in {state.grants_after_s - now:.0f} s (V4)."
        )
    return ""


def _resume(turn: Turn) -> tuple[bool, str]:
    """Forget the failures and the moves that hold this node back."""
    state = turn.state
    if not state.may_save:
        return False, f"The record cannot be written: {state.record_error}."
    was_held = state.durable.on_hold_for_flapping or state.not_able_until_s > turn.now
    turn.set_durable(replace(state.durable, on_hold_for_flapping=False))
    turn.state = replace(
        turn.state,
        moves_at_s=(),
        not_able_until_s=turn.now,
        failures=0,
        ask_again_at_s=turn.now,
    )
    first = "Automatic moves are allowed again" if was_held else "Nothing was on hold"
    return True, f"{first}; failures and moves counted so far are forgotten."


def on_stop_requested(turn: Turn, event: StopRequested) -> None:
    """SIGTERM: hand over, or leave the containers running on hold (section 6); once is enough."""
    if turn.state.stopping is not None:
        return
    leave = event.restarting or turn.policy.on_stop is OnStop.LEAVE
    turn.state = replace(
        turn.state,
        next_beat_at_s=turn.now,
        stopping=Stopping(
            asked_at_s=turn.now,
            leave=leave and not event.host_is_shutting_down,
            host_is_shutting_down=event.host_is_shutting_down,
        ),
    )
