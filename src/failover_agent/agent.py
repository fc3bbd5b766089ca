"""The state-machine coroutine: take an event, step, check, save, hand out the orders.

One coroutine decides, one event at a time. It waits for nothing but events, time, and the save of
the durable part, which has a deadline; every order is carried out by a task of its own and answered
by an event.

What happens when events come faster than they can be handled, or a save holds them up: requests of
other nodes, beats and their answers, and what strangers can cause (ConflictSeen) are turned away at
`INBOX_LIMIT` and counted, because each of them is sent again. Completions and what the engine said
are always taken: nobody would say them again, and there are never more of them than orders we gave
and changes on this host.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

from failover_agent.core import leases
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
    AddressLost,
    CommandReceived,
    ConflictSeen,
    ContainersStopped,
    Event,
    HeartbeatAnswered,
    HeartbeatFailed,
    HeartbeatReceived,
    RecordWritable,
    RecordWriteFailed,
    ReleaseReceived,
    StopFailed,
    Tick,
    VoteRequested,
)
from failover_agent.core.invariants import check
from failover_agent.core.machine import next_deadline, step
from failover_agent.core.messages import Answer
from failover_agent.core.plan import Save, Step, plan
from failover_agent.core.policy import Policy
from failover_agent.core.state import Durable, Phase, State

INBOX_LIMIT = 1000
BATCH = 50
"""So many events are taken before others on the loop have their turn."""
LOOK_AGAIN_S = 0.1
"""asyncio's clock stands still while the machine sleeps, so ours is read again that often."""
TICKS_APART_S = 0.005
"""A deadline that a Tick does not move must not keep the loop busy."""
ANSWER_S = 5.0
"""A request is answered within that time, or not at all."""
EXIT_S = 1.0
"""At the end, messages under way have that long to leave."""
PROBE_EVERY_S = 60.0
RETRY_RECORD_S = (1.0, 2.0, 5.0, 10.0)

Request = HeartbeatReceived | VoteRequested | ReleaseReceived | CommandReceived
SENT_AGAIN = (
    HeartbeatReceived,
    VoteRequested,
    ReleaseReceived,
    CommandReceived,
    HeartbeatAnswered,
    HeartbeatFailed,
    ConflictSeen,
    AddressLost,
)
MAY_START = frozenset({Phase.PROMOTING, Phase.ACTIVE, Phase.FAILED})

ContainerOrder = StartContainers | RepairContainer | StopContainers | ManageRestartPolicy
Message = SendHeartbeat | SendVoteRequest | SendRelease
GuardOrder = ArmGuard | MoveDeadline | DisarmGuard


class Clock(Protocol):
    """Seconds on CLOCK_BOOTTIME."""

    def now(self) -> float: ...


class RecordStore(Protocol):
    """Where the durable part is kept. Both raise OSError, at the latest after a deadline."""

    async def save(self, durable: Durable) -> None: ...
    async def probe(self) -> None: ...


class Containers(Protocol):
    """Carries out orders to the engine, in the order in which it is called."""

    async def perform(self, effect: ContainerOrder) -> None: ...


class Messenger(Protocol):
    """Sends to other nodes."""

    async def perform(self, effect: Message) -> None: ...


class Guard(Protocol):
    """Tells the guard what the core orders, in the order in which it is called."""

    async def perform(self, effect: GuardOrder) -> None: ...


class Fence(Protocol):
    """Runs fence_command."""

    async def perform(self, effect: RunFence) -> None: ...


@dataclass(frozen=True, slots=True)
class Hands:
    """Who carries the orders out."""

    containers: Containers
    messenger: Messenger
    guard: Guard
    fence: Fence | None


class Observer(Protocol):
    """Log and journal. Told of each step that is certain, before its orders are carried out."""

    def stepped(self, before: State, event: Event, now: float, after: Step) -> None: ...
    def broke(self, before: State, event: Event, now: float, error: BaseException) -> None: ...


class Agent:
    """What this node knows, and the only place where it changes."""

    def __init__(
        self,
        state: State,
        policy: Policy,
        *,
        clock: Clock,
        record: RecordStore,
        observers: Sequence[Observer] = (),
        come_round: Callable[[], None] = lambda: None,
    ) -> None:
        self.turned_away = 0
        self._state = state
        self._policy = policy
        self._clock = clock
        self._record = record
        self._observers = observers
        self._come_round = come_round
        self._inbox: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._waiting: dict[int, asyncio.Future[Answer | ReplyToOperator]] = {}
        self._request_ids = itertools.count(1)
        self._stops: set[int] = set()
        self._changed = asyncio.Event()
        self._record_failed = asyncio.Event()
        self._stepped_at_s = clock.now()
        self._ticked_at_s = float("-inf")  # The first Tick is due at once.
        self._farewell: str | None = None

    # --- for everybody else ----------------------------------------------------------------------

    def post(self, event: Event) -> None:
        """Tell what happened; it may be turned away (see above). Call it on the loop."""
        self._admit(event)

    def _admit(self, event: Event) -> bool:
        if isinstance(event, SENT_AGAIN) and len(self._inbox) >= INBOX_LIMIT:
            self.turned_away += 1
            return False
        if isinstance(event, ContainersStopped | StopFailed):
            self._stops.discard(event.term)
        self._inbox.append(event)
        self._arrived.set()
        return True

    async def ask(self, make_event: Callable[[int], Request]) -> Answer | ReplyToOperator:
        """What the core answers to a request; `make_event` is handed the number of the request.

        TimeoutError: there is no answer, and the asker should try again.
        """
        request_id = next(self._request_ids)
        answer: asyncio.Future[Answer | ReplyToOperator] = (
            asyncio.get_running_loop().create_future()
        )
        self._waiting[request_id] = answer
        try:
            if not self._admit(make_event(request_id)):
                raise TimeoutError("too much waits to be decided")
            async with asyncio.timeout(ANSWER_S):
                return await answer
        finally:
            del self._waiting[request_id]

    def get_state(self) -> State:
        """The state as it is now; it never changes, a later one takes its place."""
        return self._state

    async def watch(self) -> AsyncGenerator[State]:
        """The state now and after each step; who is slow misses some, but never the last."""
        while True:
            changed, state = self._changed, self._state
            yield state
            await changed.wait()

    def may_act(self, term: int) -> bool:
        """May a container be started in `term` now? Asked right before each such call (H4)."""
        state = self._state
        return (
            state.held_term == term
            and self._clock.now() < leases.start_deadline_s(state, self._policy)
            and leases.is_guarded(state, self._policy)
            and state.phase in MAY_START
            and state.stop_job is None
            and term not in self._stops
        )

    def stepped_ago_s(self) -> float:
        """How long ago the last step was: of a living agent less than a few check intervals."""
        return self._clock.now() - self._stepped_at_s

    @property
    def has_ended(self) -> bool:
        """Has the core said Exit?"""
        return self._farewell is not None

    # --- the coroutine ---------------------------------------------------------------------------

    async def run(self, group: asyncio.TaskGroup, hands: Hands) -> str:
        """Decide until the core says Exit; the last words. Orders become tasks of `group`.

        A fault of the core is told to the observers and raised: the process must end.
        """
        minding = group.create_task(self._mind_the_record(), name="record")
        tasks = _Tasks(group, hands)
        while (farewell := self._farewell) is None:
            await self._wait()
            for _ in range(BATCH):
                if self._inbox and self._farewell is None:
                    await self._take(self._inbox.popleft(), tasks)
            if self._clock.now() >= self._due_at_s() and self._farewell is None:
                await self._take(Tick(), tasks)
                self._ticked_at_s = self._clock.now()
            await asyncio.sleep(0)
        minding.cancel()
        await tasks.let_messages_leave()
        return farewell

    def _due_at_s(self) -> float:
        """When the next Tick is due."""
        deadline_s = next_deadline(self._state, self._policy)
        backstop_s = self._ticked_at_s + self._policy.check_heartbeat_interval_s
        return min(max(deadline_s, self._ticked_at_s + TICKS_APART_S), backstop_s)

    async def _wait(self) -> None:
        """Until something has arrived, or a Tick is due."""
        due_at_s = self._due_at_s()
        while True:
            self._come_round()
            wait_s = due_at_s - self._clock.now()
            if self._inbox or wait_s <= 0:
                return
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wait_s, LOOK_AGAIN_S)):
                    await self._arrived.wait()

    async def _take(self, event: Event, tasks: _Tasks) -> None:
        """One event, to the end: what it changes is certain only once it is saved.

        When that fails the step has not happened. The core is told, and hears the event again: now
        that it knows that it may save nothing, it makes of it what can be made.
        """
        if isinstance(event, Request) and event.request_id not in self._waiting:
            return  # Whoever asked has given up: a late message proves nothing.
        before, now = self._state, self._clock.now()
        after = self._decide(before, event, now)
        stops, save, rest = _in_order(plan(before, after))
        self._hand_out(stops, tasks)
        if save is not None:
            try:
                await self._record.save(save.durable)
            except OSError as error:
                self._record_failed.set()
                await self._take(_write_failed(error), tasks)
                if not isinstance(event, RecordWritable):
                    await self._take(event, tasks)
                return
        self._make_certain(before, event, now, after)
        self._hand_out(rest, tasks)

    def _decide(self, before: State, event: Event, now: float) -> Step:
        try:
            after = step(before, event, now, self._policy)
            check(before, after, self._policy)
        except Exception as error:
            for observer in self._observers:
                observer.broke(before, event, now, error)
            raise
        return after

    def _make_certain(self, before: State, event: Event, now: float, after: Step) -> None:
        self._state = after.state
        self._stepped_at_s = now
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        for observer in self._observers:
            observer.stepped(before, event, now, after)

    def _hand_out(self, effects: Sequence[Effect], tasks: _Tasks) -> None:
        for effect in effects:
            match effect:
                case Reply() | ReplyToOperator():
                    self._answer(effect)
                case StopContainers():
                    self._stops.add(effect.term)
                    tasks.order(effect)
                case StartContainers() | RepairContainer() | ManageRestartPolicy():
                    tasks.order(effect)
                case SendHeartbeat() | SendVoteRequest() | SendRelease():
                    tasks.send(effect)
                case ArmGuard() | MoveDeadline() | DisarmGuard():
                    tasks.guard(effect)
                case RunFence():
                    tasks.fence(effect)
                case Exit():
                    self._farewell = effect.sentence
                case _:
                    assert_never(effect)

    def _answer(self, reply: Reply | ReplyToOperator) -> None:
        answer = self._waiting.get(reply.request_id)
        if answer is not None and not answer.done():
            answer.set_result(reply.answer if isinstance(reply, Reply) else reply)

    # --- the record ------------------------------------------------------------------------------

    async def _mind_the_record(self) -> None:
        """Tell the core when a save would fail, before it needs one, and when it works again."""
        failures = 0
        while True:
            try:
                await self._record.probe()
            except OSError as error:
                if not self._record_failed.is_set():
                    self._record_failed.set()
                    self.post(_write_failed(error))
            else:
                if self._record_failed.is_set():
                    self._record_failed.clear()
                    self.post(RecordWritable())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PROBE_EVERY_S):
                        await self._record_failed.wait()
                if not self._record_failed.is_set():
                    failures = 0  # Only time tells: a probe may pass where a save fails.
            if self._record_failed.is_set():
                await asyncio.sleep(RETRY_RECORD_S[min(failures, len(RETRY_RECORD_S) - 1)])
                failures += 1


class _Tasks:
    """Makes each order a task, in the order in which they were given; waits for none of them."""

    def __init__(self, group: asyncio.TaskGroup, hands: Hands) -> None:
        self._group = group
        self._hands = hands
        self._sending: set[asyncio.Task[None]] = set()

    def order(self, effect: ContainerOrder) -> None:
        _ = self._begin(self._hands.containers.perform(effect), effect)

    def guard(self, effect: GuardOrder) -> None:
        self._keep(self._begin(self._hands.guard.perform(effect), effect))

    def fence(self, effect: RunFence) -> None:
        assert self._hands.fence is not None, "there is no fence_command"
        _ = self._begin(self._hands.fence.perform(effect), effect)

    def send(self, effect: Message) -> None:
        self._keep(self._begin(self._hands.messenger.perform(effect), effect))

    def _begin(self, work: Coroutine[None, None, None], effect: Effect) -> asyncio.Task[None]:
        return self._group.create_task(work, name=type(effect).__name__)

    def _keep(self, task: asyncio.Task[None]) -> None:
        """To the end: the last message, and the last word to the guard, are to leave."""
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def let_messages_leave(self) -> None:
        if self._sending:
            await asyncio.wait(self._sending, timeout=EXIT_S)


def _write_failed(error: OSError) -> RecordWriteFailed:
    return RecordWriteFailed(error.strerror or str(error) or type(error).__name__)


def _in_order(
    orders: tuple[Effect | Save, ...],
) -> tuple[list[Effect], Save | None, list[Effect]]:
    """What comes before the save, the save, and what comes after it (or all, without one)."""
    before: list[Effect] = []
    save: Save | None = None
    after: list[Effect] = []
    for order in orders:
        if isinstance(order, Save):
            assert save is None, "one step, one save"
            save, before, after = order, after, []
        else:
            after.append(order)
    return before, save, after
