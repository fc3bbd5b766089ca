"""agent.py with the shipped core, in virtual time, with lanes that note what they are given."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from failover_agent import agent as agent_module
from failover_agent.agent import INBOX_LIMIT, Agent, Hands, Message
from failover_agent.core import ballot, startup
from failover_agent.core import voter as voters
from failover_agent.core.effects import (
    ArmGuard,
    DisarmGuard,
    Effect,
    ReplyToOperator,
    RunFence,
    SendHeartbeat,
    SendVoteRequest,
    StartContainers,
    StopContainers,
)
from failover_agent.core.events import (
    CommandKind,
    CommandReceived,
    ContainerObservation,
    ContainersObserved,
    ContainersStarted,
    Event,
    FenceFinished,
    GuardArmed,
    HeartbeatAnswered,
    HeartbeatFailed,
    HeartbeatReceived,
    RecordWriteFailed,
    StopRequested,
    Tick,
    VoteAnswered,
)
from failover_agent.core.messages import Beat, BeatAnswer, Sender, VoteAnswer
from failover_agent.core.plan import Step
from failover_agent.core.policy import Policy, Role
from failover_agent.core.state import (
    ContainerState,
    Durable,
    Health,
    Holder,
    Phase,
    Readiness,
    Reason,
    State,
)

pytestmark = pytest.mark.virtual_time

BOOTED_S = 5000.0
POLICY = Policy(role=Role.PRIMARY, containers=("db", "web"))
WITH_A_WITNESS = replace(POLICY, arbiter=Role.WITNESS)
LEASE_S = WITH_A_WITNESS.lease_s
ME = Holder(Role.PRIMARY, "me")
THE_WITNESS = Sender(Role.WITNESS, "witness", "its run", "")


class Clock:
    """CLOCK_BOOTTIME beside the loop's own clock, which stands still in a suspend."""

    def __init__(self) -> None:
        self.suspended_s = 0.0

    def now(self) -> float:
        return BOOTED_S + self.suspended_s + asyncio.get_running_loop().time()


class Disk:
    """A record store in memory: works, fails, or hangs."""

    def __init__(self, story: list[object]) -> None:
        self.story = story
        self.saved: list[Durable] = []
        self.error: OSError | None = None
        self.free = asyncio.Event()
        self.free.set()
        self.asked_to_save = asyncio.Event()

    async def save(self, durable: Durable) -> None:
        self.asked_to_save.set()
        await self.probe()
        self.saved.append(durable)
        self.story.append(durable)

    async def probe(self) -> None:
        await self.free.wait()
        if self.error is not None:
            raise self.error


@dataclass
class Lane:
    """Notes each order; an order may hang until `free` is set."""

    story: list[object]
    given: list[Effect] = field(default_factory=list)
    done: list[Effect] = field(default_factory=list)
    free: asyncio.Event = field(default_factory=asyncio.Event)

    async def perform(self, effect: Effect) -> None:
        self.story.append(effect)
        self.given.append(effect)
        await self.free.wait()
        self.done.append(effect)


@dataclass
class Wires(Lane):
    """Beside that, a witness at the end of one wire: the shipped voter, with its disk in memory."""

    now: Callable[[], float] = field(kw_only=True)
    post: Callable[[Event], None] = field(kw_only=True)
    voter: voters.Voter | None = None

    async def perform(self, effect: Effect) -> None:
        assert isinstance(effect, Message)
        if effect.to is Role.WITNESS:
            self._tell_the_witness(effect)
        await super().perform(effect)

    def _tell_the_witness(self, effect: Message) -> None:
        now = self.now()
        voter = self.voter or voters.begin(Durable(), now, timeout_s=0.0, forgot=False)
        if isinstance(effect, SendHeartbeat):
            self.voter, answer = ballot.decide(voter, effect.beat, now, THE_WITNESS)
        else:
            self.voter, answer = ballot.decide(voter, effect.request, now, THE_WITNESS)
        match effect, answer:
            case SendHeartbeat(), BeatAnswer():
                self.post(HeartbeatAnswered(Role.WITNESS, now, effect.beat.term, answer))
            case SendVoteRequest(), VoteAnswer():
                self.post(VoteAnswered(Role.WITNESS, now, answer))
            case _:
                pass  # A release: nobody here waits for that.


def of_kind(lane: Lane, kind: type[Effect]) -> list[Effect]:
    return [order for order in lane.given if isinstance(order, kind)]


class Witnessed:
    """An observer that keeps everything."""

    def __init__(self) -> None:
        self.steps: list[tuple[Event, Step]] = []
        self.faults: list[tuple[Event, BaseException]] = []

    def stepped(self, before: State, event: Event, now: float, after: Step) -> None:
        _ = before, now
        self.steps.append((event, after))

    def broke(self, before: State, event: Event, now: float, error: BaseException) -> None:
        _ = before, now
        self.faults.append((event, error))


class Node:
    """An agent and everything around it."""

    def __init__(self, durable: Durable = Durable(), policy: Policy = POLICY) -> None:  # noqa: B008
        self.clock = Clock()
        self.story: list[object] = []
        self.disk = Disk(self.story)
        self.containers = Lane(self.story)
        self.messages = Wires(
            self.story,
            now=self.clock.now,
            post=lambda event: self.agent.post(event),  # noqa: PLW0108 - it comes later
        )
        self.guard = Lane(self.story)
        self.fence = Lane(self.story)
        self.seen = Witnessed()
        self.came_round = 0
        state = startup.begin(
            policy,
            node_id=ME.node_id,
            run_id="run",
            durable=durable,
            record_lost=durable.holder is None,
            boot_is_new=False,
            now=self.clock.now(),
        )
        self.agent = Agent(
            state,
            policy,
            clock=self.clock,
            record=self.disk,
            observers=[self.seen],
            come_round=self.comes_round,
        )

    def comes_round(self) -> None:
        self.came_round += 1

    @property
    def phase(self) -> Phase:
        return self.agent.get_state().phase

    async def run(self) -> str:
        async with asyncio.TaskGroup() as group:
            lanes = (self.containers, self.messages, self.guard, self.fence)
            farewell = await self.agent.run(group, Hands(*lanes))
            for lane in lanes:
                lane.free.set()
            return farewell

    async def until(self, condition: Callable[[], object], within_s: float = 60.0) -> None:
        async with asyncio.timeout(within_s):
            async for _ in self.agent.watch():
                if condition():
                    return

    async def wins_by_the_witness(self) -> None:
        """The peer is never heard."""
        self.agent.post(observed(ContainerState.DOWN))
        await self.until(lambda: self.agent.get_state().is_holding)

    async def becomes_active(self) -> None:
        """As the lone primary: nobody answers, and the containers are there."""
        self.agent.post(observed(ContainerState.DOWN))
        await self.until(lambda: self.phase is Phase.PROMOTING)
        self.agent.post(ContainersStarted(term=1))
        self.agent.post(observed(ContainerState.UP))
        await self.until(lambda: self.phase is Phase.ACTIVE)


@asynccontextmanager
async def running(node: Node) -> AsyncIterator[Node]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(node.run())
        yield node
        task.cancel()


def observed(state: ContainerState) -> ContainersObserved:
    is_up = state is ContainerState.UP
    return ContainersObserved(
        tuple(
            ContainerObservation(
                name=name,
                state=state,
                detail="running" if is_up else "exited (0)",
                exists=True,
                alive=is_up,
                incarnation="1",
                image="",
                settings="",
                restart_policy="no",
            )
            for name in POLICY.containers
        )
    )


def beat_of_an_active_peer(term: int = 9) -> Beat:
    return Beat(
        sender=Sender(Role.BACKUP, "peer", "its run", ""),
        number=1,
        phase=Phase.ACTIVE,
        term=term,
        renews=True,
        hold=False,
        lease_s=10.0,
        longest_lease_s=10.0,
        holder=Role.BACKUP,
        released=False,
        leading_for_s=100.0,
        health=Health.OK,
        running=2,
        readiness=Readiness.READY,
        not_ready_because=(),
        may_lead=True,
    )


async def ask_beat(node: Node) -> BeatAnswer:
    answer = await node.agent.ask(
        lambda number: HeartbeatReceived(number, beat_of_an_active_peer())
    )
    assert isinstance(answer, BeatAnswer)
    return answer


def position(story: list[object], kind: type[object]) -> int:
    return next(place for place, item in enumerate(story) if isinstance(item, kind))


# --- save, then act ------------------------------------------------------------------------------


async def test_the_term_is_saved_before_the_first_container_is_started() -> None:
    async with running(Node()) as node:
        await node.becomes_active()

        assert node.disk.saved[0].holder == ME
        assert position(node.story, Durable) < position(node.story, StartContainers)
        assert node.containers.given == [StartContainers(term=1, names=("db", "web"))]


async def test_a_stop_goes_out_before_the_save_and_does_not_wait_for_it() -> None:
    async with running(Node()) as node:
        node.agent.post(observed(ContainerState.UP))
        await node.until(lambda: node.agent.get_state().engine.reachable)
        node.disk.free.clear()
        await ask_beat_in_vain(node)

        assert position(node.story, StopContainers) < len(node.story)
        assert node.disk.saved == []
        node.disk.free.set()
        await node.until(lambda: node.disk.saved)


async def ask_beat_in_vain(node: Node) -> None:
    with pytest.raises(TimeoutError):
        await ask_beat(node)


async def test_a_failed_save_undoes_the_step_and_its_other_effects() -> None:
    async with running(Node()) as node:
        await node.until(lambda: True)
        node.disk.error = OSError(28, "No space left on device")
        node.agent.post(observed(ContainerState.DOWN))
        await node.until(lambda: node.agent.get_state().record_error)

        assert "No space left" in node.agent.get_state().record_error
        assert node.agent.get_state().held_term is None
        assert node.containers.given == []
        node.disk.error = None
        await node.until(lambda: not node.agent.get_state().record_error)
        await node.until(lambda: node.containers.given)
        assert node.phase is Phase.PROMOTING
        assert node.containers.given == [StartContainers(term=1, names=("db", "web"))]


async def test_the_fact_of_an_undone_step_is_heard_again_and_makes_what_it_can() -> None:
    async with running(Node()) as node:
        await node.until(lambda: True)
        node.disk.error = OSError(28, "No space left on device")

        answer = await ask_beat(node)

        assert answer.vote is not None
        assert not answer.vote.granted
        assert node.agent.get_state().peers[Role.BACKUP].phase is Phase.ACTIVE
        assert node.agent.get_state().durable == Durable()
        told = [type(event) for event, _ in node.seen.steps if not isinstance(event, Tick)]
        assert told[-2:] == [RecordWriteFailed, HeartbeatReceived]


async def test_a_disk_that_works_for_a_moment_only_is_tried_again() -> None:
    async with running(Node()) as node:
        node.agent.post(observed(ContainerState.DOWN))
        await node.until(lambda: node.messages.given)
        for _ in range(3):
            node.disk.error = OSError(28, "No space left on device")
            await node.until(lambda: node.agent.get_state().record_error, within_s=90.0)
            node.disk.error = None
            await node.until(lambda: not node.agent.get_state().record_error)
        await node.until(lambda: node.containers.given)

        assert node.disk.saved[-1].holder == ME


async def test_a_disk_that_fails_is_known_before_it_is_needed() -> None:
    node = Node()
    node.disk.error = OSError(30, "Read-only file system")
    async with running(node):
        await node.until(lambda: node.agent.get_state().record_error, within_s=1.0)

        node.disk.error = None
        await node.until(lambda: not node.agent.get_state().record_error, within_s=12.0)


# --- may_act -------------------------------------------------------------------------------------


async def test_a_start_may_act_until_a_stop_is_handed_out() -> None:
    async with running(Node()) as node:
        assert not node.agent.may_act(1)
        await node.becomes_active()
        assert node.agent.may_act(1)
        assert not node.agent.may_act(2)

        await ask_beat(node)

        assert isinstance(node.containers.given[-1], StopContainers)
        assert not node.agent.may_act(1)


async def test_with_a_lease_nothing_may_act_before_the_guard_has_said_that_it_watches() -> None:
    async with running(Node(policy=WITH_A_WITNESS)) as node:
        await node.wins_by_the_witness()
        await node.until(lambda: of_kind(node.guard, ArmGuard))
        assert not node.agent.may_act(1)
        assert node.containers.given == []

        node.agent.post(GuardArmed(term=1))
        await node.until(lambda: node.containers.given)

        assert node.containers.given == [StartContainers(term=1, names=("db", "web"))]
        assert node.agent.may_act(1)


async def test_an_agent_thawed_near_the_end_of_its_lease_may_not_act_before_it_has_stepped() -> (
    None
):
    async with running(Node(policy=WITH_A_WITNESS)) as node:
        await node.wins_by_the_witness()
        node.agent.post(GuardArmed(term=1))
        await node.until(lambda: node.containers.given)

        node.clock.suspended_s += LEASE_S - WITH_A_WITNESS.stop_budget_s

        assert not node.agent.may_act(1)


async def test_an_agent_that_was_away_for_half_the_timeout_may_not_act_in_a_plain_pair_either() -> (
    None
):
    async with running(Node()) as node:
        await node.becomes_active()

        node.clock.suspended_s += POLICY.heartbeat_timeout_s / 2

        assert not node.agent.may_act(1)
        await node.until(lambda: node.agent.may_act(1))


async def test_the_fence_command_is_run_after_the_majority_and_before_the_guard_is_armed() -> None:
    async with running(Node(policy=replace(WITH_A_WITNESS, has_fence=True))) as node:
        await node.wins_by_the_witness()
        await node.until(lambda: node.fence.given)
        assert node.fence.given == [RunFence(1, Role.BACKUP, Reason.FIRST_START)]
        assert of_kind(node.guard, ArmGuard) == []

        node.agent.post(FenceFinished(1, Role.BACKUP, ""))
        await node.until(lambda: of_kind(node.guard, ArmGuard))


# --- the inbox -----------------------------------------------------------------------------------


async def test_a_full_inbox_turns_away_what_is_said_again_and_nothing_else() -> None:
    async with running(Node()) as node:
        node.agent.post(observed(ContainerState.DOWN))
        await node.until(lambda: node.messages.given)
        node.disk.free.clear()
        async with asyncio.timeout(60):
            await node.disk.asked_to_save.wait()
        for _ in range(INBOX_LIMIT + 10):
            node.agent.post(HeartbeatFailed(Role.BACKUP, 0.0, "refused"))

        assert node.agent.turned_away == 10
        with pytest.raises(TimeoutError, match="too much waits"):
            await ask_beat(node)
        node.agent.post(ContainersStarted(term=1))
        node.agent.post(observed(ContainerState.UP))
        assert node.agent.turned_away == 11
        node.disk.free.set()
        await node.until(lambda: node.phase is Phase.ACTIVE)


async def test_ticks_are_not_starved_by_events() -> None:
    async with running(Node()) as node:
        stop = False

        async def flood() -> None:
            while not stop:
                node.agent.post(HeartbeatFailed(Role.BACKUP, 0.0, "refused"))
                await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=0.01)

        async with asyncio.TaskGroup() as group:
            group.create_task(flood())
            await node.until(lambda: len(node.messages.given) >= 10, within_s=11.0)
            stop = True


async def test_time_that_passed_in_a_suspend_is_seen_within_a_tenth_of_a_second() -> None:
    async with running(Node()) as node:
        await node.until(lambda: node.messages.given)
        before_s = asyncio.get_running_loop().time()
        beats = len(node.messages.given)
        node.clock.suspended_s += 3600

        await node.until(lambda: len(node.messages.given) > beats)

        assert asyncio.get_running_loop().time() - before_s < 0.11


async def test_the_loop_comes_round_even_when_nothing_happens() -> None:
    async with running(Node()) as node:
        await node.until(lambda: len(node.messages.given) >= 5)

        assert node.came_round > 30
        assert node.agent.stepped_ago_s() < POLICY.check_heartbeat_interval_s


class BreaksLater(Node):
    """A fault in what is done while nothing happens."""

    def comes_round(self) -> None:
        super().comes_round()
        if self.came_round == 20:
            raise ZeroDivisionError("a fault of the program")


async def test_a_fault_while_nothing_happens_ends_the_agent_too() -> None:
    with pytest.raises(ExceptionGroup, match="unhandled errors") as raised:
        await asyncio.wait_for(BreaksLater().run(), 60)
    assert raised.group_contains(ZeroDivisionError)


# --- questions -----------------------------------------------------------------------------------


async def test_an_operator_gets_an_answer() -> None:
    async with running(Node()) as node:
        answer = await node.agent.ask(lambda number: CommandReceived(number, CommandKind.RESUME))

        assert isinstance(answer, ReplyToOperator)
        assert answer.sentence


async def test_a_question_whose_asker_has_gone_is_not_put_to_the_core() -> None:
    node = Node()
    with pytest.raises(TimeoutError):  # Nobody decides yet.
        await ask_beat(node)

    async with running(node):
        await node.until(lambda: node.messages.given)

        assert not any(isinstance(event, HeartbeatReceived) for event, _ in node.seen.steps)


async def test_a_watcher_that_is_slow_misses_states_but_never_the_last() -> None:
    async with running(Node()) as node:
        watcher = node.agent.watch()
        first = await anext(watcher)
        await node.becomes_active()

        latest = await anext(watcher)

        assert first.phase is Phase.STARTING
        assert latest is node.agent.get_state()
        await watcher.aclose()


# --- the end -------------------------------------------------------------------------------------


async def test_the_last_messages_leave_before_the_run_ends() -> None:
    node = Node()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(node.run())
        await node.until(lambda: node.messages.given)
        node.agent.post(StopRequested())
        await node.until(lambda: any(type(event) is StopRequested for event, _ in node.seen.steps))
        assert not task.done()

        node.messages.free.set()

        assert "nothing is left to do" in await task
        assert set(node.messages.done) == set(node.messages.given)
        assert isinstance(node.messages.done[0], SendHeartbeat)


async def test_the_last_word_to_the_guard_leaves_before_the_run_ends() -> None:
    node = Node(policy=WITH_A_WITNESS)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(node.run())
        node.messages.free.set()
        node.agent.post(observed(ContainerState.DOWN))
        await node.until(lambda: node.guard.given)
        assert node.guard.given == [DisarmGuard(term=0)]
        node.agent.post(StopRequested())
        await node.until(lambda: node.agent.has_ended)
        assert not task.done()

        node.guard.free.set()

        await task
        assert node.guard.done == node.guard.given


async def test_messages_that_nobody_takes_hold_the_end_up_for_a_second_at_most() -> None:
    node = Node()
    async with asyncio.timeout(3), asyncio.TaskGroup() as group:
        task = group.create_task(node.run())
        await node.until(lambda: node.messages.given)

        node.agent.post(StopRequested())

        assert "nothing is left to do" in await task


async def test_a_fault_of_the_core_is_told_and_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrong(state: State, event: Event, now: float, policy: Policy) -> Step:
        raise KeyError(state, event, now, policy)

    monkeypatch.setattr(agent_module, "step", wrong)
    node = Node()
    node.agent.post(StopRequested())

    with pytest.raises(ExceptionGroup) as caught:
        await node.run()

    assert caught.group_contains(KeyError)
    assert [event for event, _ in node.seen.faults] == [StopRequested()]


async def test_a_breach_of_an_invariant_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def backwards(state: State, event: Event, now: float, policy: Policy) -> Step:
        _ = event, now, policy
        return Step(replace(state, durable=replace(state.durable, term=-1)), ())

    monkeypatch.setattr(agent_module, "step", backwards)
    node = Node()

    with pytest.raises(ExceptionGroup, match="unhandled") as caught:
        await node.run()

    assert caught.group_contains(AssertionError, match="S3")
    assert node.disk.saved == []
