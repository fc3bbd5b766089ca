"""fence_command on a host: switches the other host off, or says that it did not."""

from __future__ import annotations

from enum import Enum, unique
from typing import TYPE_CHECKING

from failover_agent.core.effects import RunFence
from failover_agent.core.events import FenceFinished

if TYPE_CHECKING:
    from failover_agent.simulation.machines import Machines
    from failover_agent.simulation.node import Agent, Host

TIMEOUT_S = 5.0
"""fence_timeout."""

TAKES_S = (0.2, 2.0)


@unique
class Outcome(Enum):
    """What the command does. A late one switches the host off after its time was up."""

    SUCCEEDS = "succeeds"
    FAILS = "fails"
    LATE = "is late"
    HANGS = "hangs"
    LIES = "says that it did, and did nothing"


class Fence:
    """The command as it is configured on one host. It outlives the agent that ran it, and ends with
    the host.
    """

    def __init__(self, world: Machines, host: Host) -> None:
        """Succeeds."""
        self._world = world
        self._host = host
        self._dice = world.scheduler.dice(f"fence of {host.name}")
        self.outcome = Outcome.SUCCEEDS
        self.runs = 0

    def run(self, agent: Agent, order: RunFence) -> None:
        """One run, answered once."""
        self.runs += 1
        outcome, target = self.outcome, self._host.endpoints[order.target]
        takes_s = self._dice.uniform(*TAKES_S)
        self._world.tell(self._host.name, f"fence_command against {target}: {outcome.value}")
        error = ""
        if outcome in (Outcome.LATE, Outcome.HANGS):
            takes_s, error = TIMEOUT_S, "had not ended in time"
        if outcome is Outcome.FAILS:
            error = "exited with 1"
        if outcome is Outcome.LATE:
            self._world.scheduler.after(2 * TIMEOUT_S, lambda: self._switch_off(target))

        boot = self._host.boot

        def finish() -> None:
            if not self._host.is_on or self._host.boot != boot:
                return
            if outcome is Outcome.SUCCEEDS:
                self._switch_off(target)
            done = FenceFinished(order.term, order.target, error)
            agent.call(lambda: agent.post(done))

        self._world.scheduler.after(takes_s, finish)

    def _switch_off(self, target: str) -> None:
        if self._world.hosts[target].is_on:
            self._world.crash_host(target)
