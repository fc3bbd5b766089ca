"""Two hosts for a transcript, and with an arbiter a witness: the shipped core and plan, the shipped
voter and guard, perfect wires, a toy engine, one clock.

Messages arrive at once and in order, or not at all; an engine takes a second for each start and
half a second for a stop, a fence_command one second. What is less than perfect is told by the
script of the scenario; what goes wrong at random belongs to the simulator.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, assert_never

from failover_agent.core import ballot, invariants, machine, startup
from failover_agent.core import voter as voters
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
    CommandKind,
    CommandReceived,
    ContainerChanged,
    ContainerDied,
    ContainerObservation,
    ContainersObserved,
    ContainersStarted,
    ContainersStopped,
    EngineLost,
    Event,
    FenceFinished,
    GuardArmed,
    GuardFailed,
    HeartbeatAnswered,
    HeartbeatFailed,
    HeartbeatReceived,
    RecordWritable,
    RecordWriteFailed,
    ReleaseAnswered,
    ReleaseFailed,
    ReleaseReceived,
    RepairFinished,
    RestartPolicySet,
    StartFailed,
    StopFailed,
    StopRequested,
    Tick,
    VoteAnswered,
    VoteFailed,
    VoteRequested,
)
from failover_agent.core.messages import BeatAnswer, ReleaseAnswer, Sender, VoteAnswer
from failover_agent.core.plan import Save, Step, plan
from failover_agent.core.policy import Policy, Role
from failover_agent.core.startup import Predecessor
from failover_agent.core.state import ContainerState, Durable, State
from failover_agent.guard import watch
from failover_agent.guard.watch import Lease, Watch
from tests.scenarios import words

BEGIN_S = 1000.0
"""No clock begins at zero, so that a moment is never mistaken for nothing."""
START_TAKES_S = 1.0
STOP_TAKES_S = 0.5
FENCE_TAKES_S = 1.0
CONTAINERS = ("db", "web")
SAID_AGAIN = frozenset({"asks", "answers", "answer", "releases", "beats", "engine"})

Order = StartContainers | RepairContainer | StopContainers | ManageRestartPolicy
Message = SendHeartbeat | SendVoteRequest | SendRelease
Answered = Callable[[Any], None]
Call = Callable[[], None]


class World:
    """Two hosts, the wire between them, time, and the transcript of all of it."""

    def __init__(self, **settings: Any) -> None:
        """Both hosts are on, no agent runs, and nothing was ever on record."""
        self.now = BEGIN_S
        self._cuts: set[frozenset[Role]] = set()
        self.lines: list[str] = []
        self._numbers = itertools.count()
        self._timers: list[tuple[float, int, Call]] = []
        self._queue: deque[Call] = deque()
        self.primary = Host(self, _policy(Role.PRIMARY, settings))
        self.backup = Host(self, _policy(Role.BACKUP, settings))
        self.hosts = {Role.PRIMARY: self.primary, Role.BACKUP: self.backup}
        self.witness = Witness(self)

    # --- for the script ---------------------------------------------------------------------------

    def at(self, seconds: float, what: str, *calls: Call) -> None:
        """So long after the beginning, `what` happens."""
        self.run_until(seconds)
        self.write("", f"--- {what}")
        for call in calls:
            call()
        self._settle()

    def run_until(self, seconds: float) -> None:
        """Let everything happen that is due by then."""
        end = BEGIN_S + seconds
        self._settle()
        while (at_s := self._next_s()) <= end:
            self.now = max(self.now, at_s)
            while self._timers and self._timers[0][0] <= self.now:
                heapq.heappop(self._timers)[2]()
                self._settle()
            for host in self.hosts.values():
                host.tick_if_due()
                self._settle()
        self.now = end

    def cut(self, one: Role = Role.PRIMARY, other: Role = Role.BACKUP) -> None:
        """Between these two nothing gets through any more, in either direction."""
        self._cuts.add(frozenset({one, other}))

    def isolate(self, role: Role) -> None:
        """Nobody hears this one any more, and it hears nobody."""
        for other in set(Role) - {role}:
            self.cut(role, other)

    def heal(self) -> None:
        """Every wire is whole again."""
        self._cuts.clear()

    def is_cut(self, one: Role, other: Role) -> bool:
        """Does nothing get through between these two?"""
        return frozenset({one, other}) in self._cuts

    # --- for the hosts ----------------------------------------------------------------------------

    def soon(self, call: Call) -> None:
        """Now, after everything that is under way."""
        self._queue.append(call)

    def after(self, seconds: float, call: Call) -> None:
        """That much later."""
        heapq.heappush(self._timers, (self.now + seconds, next(self._numbers), call))

    def write(self, who: str, what: str) -> None:
        """A line of the transcript."""
        self.lines.append(f"{self.now - BEGIN_S:8.2f}  {who:9} {what}".rstrip())

    def _settle(self) -> None:
        while self._queue:
            self._queue.popleft()()

    def _next_s(self) -> float:
        deadlines = [host.due_at_s() for host in self.hosts.values()]
        return min([*deadlines, *(timer[0] for timer in self._timers[:1])])


class Witness:
    """A third host with nothing but the shipped voter and a disk."""

    def __init__(self, world: World) -> None:
        """It ran before, and has promised nobody anything."""
        self.world = world
        self.is_on = True
        self.durable = Durable()
        self.me = Sender(Role.WITNESS, "node-witness", "run-witness", "a pair")
        self._voter = voters.begin(self.durable, world.now, timeout_s=0.0, forgot=False)
        self._said: dict[str, str] = {}

    def crash(self) -> None:
        """The power is off."""
        self.is_on = False

    def boot_up(self) -> None:
        """It is back, with its disk."""
        self.is_on = True
        self._voter = voters.begin(self.durable, self.world.now, timeout_s=0.0, forgot=False)

    def receive(self, message: Message, answered: Answered) -> None:
        """Decide, save what has to be saved, and answer."""
        request = message.beat if isinstance(message, SendHeartbeat) else message.request
        before = self._voter
        self._voter, answer = ballot.decide(before, request, self.world.now, self.me)
        if ballot.needs_save(before, self._voter, None):
            self.durable = self._voter.durable
            self.world.write("witness", words.of_save(self.durable))
        line = words.of_answer(answer)
        if line and self._said.get(request.sender.role) != line:
            self._said[request.sender.role] = line
            self.world.write("witness", line)
        answered(answer)


@dataclass(slots=True)
class Container:
    """One container of a toy engine; `error` is why it does not start."""

    name: str
    exists: bool = True
    runs: bool = False
    starts: int = 0
    error: str = ""
    restart_policy: str = "no"
    boots_with_host: bool = False

    def observed(self) -> ContainerObservation:
        """What an inspect says."""
        return ContainerObservation(
            name=self.name,
            state=ContainerState.UP if self.runs else ContainerState.DOWN,
            detail="running" if self.runs else "exited (1)" if self.exists else "no such container",
            exists=self.exists,
            alive=self.runs,
            incarnation=f"{self.name}-{self.starts}",
            image="image",
            settings="settings",
            restart_policy=self.restart_policy,
        )


class Host:
    """A host: a disk with a record, an engine with containers, and an agent that may run."""

    def __init__(self, world: World, policy: Policy) -> None:
        """It is on, and its containers are created and stopped."""
        self.world = world
        self.policy = policy
        self.containers = {name: Container(name) for name in CONTAINERS}
        self.state: State | None = None
        self.run = 0
        self.boot = self.boot_of_record = 1
        self.durable: Durable | None = None
        self.is_disk_full = False
        self.engine_is_gone = False
        self.is_frozen = False
        self.fence_error = ""
        self.watch = Watch()
        self._requests: dict[int, Answered] = {}
        self._numbers = itertools.count(1)
        self._lane = 0
        self._said: dict[str, str] = {}

    @property
    def name(self) -> str:
        """As the transcript calls it."""
        return str(self.policy.role)

    # --- for the script ---------------------------------------------------------------------------

    def start_agent(self) -> None:
        """The supervisor starts it; its watcher tells what the engine has a moment later."""
        assert self.state is None, f"{self.name} has an agent"
        self.run += 1
        self.is_frozen = False
        timings = self.policy.heartbeat_timeout_s, self.policy.kill_budget_s
        self.watch = watch.begin_child(self.watch)
        self.watch = watch.greet(self.watch, self.watch.child, *timings)
        self.state = startup.begin(
            self.policy,
            node_id=f"node-{self.name}",
            run_id=f"run-{self.run}",
            durable=Durable() if self.durable is None else self.durable,
            record_lost=self.durable is None,
            boot_is_new=self.durable is not None and self.boot_of_record != self.boot,
            now=self.world.now,
            before=Predecessor(watch.lease_until_s(self.watch), watch.was_enforced(self.watch)),
        )
        self._later(0.1, self.look)

    def kill_agent(self) -> None:
        """SIGKILL: the containers run on."""
        self.state = None
        self._requests.clear()
        self._lane += 1

    def freeze_agent(self) -> None:
        """SIGSTOP: the containers run on."""
        self.is_frozen = True

    def crash(self) -> None:
        """The power is off: agent and containers end, and the guard with what it kept on tmpfs."""
        self.kill_agent()
        self.watch = Watch()
        for container in self.containers.values():
            container.runs = False

    def boot_up(self) -> None:
        """The power is back; the engine starts what it would, and the supervisor the agent."""
        self.boot += 1
        for container in self.containers.values():
            container.runs = container.boots_with_host
        self.start_agent()

    def terminate(self, **how: bool) -> None:
        """SIGTERM."""
        self.take(StopRequested(**how))

    def command(self, command: CommandKind) -> None:
        """An operator's order."""
        self.take(CommandReceived(0, command))

    def kill(self, name: str, error: str = "") -> None:
        """A container dies; with an error, it does not start again either."""
        container = self.containers[name]
        died = ContainerDied(name, container.observed().incarnation, "exited (1)")
        container.runs, container.error = False, error
        self.take(died)

    def run_by_hand(self, name: str) -> None:
        """Somebody starts a container behind the agent's back."""
        self._start(name)

    def mend(self, name: str) -> None:
        """What kept the container from starting is mended; a missing one is created."""
        self.containers[name].error, self.containers[name].exists = "", True
        self.take(ContainerChanged(self.containers[name].observed()))

    def remove(self, name: str) -> None:
        """A container is removed."""
        self.containers[name].exists = self.containers[name].runs = False
        self.take(ContainerChanged(self.containers[name].observed()))

    def lose_engine(self, *, with_containers: bool) -> None:
        """The engine does not answer any more; its containers run on, or are gone."""
        self.engine_is_gone = True
        for container in self.containers.values():
            container.runs = container.runs and not with_containers
        self.look()

    def regain_engine(self) -> None:
        """The engine answers again."""
        self.engine_is_gone = False
        self.look()

    def fill_disk(self) -> None:
        """No record can be written; the agent's own probe finds out."""
        self.is_disk_full = True
        self.take(RecordWriteFailed("no space left on device"))

    def empty_disk(self) -> None:
        """The record can be written again."""
        self.is_disk_full = False
        self.take(RecordWritable())

    def look(self) -> None:
        """What the watcher of the engine tells: a snapshot, or that there is no engine."""
        containers = self.containers.values()
        if self.engine_is_gone:
            alive = tuple((container.name, container.runs) for container in containers)
            self.take(EngineLost("connection refused", alive))
        else:
            self.take(ContainersObserved(tuple(one.observed() for one in containers)))

    # --- the agent --------------------------------------------------------------------------------

    def due_at_s(self) -> float:
        """When the agent wants to be woken."""
        return min(self._agent_due_at_s(), watch.kill_at_s(self.watch))

    def _agent_due_at_s(self) -> float:
        if self.state is None or self.is_frozen:
            return float("inf")
        return machine.next_deadline(self.state, self.policy)

    def tick_if_due(self) -> None:
        """Wake it, and its guard."""
        if self._agent_due_at_s() <= self.world.now:
            self.take(Tick())
        if watch.is_due(self.watch, self.world.now):
            self._enforce()

    def _enforce(self) -> None:
        """What the guard does at the end of a lease (G2): kill, and start the agent anew."""
        self.world.write(self.name, "the guard kills the agent and all that runs")
        self.watch = watch.enforce(self.watch)
        self.kill_agent()
        for container in self.containers.values():
            container.runs = False
        self.start_agent()

    def take(self, event: Event) -> None:
        """What agent.py does: step, check, then stop, save and act as the plan says."""
        if self.state is None or self.is_frozen:
            return
        before = self.state
        after = machine.step(before, event, self.world.now, self.policy)
        invariants.check(before, after, self.policy)
        items = plan(before, after)
        if self.is_disk_full and any(isinstance(item, Save) for item in items):
            self.take(RecordWriteFailed("no space left on device"))
            self.take(event)
            return
        self._tell(words.of_event(event))
        self.state = after.state
        self._tell_of(before, after)
        for item in items:
            self._carry_out(item)

    def _tell_of(self, before: State, after: Step) -> None:
        for transition in after.transitions:
            self._said.clear()
            self._tell(words.of_transition(transition))
        for line in words.of_change(before, after.state):
            self._tell(line)

    def _tell(self, line: str) -> None:
        """Write a line, but no question, answer or the like again that was said in this phase."""
        verb = line.split(" ", 1)[0]
        about = line.partition(":")[0] if verb == "asks" else verb
        if line and (verb not in SAID_AGAIN or self._said.get(about) != line):
            self._said[about] = line
            self.world.write(self.name, line)

    def _carry_out(self, item: Effect | Save) -> None:
        self._tell(words.of_order(item))
        match item:
            case Save():
                if self.durable is None or self.durable.term != item.durable.term:
                    self.boot_of_record = self.boot
                self.durable = item.durable
            case SendHeartbeat() | SendVoteRequest() | SendRelease():
                self._send(item)
            case Reply():
                self._requests.pop(item.request_id)(item.answer)
            case StartContainers() | RepairContainer() | StopContainers() | ManageRestartPolicy():
                self._do(item)
            case ArmGuard() | MoveDeadline() | DisarmGuard():
                self._tell_the_guard(item)
            case RunFence():
                self._later(FENCE_TAKES_S, lambda: self._fence(item))
            case Exit():
                self.kill_agent()
            case ReplyToOperator():
                pass
            case _:
                assert_never(item)

    def _tell_the_guard(self, order: ArmGuard | MoveDeadline | DisarmGuard) -> None:
        now, child = self.world.now, self.watch.child
        match order:
            case ArmGuard():
                try:
                    lease = Lease(order.term, order.names, order.valid_until_s)
                    self.watch = watch.arm(self.watch, child, lease, now)
                except watch.RefusedError as error:
                    because = str(error)
                    self.world.soon(lambda: self.take(GuardFailed(order.term, because)))
                else:
                    self.world.soon(lambda: self.take(GuardArmed(order.term)))
            case MoveDeadline():
                self.watch = watch.move(self.watch, child, order.term, order.valid_until_s, now)
            case DisarmGuard():
                self.watch = watch.disarm(self.watch, child, order.term)
            case _:
                assert_never(order)

    def _fence(self, order: RunFence) -> None:
        if not self.fence_error:
            self.world.hosts[order.target].crash()
        self.take(FenceFinished(order.term, order.target, self.fence_error))

    # --- messages ---------------------------------------------------------------------------------

    def _send(self, message: Message) -> None:
        """Deliver a message and its answer, or find out at the deadline that there is none."""
        run, sent_at_s = self.run, self.world.now
        is_cut = self.world.is_cut(self.policy.role, message.to)

        def answered(answer: BeatAnswer | VoteAnswer | ReleaseAnswer) -> None:
            if run == self.run:
                self.world.soon(lambda: self.take(_answered(message, sent_at_s, answer)))

        witness, other = self.world.witness, self.world.hosts.get(message.to)
        if not is_cut and other is None and witness.is_on:
            self.world.soon(lambda: witness.receive(message, answered))
        elif not is_cut and other is not None and other.state is not None and not other.is_frozen:
            self.world.soon(lambda: other._receive(message, answered))
        else:
            self._later(message.deadline_s, lambda: self.take(_unanswered(message, sent_at_s)))

    def _receive(self, message: Message, answered: Answered) -> None:
        number = next(self._numbers)
        self._requests[number] = answered
        match message:
            case SendHeartbeat():
                self.take(HeartbeatReceived(number, message.beat))
            case SendVoteRequest():
                self.take(VoteRequested(number, message.request))
            case SendRelease():
                self.take(ReleaseReceived(number, message.request))
            case _:
                assert_never(message)

    # --- the engine -------------------------------------------------------------------------------

    def _later(self, seconds: float, call: Call) -> None:
        """So much later, if this agent still runs then."""
        run = self.run
        self.world.after(seconds, lambda: call() if run == self.run else None)

    def _do(self, order: Order) -> None:
        match order:
            case StartContainers():
                self._start_next(order, self._lane, list(order.names))
            case RepairContainer():
                self._later(START_TAKES_S, lambda: self._repair(order))
            case StopContainers():
                self._lane += 1  # It overtakes a start.
                self._later(STOP_TAKES_S, lambda: self._stop(order))
            case ManageRestartPolicy():
                self.containers[order.name].restart_policy = "no"
                self.world.soon(lambda: self.take(RestartPolicySet(order.name, order.was, "")))
            case _:
                assert_never(order)

    def _start_next(self, order: StartContainers, lane: int, names: list[str]) -> None:
        """The containers start one after the other; those that run are left as they are."""
        if lane != self._lane:
            return
        if not names:
            self.world.soon(lambda: self.take(ContainersStarted(order.term)))
        elif self.containers[names[0]].runs:
            self._start_next(order, lane, names[1:])
        else:
            self._later(START_TAKES_S, lambda: self._start_one(order, lane, names))

    def _start_one(self, order: StartContainers, lane: int, names: list[str]) -> None:
        if lane != self._lane:
            return
        error = self._start(names[0])
        if error:
            self.take(StartFailed(order.term, names[0], error))
        else:
            self._start_next(order, lane, names[1:])

    def _repair(self, order: RepairContainer) -> None:
        error = self._start(order.name)
        self.take(RepairFinished(order.term, order.name, error))

    def _start(self, name: str) -> str:
        """Start one container; why it did not, or ""."""
        container = self.containers[name]
        error = "the engine does not answer" if self.engine_is_gone else container.error
        if not error:
            container.runs, container.starts = True, container.starts + 1
            self.take(ContainerChanged(container.observed()))
        return error

    def _stop(self, order: StopContainers) -> None:
        still = tuple(name for name in order.names if self.containers[name].runs)
        if self.engine_is_gone and still:
            self.take(StopFailed(order.term, still, "the engine does not answer"))
            return
        for name in still:
            self.containers[name].runs = False
        self.take(ContainersStopped(order.term))


def _policy(role: Role, settings: dict[str, Any]) -> Policy:
    return replace(Policy(role, CONTAINERS, fingerprint="a pair"), **settings)


def _answered(
    message: Message,
    sent_at_s: float,
    answer: BeatAnswer | VoteAnswer | ReleaseAnswer,
) -> Event:
    match message, answer:
        case SendHeartbeat(), BeatAnswer():
            return HeartbeatAnswered(message.to, sent_at_s, message.beat.term, answer)
        case SendVoteRequest(), VoteAnswer():
            return VoteAnswered(message.to, sent_at_s, answer)
        case SendRelease(), ReleaseAnswer():
            return ReleaseAnswered(message.to, answer)
        case _:
            raise AssertionError(f"{answer} is no answer to {message}")


def _unanswered(message: Message, sent_at_s: float) -> Event:
    error = "timed out"
    match message:
        case SendHeartbeat():
            return HeartbeatFailed(message.to, sent_at_s, error)
        case SendVoteRequest():
            return VoteFailed(message.to, message.request.kind, message.request.term, error)
        case SendRelease():
            return ReleaseFailed(message.to, message.request.term, error)
        case _:
            assert_never(message)
