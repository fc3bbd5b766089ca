"""The ways to one peer: `endpoint` may be a list, of the network and of a direct cable.

Everything is said over all of them side by side, and the first answer is the answer. So a path is
never a reason to decide anything: a lost one is an alarm, and no failover. Where all are lost the
peer is silent, and that is told, and acted on, elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping

from failover_agent.core import reports
from failover_agent.core.changing import replace
from failover_agent.core.events import PathAnswered, PathFailed
from failover_agent.core.policy import Policy, Role
from failover_agent.core.state import PathView, PeerView, State
from failover_agent.core.turn import Turn


def known(state: State, endpoints: Mapping[Role, tuple[str, ...]]) -> State:
    """`state` at its begin, told where the other voters are reached; an etcd has no paths here."""
    peers = {
        role: replace(peer, paths=tuple(PathView(each) for each in endpoints.get(role, ())))
        for role, peer in state.peers.items()
    }
    return replace(state, peers=peers)


def on_answered(turn: Turn, event: PathAnswered) -> None:
    """It works, or works again."""
    _put(turn, event.peer, PathView(event.endpoint, is_answering=True))


def on_failed(turn: Turn, event: PathFailed) -> None:
    """It does not, and has not since then."""
    since_s = event.silent_since_s
    _put(turn, event.peer, PathView(event.endpoint, False, since_s, event.error))


def _put(turn: Turn, role: Role, path: PathView) -> None:
    peer = turn.state.peers[role]
    paths = tuple(path if each.endpoint == path.endpoint else each for each in peer.paths)
    turn.set_peer(replace(peer, paths=paths))


def lost(peer: PeerView, now: float, policy: Policy) -> tuple[PathView, ...]:
    """The paths to a peer that is heard all the same, over which it has not answered for T.

    Counted only while we ourselves ran, as silence always is. A peer that falls silent altogether
    has lost no path.
    """
    if len(peer.paths) < 2 or not reports.is_reachable(peer, now, policy):
        return ()
    return tuple(path for path in peer.paths if _is_silent(peer, path, now, policy))


def _is_silent(peer: PeerView, path: PathView, now: float, policy: Policy) -> bool:
    if path.silent_since_s is None or peer.heard_at_s is None:
        return False
    if peer.heard_at_s - path.silent_since_s <= policy.patience_s:
        return False  # It fell silent when the peer did.
    since_s = max(path.silent_since_s, peer.silent_since_s)
    return now - since_s >= policy.heartbeat_timeout_s


def why_lost(peer: PeerView, path: PathView) -> str:
    """The sentence of the alarm: which, what is seen of it, and where to look."""
    return (
        f"the {peer.role} does not answer over {path.endpoint} ({path.error}), and is heard all "
        "the same: look after that cable, its interfaces and their firewalls, before the next "
        "path fails"
    )


def is_one_of_several(state: State, endpoint: str) -> bool:
    """Is this one of more than one endpoint of a peer?"""
    return any(
        len(peer.paths) > 1 and any(path.endpoint == endpoint for path in peer.paths)
        for peer in state.peers.values()
    )
