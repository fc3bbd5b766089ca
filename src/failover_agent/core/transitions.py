"""The legal edges between phases: the only place that knows them.

Each edge names the rule of the design that allows it, the reasons that may lead over it, and the
sentence that an operator reads. The diagram in docs/ is generated from this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from failover_agent.core.state import Phase, Reason

CANDIDACY_REASONS = frozenset(
    {
        Reason.FIRST_START,
        Reason.NOBODY_ACTIVE,
        Reason.PEER_SILENT,
        Reason.PEER_RELEASED,
        Reason.CONTAINER_DOWN,
        Reason.ENGINE_LOST,
        Reason.START_FAILED,
        Reason.AGENT_STOPPING,
        Reason.OPERATOR,
    }
)
"""Why a node asks to be active; the reason stays with the term until it ends."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One legal change of phase: `sentence` says what happens, for an operator."""

    rule: str
    reasons: frozenset[Reason]
    sentence: str


def _edge(rule: str, sentence: str, *reasons: Reason) -> Edge:
    return Edge(rule, frozenset(reasons), sentence)


EDGES: Mapping[tuple[Phase, Phase], Edge] = {
    (Phase.STARTING, Phase.STANDBY): _edge(
        "start",
        "somebody else runs the service, or is to start it",
        Reason.PEER_ACTIVE,
        Reason.PEER_PREFERRED,
        Reason.GUARD_KILL,
    ),
    (Phase.STARTING, Phase.ACTIVE): _edge(
        "H6",
        "the term this node held before the restart still stands: resumed, nothing touched",
        Reason.RESUMED,
    ),
    (Phase.STARTING, Phase.ACQUIRING): _edge(
        "H0", "asks for leave to run the service", *CANDIDACY_REASONS
    ),
    (Phase.STANDBY, Phase.ACQUIRING): _edge(
        "H0", "asks for leave to run the service", *CANDIDACY_REASONS
    ),
    (Phase.ACQUIRING, Phase.STANDBY): _edge(
        "H0",
        "did not get leave; watches again",
        Reason.VOTE_REFUSED,
        Reason.HIGHER_PREFERENCE,
        Reason.PEER_ACTIVE,
        Reason.NOT_ABLE,
    ),
    (Phase.ACQUIRING, Phase.FENCING): _edge(
        "fence",
        "makes sure by fence_command that the peer cannot run the service",
        *CANDIDACY_REASONS,
    ),
    (Phase.FENCING, Phase.STANDBY): _edge(
        "H0",
        "did not get leave; watches again",
        Reason.VOTE_REFUSED,
        Reason.HIGHER_PREFERENCE,
        Reason.PEER_ACTIVE,
        Reason.NOT_ABLE,
    ),
    (Phase.FENCING, Phase.PROMOTING): _edge(
        "fence", "the peer cannot run the service; starts the containers", *CANDIDACY_REASONS
    ),
    (Phase.FENCING, Phase.DEMOTING): _edge(
        "H3",
        "gives up what it has not begun",
        Reason.LEASE_LOST,
        Reason.NEWER_TERM,
        Reason.AGENT_STOPPING,
    ),
    (Phase.ACQUIRING, Phase.PROMOTING): _edge(
        "V1", "has leave; starts the containers", *CANDIDACY_REASONS
    ),
    (Phase.PROMOTING, Phase.ACTIVE): _edge(
        "start", "all containers are started", *CANDIDACY_REASONS
    ),
    (Phase.PROMOTING, Phase.FAILED): _edge("H5", "a container did not start", Reason.START_FAILED),
    (Phase.PROMOTING, Phase.DEMOTING): _edge(
        "H7", "stops the containers", Reason.NEWER_TERM, Reason.LEASE_LOST, Reason.AGENT_STOPPING
    ),
    (Phase.ACTIVE, Phase.DEMOTING): _edge(
        "H5",
        "stops the containers so that the peer can start them",
        Reason.CONTAINER_DOWN,
        Reason.ENGINE_LOST,
        Reason.NEWER_TERM,
        Reason.LEASE_LOST,
        Reason.AGENT_STOPPING,
    ),
    (Phase.FAILED, Phase.ACTIVE): _edge("repair", "all containers run again", Reason.REPAIRED),
    (Phase.FAILED, Phase.DEMOTING): _edge(
        "H5",
        "stops what runs so that the peer can start it",
        Reason.START_FAILED,
        Reason.ENGINE_LOST,
        Reason.NEWER_TERM,
        Reason.LEASE_LOST,
        Reason.AGENT_STOPPING,
        Reason.CONTAINER_DOWN,
    ),
    (Phase.DEMOTING, Phase.STANDBY): _edge(
        "V7", "everything is confirmed stopped; released", Reason.ALL_STOPPED
    ),
    (Phase.DEMOTING, Phase.FAILED): _edge(
        "H3",
        "could not give the term back: keeps it",
        Reason.STOP_NOT_CONFIRMED,
        Reason.RECORD_NOT_WRITABLE,
    ),
}


REASONS: Mapping[Reason, str] = {
    Reason.AGENT_STARTED: "the agent started",
    Reason.PEER_ACTIVE: "the peer is active",
    Reason.PEER_PREFERRED: "the peer goes first",
    Reason.PEER_SILENT: "nothing was heard from the peer for heartbeat_timeout",
    Reason.PEER_RELEASED: "the peer gave the service up",
    Reason.FIRST_START: "the first start of this pair",
    Reason.NOBODY_ACTIVE: "nobody is active",
    Reason.RESUMED: "the agent was restarted",
    Reason.VOTE_REFUSED: "the peer refused",
    Reason.HIGHER_PREFERENCE: "the peer asks too and is preferred",
    Reason.NOT_ABLE: "this node is not able to run the service",
    Reason.START_FAILED: "a container did not start",
    Reason.CONTAINER_DOWN: "a container stayed down for restart_grace_period",
    Reason.ENGINE_LOST: "the Docker Engine is gone and so are the containers",
    Reason.NEWER_TERM: "the peer is active in a newer term",
    Reason.LEASE_LOST: "neither peer nor arbiter answered in time: the lease ends",
    Reason.OPERATOR: "an operator ordered it",
    Reason.AGENT_STOPPING: "the agent was told to stop",
    Reason.ALL_STOPPED: "all containers are stopped",
    Reason.STOP_NOT_CONFIRMED: "the stop could not be confirmed",
    Reason.REPAIRED: "the containers were repaired",
    Reason.RECORD_NOT_WRITABLE: "the record cannot be written",
    Reason.GUARD_KILL: "the guard had to end the lease of the agent before, so the peer goes first",
}


class IllegalTransitionError(AssertionError):
    """The program is wrong: it tried a change of phase that the table does not allow."""


def edge(before: Phase, after: Phase, reason: Reason) -> Edge:
    """The edge from `before` to `after`, or IllegalTransitionError."""
    found = EDGES.get((before, after))
    if found is None or reason not in found.reasons:
        raise IllegalTransitionError(f"no edge from {before} to {after} for {reason}")
    return found


def explain(before: Phase, after: Phase, reason: Reason) -> str:
    """The sentence for log and history: what happens, and why."""
    return f"{edge(before, after, reason).sentence} ({REASONS[reason]})"
