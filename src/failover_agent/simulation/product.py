"""What is simulated: the shipped core, as the few functions that agent, witness, register and guard
call.

A test hands in another one, with a rule removed, to see that somebody notices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

from failover_agent.core import (
    ballot,
    invariants,
    leases,
    machine,
    plan,
    register,
    startup,
    voter,
)
from failover_agent.core.events import Event
from failover_agent.core.policy import Policy
from failover_agent.core.startup import Predecessor
from failover_agent.core.state import Durable, State
from failover_agent.guard import watch


class Begin(Protocol):
    """`startup.begin`."""

    def __call__(
        self,
        policy: Policy,
        *,
        node_id: str,
        run_id: str,
        durable: Durable,
        record_lost: bool,
        boot_is_new: bool,
        now: float,
        before: Predecessor = ...,
    ) -> State:
        """The state of an agent that has just read its record."""


@dataclass(frozen=True, slots=True)
class Product:
    """The core. `save` is the class of the plan's saves, `Step` and plan items are its own.

    `leases` is what an adapter asks before a start call, `voter` and `ballot` are the witness,
    `register` is etcd, and `watch` the guard: whole modules, with types of their own.
    """

    begin: Begin
    step: Callable[[State, Event, float, Policy], Any]
    next_deadline: Callable[[State, Policy], float]
    plan: Callable[[State, Any], tuple[Any, ...]]
    check: Callable[[State, Any, Policy], None]
    save: type[Any]
    leases: ModuleType = leases
    voter: ModuleType = voter
    ballot: ModuleType = ballot
    register: ModuleType = register
    watch: ModuleType = watch


SHIPPED = Product(
    begin=startup.begin,
    step=machine.step,
    next_deadline=machine.next_deadline,
    plan=plan.plan,
    check=invariants.check,
    save=plan.Save,
)
