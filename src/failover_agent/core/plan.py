"""The order of stop, save and act; nobody else knows it.

Stops come first: they never wait for a disk. Then the save of the durable part, when it changed.
Then the rest, which may rely on what was saved. Whoever carries a plan out and cannot save gives up
the rest of it and the new state, tells the core `RecordWriteFailed`, and then the same event once
more: the core takes facts in, but changes nothing durable before `RecordWritable`. A step that
stops a service never changes the durable part (both checked in `invariants`).
"""

from __future__ import annotations

from dataclasses import dataclass

from failover_agent.core.effects import Effect, StopContainers
from failover_agent.core.state import Durable, Phase, Reason, State


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of phase; a step may make several, each along an edge of `transitions`.

    `term` is the one held after it, else the highest granted; `rule` and `sentence` are the edge's.
    """

    before: Phase
    after: Phase
    reason: Reason
    term: int
    rule: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Step:
    """What one event led to: the new state, and orders in the order they were thought of."""

    state: State
    effects: tuple[Effect, ...]
    transitions: tuple[Transition, ...] = ()


@dataclass(frozen=True, slots=True)
class Save:
    """Put `durable` on disk, fsynced, before anything after it in the plan is done."""

    durable: Durable


def plan(before: State, after: Step) -> tuple[Effect | Save, ...]:
    """The items of a step in the order in which they must be carried out."""
    stops = tuple(effect for effect in after.effects if isinstance(effect, StopContainers))
    rest = tuple(effect for effect in after.effects if not isinstance(effect, StopContainers))
    if after.state.durable == before.durable:
        return (*stops, *rest)
    return (*stops, Save(after.state.durable), *rest)
