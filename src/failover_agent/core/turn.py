"""One step while it is being made: the state so far and the orders so far.

A `Turn` lives for a single call of `step` and never leaves the core; handlers replace its state and
emit effects. The phase changes in `enter` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from failover_agent.core import transitions
from failover_agent.core.changing import replace
from failover_agent.core.effects import Effect
from failover_agent.core.plan import Transition
from failover_agent.core.policy import Policy, Role
from failover_agent.core.state import (
    ContainerView,
    Durable,
    PeerView,
    Phase,
    Reason,
    State,
)


@dataclass(slots=True)
class Turn:
    """The state and the effects of the step under way; `now` is CLOCK_BOOTTIME in seconds."""

    state: State
    now: float
    policy: Policy
    effects: list[Effect] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)

    def emit(self, effect: Effect) -> None:
        """Add an order."""
        self.effects.append(effect)

    def enter(self, phase: Phase, reason: Reason) -> None:
        """Change the phase; an edge that the table lacks raises IllegalTransitionError."""
        before = self.state.phase
        edge = transitions.edge(before, phase, reason)
        term = self.state.held_term or self.state.durable.term
        sentence = transitions.explain(before, phase, reason)
        self.transitions.append(Transition(before, phase, reason, term, edge.rule, sentence))
        self.state = replace(self.state, phase=phase, reason=reason, since_s=self.now)

    def set_durable(self, durable: Durable) -> None:
        """Replace the durable part; `plan` saves it when it differs."""
        self.state = replace(self.state, durable=durable)

    def set_peer(self, peer: PeerView) -> None:
        """Replace what is known of one voter."""
        peers: Mapping[Role, PeerView] = {**self.state.peers, peer.role: peer}
        self.state = replace(self.state, peers=peers)

    def set_container(self, view: ContainerView) -> None:
        """Replace what is known of one container."""
        self.set_containers((view,))

    def set_containers(self, views: Iterable[ContainerView]) -> None:
        """Replace what is known of some containers; where nothing is new nothing changes."""
        containers = self.state.containers.seen(views)
        if containers is not self.state.containers:
            self.state = replace(self.state, containers=containers)

    def count_stale(self) -> None:
        """A message or completion of another term: it changes nothing but this number."""
        counters = self.state.counters
        self.state = replace(self.state, counters=replace(counters, stale=counters.stale + 1))
