"""The guard of a host: a process of its own, between supervisor and agent.

It runs the shipped `guard.watch` with the contract of guard/supervisor.py: it starts the agent,
listens to it before it looks at the clock, and when the time has come kills the agent first and
then the containers, again and again, until the next agent says that nothing runs. What it watches
over lies in a file that outlives it, but not a reboot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from failover_agent.core.effects import ArmGuard, DisarmGuard, MoveDeadline
from failover_agent.core.events import GuardArmed, GuardFailed
from failover_agent.core.startup import Predecessor
from failover_agent.simulation.engine import void
from failover_agent.simulation.scheduler import Call, Timer

if TYPE_CHECKING:
    from failover_agent.simulation.node import Agent, Host

ROUND_S = 0.05
"""Between two rounds of killing."""

LOOK_S = (0.0002, 0.004)
"""How late a timer of the guard is."""

SAY_S = 0.0005
"""From one end of the lifeline to the other, in order."""

KILL_S = (0.002, 0.05)
"""From SIGKILL until a container is gone."""

STARTS_AGENT_S = (0.1, 0.5)
"""From the death of an agent until the next one has read its record."""

ANSWERS_WITHIN_S = 1.0
"""So long an agent waits for a guard to say that it is armed."""

Order = ArmGuard | MoveDeadline | DisarmGuard


class Guard:
    """One run of the guard. It takes up the lease file before it does anything (G3)."""

    def __init__(self, host: Host) -> None:
        """Starts at once, without an agent."""
        self._host = host
        self._world = host.world
        self._core: Any = host.world.core.watch
        self._dice = self._world.scheduler.dice(f"guard {self._world.next_run()}")
        self._watch = self._core.Watch() if host.lease_file is None else host.lease_file
        self._backlog: deque[Call] = deque()
        self._timer: Timer | None = None
        self.is_dead = False
        self.is_frozen = False
        self._hears_at_once = False
        self._look()

    # --- the process ------------------------------------------------------------------------------

    def call(self, call: Call) -> None:
        """Let the process do something: now, when it is thawed, or never."""
        if self.is_dead:
            return
        if self.is_frozen:
            self._backlog.append(call)
        else:
            call()

    def freeze(self) -> None:
        """SIGSTOP."""
        self.is_frozen = True

    def thaw(self) -> None:
        """SIGCONT: what was said meanwhile is heard, then the clock is looked at."""
        self.is_frozen = False
        self._hears_at_once = True
        while self._backlog and not self.is_dead:
            self._backlog.popleft()()
        self._hears_at_once = False
        if not self.is_dead:
            self._look()

    def die(self) -> None:
        """The process is gone; its agent hears it."""
        self.is_dead = True
        self._backlog.clear()
        if self._timer is not None:
            self._timer.cancel()

    # --- the agent --------------------------------------------------------------------------------

    def welcome(self) -> tuple[int, Predecessor]:
        """An agent starts: its number, and what is known of the one before it."""
        watch = self._watch = self._core.begin_child(self._watch)
        before = Predecessor(self._core.lease_until_s(watch), self._core.was_enforced(watch))
        return watch.child, before

    def greet(self, agent: Agent) -> None:
        """The first word of an agent: its timings."""
        policy = agent.host.policy
        timings = (policy.heartbeat_timeout_s, policy.kill_budget_s)
        self._hear(lambda: self._heed(self._core.greet, agent.child, *timings))

    def say(self, agent: Agent, order: Order) -> None:
        """What an agent says over its lifeline."""
        self._hear(lambda: self._take(agent, order))

    def may_be_left(self) -> bool:
        """May it end with its agent? Nothing is armed, or what is has no end."""
        left: bool = self._core.may_be_left(self._watch)
        return left

    def _hear(self, call: Callable[[], object]) -> None:
        self._world.scheduler.after(SAY_S, lambda: self.call(lambda: void(call())))

    def _take(self, agent: Agent, order: Order) -> None:
        now = self._host.clock()
        match order:
            case ArmGuard(term=term, names=names, valid_until_s=until_s):
                lease = self._core.Lease(term, names, until_s)
                error = self._heed(self._core.arm, agent.child, lease, now)
                event = GuardFailed(term, error) if error else GuardArmed(term)
                self._world.scheduler.after(
                    SAY_S, lambda: agent.call(lambda: agent.guard_said(event))
                )
            case MoveDeadline(term=term, valid_until_s=until_s):
                self._heed(self._core.move, agent.child, term, until_s, now)
            case DisarmGuard(term=term):
                self._heed(self._core.disarm, agent.child, term)
        self._look()

    def _heed(self, change: Any, *arguments: Any) -> str:
        """What was asked is done and lies in the file, or refused."""
        try:
            self._watch = change(self._watch, *arguments)
        except self._core.RefusedError as error:
            self._world.tell(self._host.name, f"the guard refuses: {error}")
            return str(error)
        # Whether it is over is not written down: a new guard finds out by itself.
        armed = self._watch.lease is not None
        self._host.lease_file = replace(self._watch, is_over=False) if armed else None
        return ""

    # --- the end of a lease -----------------------------------------------------------------------

    def _look(self) -> None:
        """Is it time? Else wake when it is."""
        if self._hears_at_once:
            return
        if self._timer is not None:
            self._timer.cancel()
        now = self._host.clock()
        if self._core.is_due(self._watch, now):
            self._enforce()
        elif self._watch.is_over:
            self._wake_in(ROUND_S, self._kill_round)
        elif self._watch.lease is not None:
            wait_s = self._core.kill_at_s(self._watch) - now
            if wait_s < float("inf"):
                self._wake_in(max(wait_s, 0.0), self._look)

    def _wake_in(self, seconds: float, call: Call) -> None:
        late_s = self._dice.uniform(*LOOK_S)
        self._timer = self._world.scheduler.after(
            seconds / self._host.clock_rate + late_s, lambda: self.call(call)
        )

    def _enforce(self) -> None:
        """The agent first: even a frozen one, which must not finish an old start (G2)."""
        self._watch = self._core.enforce(self._watch)
        self._world.tell(self._host.name, "the guard ends the lease: kills agent and containers")
        self._world.guard_kills_agent(self._host.name)
        self._kill_round()

    def _kill_round(self) -> None:
        if self._watch.lease is not None and self._watch.is_over:
            for name in self._watch.lease.names:
                self._kill(name)
        self._wake_in(ROUND_S, self._look)

    def _kill(self, name: str) -> None:
        """A process that is there now; a start that comes in meanwhile is for the next round."""
        engine = self._host.engine
        container = engine.containers[name]
        seen = container.incarnation

        def gone() -> None:
            if container.incarnation == seen:
                engine.kill(name, "killed by the guard", by_agent=True)

        if container.is_alive:
            self._world.scheduler.after(self._dice.uniform(*KILL_S), gone)
