"""What stands between an agent and its engine: the watcher and the container lane.

They stand in for `adapters/docker`, with its contract and no more: one snapshot after each
(re)connect, then the stream, a slow list behind it; orders in order, a stop overtakes; one answer
to each order. They are coroutines of the agent: frozen and killed with it, while the engine goes on
with what it was told.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from failover_agent.core.effects import (
    ManageRestartPolicy,
    RepairContainer,
    StartContainers,
    StopContainers,
)
from failover_agent.core.events import (
    ContainerChanged,
    ContainerDied,
    ContainersObserved,
    ContainersStarted,
    ContainersStopped,
    EngineLost,
    RepairFinished,
    RestartPolicySet,
    StartFailed,
    StopFailed,
)
from failover_agent.simulation.engine import Check, Hint, Mode, Process, void
from failover_agent.simulation.scheduler import Signal, Task, either

if TYPE_CHECKING:
    from failover_agent.simulation.node import Agent

EVENT_S = (0.002, 0.06)
"""From a container's death to the agent's inbox."""

LIST_EVERY_S = 5.0
"""The slow list behind the stream; so long may a lost stream go unnoticed."""

LOST_AFTER_S = 2.0
"""A list without an answer for so long: the engine is lost."""

HEALTHY_WITHIN_S = 6.0
"""How long a start waits for its health check."""

SETTLED_S = 0.3
"""How long what was started has to run before it counts as started."""

LOOK_S = 0.05
"""So late it is seen, at most, that it ended meanwhile."""

STOPPED_WITHIN_S = 8.0
"""How long a stop is tried before it is reported as failed."""

KILL_S = (0.002, 0.05)
"""From SIGKILL until a container is gone."""

Order = StartContainers | RepairContainer | StopContainers | ManageRestartPolicy


class Watcher:
    """Snapshot, stream, snapshot, ... as long as its agent lives."""

    def __init__(self, agent: Agent) -> None:
        """Begins at once."""
        self._agent = agent
        self._engine = agent.host.engine
        self._dice = agent.world.scheduler.dice(f"watcher {agent.run_id}")
        self._hints: deque[Hint] = deque()
        self._hinted: Signal[None] = Signal()
        agent.spawn(self._watch())

    async def _watch(self) -> None:
        while True:
            if self._engine.answers:
                await self._follow()
            else:
                await self._mourn()

    async def _mourn(self) -> None:
        """Say that the engine is lost, as long as it is; returns when a new try has worked."""
        if self._engine.mode is Mode.HANGS:
            await self._sleep(LOST_AFTER_S)
        while not self._engine.answers:
            error = f"the engine {self._engine.mode.value}"
            self._agent.post(EngineLost(error, self._engine.processes()))
            await either(self._engine.back, self._sleep(1.0))
        await self._sleep(self._dice.uniform(0.05, 1.0))

    async def _follow(self) -> None:
        """One connection: returns when it breaks, or when it is time for the next list."""
        scheduler = self._agent.world.scheduler
        self._hints.clear()
        hush = self._engine.listen(self._hear)
        snapshot = tuple(self._engine.inspect(name) for name in self._engine.containers)
        until_s = scheduler.now_s + LIST_EVERY_S
        await self._sleep(self._dice.uniform(0.001, 0.02))
        self._agent.post(ContainersObserved(snapshot))
        while self._engine.answers and scheduler.now_s < until_s:
            if not self._hints:
                self._hinted = Signal()
                idle = scheduler.sleep(until_s - scheduler.now_s)
                await either(self._hinted, self._engine.gone, idle)
                continue
            hint = self._hints.popleft()
            await self._sleep(self._dice.uniform(*EVENT_S))
            if hint.died:
                self._agent.post(ContainerDied(hint.name, hint.incarnation, "died"))
            await self._sleep(self._dice.uniform(0.001, 0.01))
            if self._engine.answers:
                self._agent.post(ContainerChanged(self._engine.inspect(hint.name)))
        hush()

    def _hear(self, hint: Hint) -> None:
        self._hints.append(hint)
        self._hinted.fire(None)

    def _sleep(self, seconds: float) -> Signal[None]:
        return self._agent.world.scheduler.sleep(seconds)


class Lane:
    """Carries out the orders for the containers, one after the other; a stop overtakes."""

    def __init__(self, agent: Agent) -> None:
        """Nothing to do yet."""
        self._agent = agent
        self._engine = agent.host.engine
        self._orders: deque[Order] = deque()
        self._dice = agent.world.scheduler.dice(f"lane {agent.run_id}")
        self._stops = 0
        self._stop_wanted: Signal[None] = Signal()
        self._hurry: Signal[None] = Signal()
        self._working: Task | None = None

    @property
    def is_stopping(self) -> bool:
        """Was a stop handed out that has no answer yet?"""
        return self._stops > 0

    def take(self, order: Order) -> None:
        """Carry `order` out when its turn comes."""
        if isinstance(order, StopContainers):
            self._stops += 1
            self._stop_wanted.fire(None)
            if order.grace_s is not None:
                hurry, self._hurry = self._hurry, Signal()
                hurry.fire(None)
            self._agent.spawn(self._stop(order))
            return
        self._orders.append(order)
        if self._working is None:
            self._working = self._agent.spawn(self._do_orders())
            if self._working.ended.fired:
                self._working = None

    async def _do_orders(self) -> None:
        while self._orders:
            match self._orders.popleft():
                case StartContainers() as start:
                    await self._start(start)
                case RepairContainer() as repair:
                    await self._repair(repair)
                case ManageRestartPolicy() as manage:
                    error = await self._engine.set_restart_policy(manage.name)
                    self._agent.post(RestartPolicySet(manage.name, manage.was, error))
                case StopContainers():  # pragma: no cover - has a queue of its own
                    raise AssertionError("stops overtake")
        self._working = None

    async def _start(self, order: StartContainers) -> None:
        settled_at_s = 0.0
        for name in order.names:
            if not self._agent.may_act(order.term):
                self._agent.post(StartFailed(order.term, name, "no longer allowed"))
                return
            ran_before = self._engine.containers[name].process is Process.RUNNING
            error = await self._engine.start(name)
            if not ran_before:
                settled_at_s = self._agent.world.scheduler.now_s + SETTLED_S
            error = error or await self._gets_healthy(name)
            if error:
                self._agent.post(StartFailed(order.term, name, error))
                return
        ended = await self._see_all_run(order.names, settled_at_s)
        if ended:
            self._agent.post(StartFailed(order.term, ended, "it ended at once"))
        else:
            self._agent.post(ContainersStarted(order.term))

    async def _see_all_run(self, names: tuple[str, ...], settled_at_s: float) -> str:
        """A process that ends at once did not start; the answer is its name, or empty."""
        scheduler = self._agent.world.scheduler
        while True:
            for name in names:
                if self._engine.containers[name].process is not Process.RUNNING:
                    return name
            wait_s = settled_at_s - scheduler.now_s
            if wait_s <= 0 or self.is_stopping:
                return ""
            await either(self._stop_wanted, scheduler.sleep(min(wait_s, LOOK_S)))

    async def _gets_healthy(self, name: str) -> str:
        """Wait for the health check, if there is one; the answer is an error or empty."""
        container = self._engine.containers[name]
        scheduler = self._agent.world.scheduler
        until_s = scheduler.now_s + HEALTHY_WITHIN_S
        while container.check is Check.STARTING:
            if self.is_stopping:
                return "overtaken by a stop"
            if scheduler.now_s >= until_s:
                return "did not get healthy in time"
            await either(self._stop_wanted, scheduler.sleep(0.1))
        return "" if container.is_up else f"is {container.process.value}, {container.check.value}"

    async def _repair(self, order: RepairContainer) -> None:
        if not self._agent.may_act(order.term):
            self._agent.post(RepairFinished(order.term, order.name, "no longer allowed"))
            return
        container, error = self._engine.containers[order.name], ""
        if not container.is_alive:
            error = await self._engine.start(order.name)
        if not error and not container.is_up:
            error = f"is {container.process.value}, {container.check.value}"
        self._agent.post(RepairFinished(order.term, order.name, error))

    async def _stop(self, order: StopContainers) -> None:
        late = self._agent.world.scheduler.sleep(STOPPED_WITHIN_S)
        if order.grace_s is None:
            await self._stop_in_turn(order, late)
        else:
            await self._stop_side_by_side(order, order.grace_s, late)
        self._stops -= 1
        if not self._stops:
            self._stop_wanted = Signal()
        if self._is_done(order):
            self._agent.post(ContainersStopped(order.term))
            return
        left = tuple(name for name in order.names if not self._is_seen_gone(name))
        self._agent.post(
            StopFailed(order.term, left or order.names, "still there, or nobody knows")
        )

    async def _stop_in_turn(self, order: StopContainers, late: Signal[None]) -> None:
        """Each has its own time, unless a stop without any comes in between."""
        hurry = self._hurry
        if self._working is not None:
            # Shielded: the start call itself is not taken back, so wait until it has ended.
            await either(self._working.ended, late, hurry)
        while not late.fired:
            for name in order.names:
                await either(self._engine.stop(name, None), late, hurry)
            if self._is_done(order):
                return
            await either(self._agent.world.scheduler.sleep(0.2), late)

    async def _stop_side_by_side(
        self, order: StopContainers, grace_s: float, late: Signal[None]
    ) -> None:
        """All at once; at the end of the grace they are killed, by engine and by process (H3)."""
        scheduler = self._agent.world.scheduler
        for name in order.names:
            void(self._engine.stop(name, grace_s))
        hurry = self._hurry if grace_s else Signal[None]()
        waited = scheduler.sleep(grace_s)
        while not (waited.fired or hurry.fired or self._is_done(order)):
            await either(scheduler.sleep(0.02), waited, hurry)
        while not (late.fired or self._is_done(order)):
            await either(scheduler.sleep(self._dice.uniform(*KILL_S)), late)
            for name in order.names:
                void(self._engine.stop(name, 0.0))
                if self._engine.can_see_processes:
                    self._engine.kill(name, "killed by its agent", by_agent=True)
            await either(scheduler.sleep(0.05), late)

    def _is_done(self, order: StopContainers) -> bool:
        return self._working is None and self._are_seen_gone(order.names)

    def _are_seen_gone(self, names: tuple[str, ...]) -> bool:
        return all(self._is_seen_gone(name) for name in names)

    def _is_seen_gone(self, name: str) -> bool:
        if self._engine.answers or self._engine.can_see_processes:
            return not self._engine.containers[name].is_alive
        return False
