"""fence_command: make sure that the peer cannot run the service, before this node does (section 4).

With an arbiter a fence is never a vote: it runs after the majority was won, and promotion waits for
its success. In a plain pair its success stands for the vote of the silent peer. A fence that failed
has fenced nobody, and is tried again; a peer that gives its vote after all needs none.
"""

from __future__ import annotations

from collections.abc import Iterator

from failover_agent.core import reports
from failover_agent.core.changing import replace
from failover_agent.core.effects import RunFence
from failover_agent.core.events import FenceFinished
from failover_agent.core.policy import Policy, Role
from failover_agent.core.state import Candidacy, Fencing, Reason, State
from failover_agent.core.turn import Turn

SHORTEST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
"""Between two tries: doubled after each failure."""


def before_promotion(turn: Turn, candidacy: Candidacy) -> Fencing | None:
    """Whom to fence now that `candidacy` has won, None where nobody needs to be.

    Who voted has confirmed that nothing runs there (V5). Who says so with its beats need not be
    waited for: it was only slower than the arbiter, or may not vote yet (V4).
    """
    if not (turn.policy.has_fence and turn.policy.requires_lease):
        return None
    for role in turn.policy.others:
        if role not in candidacy.granted and not _says_that_nothing_runs(turn, role):
            return Fencing(candidacy.term, role, candidacy.reason)
    return None


def _says_that_nothing_runs(turn: Turn, role: Role) -> bool:
    peer = turn.state.peers[role]
    is_there = reports.is_heard_lately(peer, turn.now, turn.policy)
    return is_there and not peer.holding and peer.running == 0


def run_in_time(turn: Turn) -> None:
    """The step of a promotion. One that is heard may be stopping what it found (G3): it is not
    switched off in the middle of that.
    """
    fencing = turn.state.fencing
    assert fencing is not None
    if reports.is_heard_lately(turn.state.peers[fencing.target], turn.now, turn.policy):
        retry_at_s = turn.now + turn.policy.patience_s
        turn.state = replace(turn.state, fencing=replace(fencing, retry_at_s=retry_at_s))
    else:
        run(turn)


def begin(turn: Turn, term: int, target: Role, reason: Reason) -> None:
    """A plain pair: `target` is silent, and its vote is wanted."""
    turn.state = replace(turn.state, fencing=Fencing(term, target, reason))
    run(turn)


def run(turn: Turn) -> None:
    """Give the order."""
    fencing = turn.state.fencing
    assert fencing is not None
    turn.state = replace(turn.state, fencing=replace(fencing, is_running=True))
    turn.emit(RunFence(term=fencing.term, target=fencing.target, reason=fencing.reason))


def on_finished(turn: Turn, event: FenceFinished) -> None:
    """Only success moves on; a failure alarms, and is tried again with a growing pause."""
    fencing = turn.state.fencing
    if fencing is None or (fencing.term, fencing.target) != (event.term, event.target):
        turn.count_stale()
    elif event.error:
        pause_s = SHORTEST_PAUSE_S * 2.0 ** min(fencing.failures, 10)
        failed = replace(
            fencing,
            is_running=False,
            failures=fencing.failures + 1,
            error=event.error,
            retry_at_s=turn.now + min(pause_s, LONGEST_PAUSE_S),
        )
        turn.state = replace(turn.state, fencing=failed)
    else:
        turn.state = replace(turn.state, fencing=None)
        candidacy = turn.state.candidacy
        if candidacy is not None:
            fenced = candidacy.fenced | {event.target}
            turn.state = replace(turn.state, candidacy=replace(candidacy, fenced=fenced))


def advance(turn: Turn) -> None:
    """Try again what failed; leave alone a peer that has voted, or stopped, meanwhile."""
    state, fencing = turn.state, turn.state.fencing
    if fencing is None or fencing.is_running:
        return
    has_stopped = turn.policy.requires_lease and _says_that_nothing_runs(turn, fencing.target)
    if has_stopped or fencing.target in state.renewed_at_s:
        turn.state = replace(state, fencing=None)
    elif turn.now >= fencing.retry_at_s:
        run(turn)


def needs(policy: Policy) -> bool:
    """Does silence count only where a fence confirmed it? In a plain pair that has one."""
    return policy.has_fence and not policy.requires_lease


def moments_s(state: State) -> Iterator[float | None]:
    """The moments at which something here becomes due; None where nothing will."""
    if state.fencing is not None and not state.fencing.is_running:
        yield state.fencing.retry_at_s
