"""A host and the agent on it: the same contract as agent.py, in virtual time.

The agent steps the shipped core, checks the invariants, takes the shipped plan and carries its
items out in order. It can be killed between any two items, frozen at any moment, and its record can
refuse to be written. Nothing here decides anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_never

from failover_agent.core import paths
from failover_agent.core.effects import (
    ArmGuard,
    DisarmGuard,
    Effect,
    Exit,
    ManageRestartPolicy,
    MoveDeadline,
    RepairContainer,
    Reply,
    ReplyToOperator,
    RunFence,
    SendHeartbeat,
    SendRelease,
    SendVoteRequest,
    StartContainers,
    StopContainers,
)
from failover_agent.core.events import (
    Event,
    GuardArmed,
    GuardFailed,
    RecordWritable,
    RecordWriteFailed,
    Tick,
)
from failover_agent.core.policy import Policy, Role
from failover_agent.core.startup import NOBODY, Predecessor
from failover_agent.core.state import NEVER, Durable, Phase, State
from failover_agent.simulation.engine import Engine
from failover_agent.simulation.facts import Ordered, Saved, Saw
from failover_agent.simulation.fence import Fence
from failover_agent.simulation.guard import ANSWERS_WITHIN_S, Guard
from failover_agent.simulation.lane import Lane, Watcher
from failover_agent.simulation.machine import Machine
from failover_agent.simulation.mail import Mail
from failover_agent.simulation.network import cable
from failover_agent.simulation.scheduler import Call, Signal, Task, Timer

if TYPE_CHECKING:
    from failover_agent.simulation.machines import Machines

MAY_START = frozenset({Phase.PROMOTING, Phase.ACTIVE, Phase.FAILED})
"""The phases in which a start call may be made."""

SHORTEST_SAVE_S = 0.5
"""A save has T/4, and never less than this."""

MOST_VAIN_TICKS = 50
"""More ticks in a row that are due at once: the core asks for a moment that is over."""


class AsksForThePast(AssertionError):  # noqa: N818 - it reads as a sentence in a story
    """`next_deadline` names a moment that is over, again and again."""


@dataclass(slots=True)
class Record:
    """record.json: what is on the disk of a host."""

    node_id: str
    boot: int
    durable: Durable


class Host(Machine):
    """A machine with an engine, and a guard and an agent while they run.

    `lease_file` is what the guard has written on tmpfs. A `supervisor` starts guard and agent again
    after so many seconds; None: nobody does.
    """

    def __init__(
        self, world: Machines, name: str, policy: Policy, endpoints: dict[Role, str]
    ) -> None:
        """Off, with an empty disk. `endpoints` says which host is meant by a role; `cables`, set
        before it boots, how many ways lead to each of them.
        """
        super().__init__(world, name, policy.clock_drift)
        self.policy = policy
        self.endpoints = endpoints
        self.cables = 1
        self.engine = Engine(world.scheduler, name, policy.containers, world.chronicle)
        self.fence = Fence(world, self)
        self.record: Record | None = None
        self.lease_file: Any = None
        self.agent_comes_at_s = NEVER
        self.guard: Guard | None = None
        self.agent: Agent | None = None

    def power_on(self) -> None:
        """Boot: another boot id, a clock that begins anew, an empty tmpfs."""
        self.begin_clock()
        self.engine.power_on()

    def power_off(self) -> None:
        """Crash: guard, agent and containers end at once, the disk stays."""
        self.kill_agent()
        self.kill_guard()
        self.lease_file = None
        self.agent_comes_at_s = NEVER
        self.is_on = False
        self.engine.power_off()

    def start_agent(self) -> None:
        """What a supervisor does. Without a record the agent makes one (V4)."""
        assert self.is_on, f"{self.name} is off"
        assert self.agent is None, f"{self.name} has an agent"
        if self.policy.requires_lease and self.guard is None:
            self.guard = Guard(self)
        self.agent = Agent(self)

    def kill_agent(self) -> None:
        """SIGKILL."""
        if self.agent is not None:
            self.agent.die()
            self.agent = None

    def kill_guard(self) -> None:
        """SIGKILL. Its file stays."""
        if self.guard is not None:
            self.guard.die()
            self.guard = None

    def write(self, durable: Durable) -> bool:
        """Write the record; False when that failed. It may be on the disk all the same."""
        assert self.record is not None
        if self.record_fails and self.dice.random() < 0.7:
            return False
        self.record = Record(self.record.node_id, self.boot, durable)
        return not self.record_fails


class Agent:
    """One run of an agent: dies with SIGKILL, with its host, or by `Exit`."""

    def __init__(self, host: Host) -> None:
        """Starts at once: reads the record, begins, watches its engine."""
        self.host = host
        self.world = host.world
        self.run = self.world.next_run()
        self.run_id = f"run-{self.run}"
        self.is_dead = False
        self.is_frozen = False
        self.crash_after_items: int | None = None
        self.crash_at_save = ""
        self._backlog: deque[Call] = deque()
        self._unbegun: list[Task] = []
        self._inbox: deque[Event] = deque()
        self._is_saving = False
        self._is_pumping = False
        self._timer: Timer | None = None
        self._vain_ticks = 0
        self._core = self.world.core
        self._dice = self.world.scheduler.dice(self.run_id)
        self._arming: int | None = None
        self.child, before = 0, NOBODY
        if host.guard is not None:
            self.child, before = host.guard.welcome()
        self.state = self._begin(before)
        self.started_at_s = self.world.scheduler.now_s
        self.lane = Lane(self)
        self.mail = Mail(self)
        if host.guard is not None:
            host.guard.greet(self)
        Watcher(self)
        self.post(Tick())

    def _begin(self, before: Predecessor) -> State:
        host = self.host
        was_lost = host.record is None
        if host.record is None:
            host.record = Record(f"{host.name}-{host.world.next_node()}", host.boot, Durable())
        boot_is_new = not was_lost and host.record.boot != host.boot
        state = self._core.begin(
            host.policy,
            node_id=host.record.node_id,
            run_id=self.run_id,
            durable=host.record.durable,
            record_lost=was_lost,
            boot_is_new=boot_is_new,
            now=host.clock(),
            before=before,
        )
        ways = {
            role: tuple(cable(target, number) for number in range(host.cables))
            for role, target in host.endpoints.items()
        }
        state = paths.known(state, ways)
        if not host.record_fails:
            host.record = Record(host.record.node_id, host.boot, state.durable)
        self.world.tell(host.name, f"agent starts as {self.run_id}, {state.phase}")
        return state

    # --- the process ----------------------------------------------------------------------------

    def call(self, call: Call) -> None:
        """Let the process do something: now, when it is thawed, or never."""
        if self.is_dead:
            return
        if self.is_frozen:
            self._backlog.append(call)
        else:
            call()

    def spawn(self, coroutine: Coroutine[Signal[Any], None, None]) -> Task:
        """Run a coroutine inside the process."""
        task = Task(coroutine, self.call)
        if not task.has_begun:
            self._unbegun.append(task)
        return task

    def after(self, seconds: float, call: Call) -> Timer:
        """Make `call` in `seconds` of this host's clock, a little late as loops are."""
        late_s = self._dice.uniform(0.0001, 0.003)
        return self.world.scheduler.after(
            seconds / self.host.clock_rate + late_s, lambda: self.call(call)
        )

    def freeze(self) -> None:
        """SIGSTOP."""
        self.is_frozen = True

    def thaw(self) -> None:
        """SIGCONT: everything that came meanwhile is there at once, in order."""
        self.is_frozen = False
        while self._backlog and not self.is_frozen and not self.is_dead:
            self._backlog.popleft()()

    def die(self) -> None:
        """The process is gone; what it asked of others goes on."""
        self.is_dead = True
        self._backlog.clear()
        self._inbox.clear()
        for task in self._unbegun:
            if not task.has_begun:
                task.cancel()
        if self._timer is not None:
            self._timer.cancel()

    # --- the coroutine of agent.py --------------------------------------------------------------

    def post(self, event: Event) -> None:
        """Put an event into the inbox."""
        if not self.is_dead:
            self._inbox.append(event)
            self._pump()

    def may_act(self, term: int) -> bool:
        """May a start call of `term` be made now?"""
        state, policy, leases = self.state, self.host.policy, self._core.leases
        return (
            state.held_term == term
            and self.host.clock() < leases.start_deadline_s(state, policy)
            and leases.is_guarded(state, policy)
            and state.phase in MAY_START
            and not self.lane.is_stopping
        )

    def _pump(self) -> None:
        if self._is_pumping:
            return
        self._is_pumping = True
        while self._inbox and not self._is_saving and not self.is_dead:
            self._take(self._inbox.popleft())
        self._is_pumping = False
        if not self._is_saving and not self.is_dead:
            self._arm()

    def _arm(self) -> None:
        """Wake at the next deadline, or for the backstop."""
        if self._timer is not None:
            self._timer.cancel()
        now = self.host.clock()
        policy = self.host.policy
        wait_s = self._core.next_deadline(self.state, policy) - now
        self._vain_ticks = 0 if wait_s > 0 else self._vain_ticks + 1
        if self._vain_ticks > MOST_VAIN_TICKS:
            raise AsksForThePast(
                f"{self.host.name}: {wait_s:.6f} s from now, in {self.state.phase}"
            )
        wait_s = min(max(wait_s, 0.0), policy.check_heartbeat_interval_s)
        self._timer = self.after(wait_s, lambda: self.post(Tick()))

    def _take(self, event: Event) -> None:
        before = self.state
        self.world.chronicle.happened(Saw(self.host.name, event))
        after = self._core.step(before, event, self.host.clock(), self.host.policy)
        self._core.check(before, after, self.host.policy)
        items = self._core.plan(before, after)
        if any(isinstance(item, self._core.save) for item in items):
            self._is_saving = True
            self.spawn(self._carry_out_and_save(event, after, items))
            return
        self._become(after)
        for item in items:
            if self._crashes_here():
                return
            self._hand_out(item)

    async def _carry_out_and_save(self, event: Event, step: Any, items: tuple[Any, ...]) -> None:
        """A failed save undoes the step; its fact is told once more after RecordWriteFailed."""
        for item in items:
            if self._crashes_here():
                return
            if not isinstance(item, self._core.save):
                self._hand_out(item)
                continue
            if self._crashes_at_save("before"):
                return
            is_written = await self._save(item.durable)
            self.world.chronicle.happened(Saved(self.host.name))
            if self._crashes_at_save("after"):
                return
            if not is_written:
                if not isinstance(event, RecordWritable):
                    self._inbox.appendleft(event)
                self._inbox.appendleft(RecordWriteFailed("the disk is full"))
                self.after(1.0, self._write_again)
                break
            self._become(step)
        self._is_saving = False
        if not self.is_dead:
            self._pump()

    async def _save(self, durable: Durable) -> bool:
        """One that takes too long counts as failed, though it may come to its end."""
        takes_s = self._dice.uniform(*self.host.save_s)
        limit_s = max(SHORTEST_SAVE_S, self.host.policy.heartbeat_timeout_s / 4)
        await self.world.scheduler.sleep(min(takes_s, limit_s))
        return self.host.write(durable) and takes_s <= limit_s

    def _write_again(self) -> None:
        """After a failure: try each second, and say when it worked."""
        if self.host.write(self.state.durable):
            self.post(RecordWritable())
        else:
            self.after(1.0, self._write_again)

    def _become(self, step: Any) -> None:
        """A step may pass through a phase."""
        self.state = step.state
        for change in step.transitions:
            self.world.tell(
                self.host.name,
                f"{change.before} -> {change.after}: {change.reason}, term {change.term}",
            )

    def _crashes_at_save(self, where: str) -> bool:
        if self.crash_at_save == where:
            self.world.kill_agent(self.host.name, f"right {where} a save")
        return self.is_dead

    def _crashes_here(self) -> bool:
        if self.crash_after_items is None:
            return self.is_dead
        self.crash_after_items -= 1
        if self.crash_after_items < 0:
            self.world.kill_agent(self.host.name, "between two items of a plan")
        return self.is_dead

    # --- effects --------------------------------------------------------------------------------

    def _hand_out(self, effect: Effect) -> None:
        self.world.chronicle.happened(Ordered(self.host.name, effect))
        match effect:
            case SendHeartbeat() | SendVoteRequest() | SendRelease() | Reply():
                self.mail.take(effect)
            case ReplyToOperator():
                word = "accepted" if effect.accepted else "refused"
                self.world.tell(self.host.name, f"operator: {word}: {effect.sentence}")
            case StartContainers() | RepairContainer() | StopContainers() | ManageRestartPolicy():
                self.lane.take(effect)
            case ArmGuard() | MoveDeadline() | DisarmGuard():
                self._tell_guard(effect)
            case RunFence():
                self.host.fence.run(self, effect)
            case Exit():
                self.world.tell(self.host.name, f"agent leaves: {effect.sentence}")
                self.world.agent_left(self.host.name)
            case _:
                assert_never(effect)

    # --- the guard ------------------------------------------------------------------------------

    def _tell_guard(self, order: ArmGuard | MoveDeadline | DisarmGuard) -> None:
        if isinstance(order, ArmGuard):
            self._arming, term = order.term, order.term
            self.after(
                ANSWERS_WITHIN_S, lambda: self.guard_said(GuardFailed(term, "it does not answer"))
            )
        if self.host.guard is not None:
            self.host.guard.say(self, order)

    def guard_said(self, event: GuardArmed | GuardFailed) -> None:
        """One answer to each question."""
        if self._arming == event.term:
            self._arming = None
            self.post(event)
