"""What every machine has: a clock that drifts and begins anew with each boot, and a disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from failover_agent.simulation.machines import Machines

SAVE_S = (0.001, 0.03)
"""How long a save takes on a disk that is well."""


class Machine:
    """A machine that is on or off. `clock_drift` bounds how far the rate of its clock is off."""

    def __init__(self, world: Machines, name: str, clock_drift: float) -> None:
        """Off. Its clock is at either end of the bound, or anywhere between."""
        self.world = world
        self.name = name
        self.dice = world.scheduler.dice(f"host {name}")
        self.record_fails = False
        self.save_s = SAVE_S
        self.is_on = False
        self.boot = 0
        self._booted_at_s = 0.0
        self._zero_s = 0.0
        anywhere = self.dice.uniform(-1, 1)
        self.clock_rate = 1.0 + self.dice.choice((-1.0, anywhere, 1.0)) * clock_drift

    def clock(self) -> float:
        """CLOCK_BOOTTIME of this machine, in seconds."""
        return self._zero_s + (self.world.scheduler.now_s - self._booted_at_s) * self.clock_rate

    def begin_clock(self) -> None:
        """Boot: another boot id, a clock that begins anew."""
        assert not self.is_on, f"{self.name} is on"
        self.is_on = True
        self.boot += 1
        self._booted_at_s = self.world.scheduler.now_s
        self._zero_s = self.dice.uniform(5.0, 500.0)
