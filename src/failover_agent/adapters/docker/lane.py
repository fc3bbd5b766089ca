"""Carries out the core's orders about containers; each is answered by one event, of its term.

A start is never given up once it is written: the engine would go on, and a container would come up
that nobody expects. So nothing here cancels one. A stop overtakes a start by taking its leave away:
that start writes no further request and waits for nothing any more, and it is answered when the
call that it had under way has ended.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from failover_agent.adapters.docker.client import (
    NO_ANSWER,
    EngineClient,
    EngineRefusedError,
    EngineUnreachableError,
    NotPermittedError,
)
from failover_agent.adapters.docker.parse import Sight
from failover_agent.adapters.docker.sights import Sights
from failover_agent.adapters.docker.stopping import ANSWER_S, KILL_S, POLL_S, Stopper
from failover_agent.adapters.docker.watch import Clock
from failover_agent.core.effects import (
    ManageRestartPolicy,
    RepairContainer,
    StartContainers,
    StopContainers,
)
from failover_agent.core.events import (
    ContainersStarted,
    ContainersStopped,
    Event,
    RepairFinished,
    RestartPolicySet,
    StartFailed,
    StopFailed,
)
from failover_agent.core.state import ContainerState

AGAIN_S = 1.0
"""A container that is to come up is looked at again after this, if the stream gives no hint."""

SETTLED_S = 0.3
"""What ends at once has ended by then."""

LOST_CALL_S = 10.0
"""After a start whose connection broke: so long to hear what became of it."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Leave:
    """To start `names` in `term`, given after `stops` orders to stop some of them."""

    term: int
    names: tuple[str, ...]
    stops: int


class _StartError(Exception):
    """`name` did not come up; the text is for people."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class Lane:
    """Orders may come while others are under way. About one container there is one at a time, but
    for stops, which overtake.
    """

    def __init__(
        self,
        client: EngineClient,
        sights: Sights,
        post: Callable[[Event], None],
        may_act: Callable[[int], bool],
        clock: Clock,
        *,
        stop_timeout_s: float | None,
        start_timeout_s: float,
    ) -> None:
        self._client = client
        self._sights = sights
        self._post = post
        self._may_act = may_act
        self._clock = clock
        self._start_timeout_s = start_timeout_s
        self._busy: set[str] = set()  # by a start or a repair
        self._calls_out: Counter[str] = Counter()  # starts that may be at work
        self._stopping: Counter[str] = Counter()  # stops under way
        self._stops: Counter[str] = Counter()  # stops ever ordered
        self._stopper = Stopper(
            client, sights, clock, lambda name: self._calls_out[name] > 0, stop_timeout_s
        )

    # -- start ----------------------------------------------------------------------------------

    async def start(self, order: StartContainers) -> None:
        """In order: the next one when the former runs and, where it has a check, is healthy."""
        leave = self._give_leave(order.term, order.names)
        settled_at_s = 0.0
        try:
            for name in order.names:
                async with self._turn(name, leave):
                    settled_at_s = max(settled_at_s, await self._bring_up(name, leave))
            await self._see_all_run(leave, settled_at_s)
        except _StartError as error:
            self._post(StartFailed(order.term, error.name, str(error)))
        else:
            self._post(ContainersStarted(order.term))

    async def repair(self, order: RepairContainer) -> None:
        """Starts a dead container; what runs, or is paused, is left alone."""
        leave = self._give_leave(order.term, (order.name,))
        error = ""
        try:
            async with self._turn(order.name, leave):
                sight = await self._look(order.name)
                if not sight.observation.alive:
                    await self._call_start(sight, leave)
                    sight = await self._look(order.name)
                if sight.observation.state is not ContainerState.UP:
                    error = sight.observation.detail
        except _StartError as failed:
            error = str(failed)
        self._post(RepairFinished(order.term, order.name, error))

    async def _bring_up(self, name: str, leave: _Leave) -> float:
        """Returns when it serves, with the moment when it will have settled (0: it ran before).

        Raises _StartError.
        """
        ends_at_s = self._clock.now() + self._start_timeout_s
        if await self._start_at_once(name, leave):
            settled_at_s = self._clock.now() + SETTLED_S
        else:
            settled_at_s = await self._start_with_care(name, leave)
        while not (sight := await self._look_until(name, leave, ends_at_s)).is_serving:
            if sight.status != "running":
                raise _StartError(name, sight.observation.detail)
            if self._clock.now() >= ends_at_s:
                late = f"not healthy within {self._start_timeout_s:g} s"
                raise _StartError(name, f"{late}: {sight.observation.detail}")
            await self._news_of(name, leave, ends_at_s - self._clock.now())
        return settled_at_s

    async def _start_at_once(self, name: str, leave: _Leave) -> bool:
        """Without a look, where the last one showed what only has to be started.

        False where it did not, or where the engine says that it is not so. Raises _StartError.
        """
        known = self._sights.startable(name)
        if known is None:
            return False
        try:
            await self._call_start(known, leave)
        except _StartError as error:
            self._check(leave, name)
            if isinstance(error.__cause__, EngineRefusedError):
                return False
            raise
        return True

    async def _start_with_care(self, name: str, leave: _Leave) -> float:
        """After a look, and whatever that shows. Returns as `_bring_up`. Raises _StartError."""
        sight = await self._look(name)
        if sight.observation.alive and await self._sights.has_strays(name):
            await self._stopper.end_strays(name)  # or the engine would say that they are in the way
        if sight.status == "restarting":
            # Between the rounds of a crash loop the engine would not start it now, and then do so
            # when it pleases, whoever may act by then.
            await self._answered(name, self._client.stop(sight.container_id, 0, KILL_S))
        if sight.status == "running":
            return 0.0
        await self._call_start(sight, leave)
        return self._clock.now() + SETTLED_S

    async def _call_start(self, sight: Sight, leave: _Leave) -> None:
        """One start call, to its end, however long that takes. Raises _StartError."""
        name = sight.observation.name
        if not sight.observation.exists:
            raise _StartError(name, sight.observation.detail)
        call = self._client.unpause if sight.status == "paused" else self._client.start
        self._check(leave, name)
        self._calls_out[name] += 1
        self._sights.doubt(name)
        try:
            await call(sight.container_id, lambda: not self._refusal(leave))
        except NotPermittedError:
            raise _StartError(name, self._refusal(leave) or "not allowed at that moment") from None
        except EngineRefusedError as error:
            raise _StartError(name, str(error)) from error
        except EngineUnreachableError as error:
            # It may be at work all the same, behind a proxy that went away. While it is, the engine
            # does not answer a look; one that is gone is not at work.
            self._sights.doubt(name)
            seen = await self._look_until(name, None, self._clock.now() + LOST_CALL_S)
            if not seen.observation.alive:
                raise _StartError(name, str(error)) from error
        finally:
            self._calls_out[name] -= 1
            self._sights.doubt(name)
            self._sights.news.ring()

    async def _see_all_run(self, leave: _Leave, settled_at_s: float) -> None:
        """A process that ends at once did not start. Raises _StartError."""
        await self._sights.news.until(
            lambda: bool(self._refusal(leave)) or any(map(self._has_ended, leave.names)),
            max(settled_at_s - self._clock.now(), 0),
        )
        for name in leave.names:
            self._check(leave, name)
            sight = await self._look(name)
            if sight.status != "running":
                raise _StartError(name, sight.observation.detail)
            self._check(leave, name)

    # -- stop -----------------------------------------------------------------------------------

    async def stop(self, order: StopContainers) -> None:
        """Answered when none is seen to run and no start is out, or when that cannot be shown."""
        self._stops.update(order.names)
        self._stopping.update(order.names)
        self._sights.news.ring()
        try:
            async with asyncio.TaskGroup() as calls:
                running = await self._stopper.stop(order.names, order.grace_s, calls)
                if running:
                    why = "; ".join(f"{name}: {what}" for name, what in running.items())
                    self._post(StopFailed(order.term, tuple(running), why))
                else:
                    self._post(ContainersStopped(order.term))
        finally:  # when the engine, too, has done with it
            self._stopping.subtract(order.names)
            self._sights.news.ring()

    # -- restart policy -------------------------------------------------------------------------

    async def manage_restart_policy(self, order: ManageRestartPolicy) -> None:
        """The core hears of the new policy before it hears that it was set."""
        error = ""
        try:
            sight = await self._see(order.name)
            if not sight.observation.exists:
                error = sight.observation.detail
            elif sight.observation.restart_policy != "no":
                await self._client.drop_restart_policy(sight.container_id, ANSWER_S)
                await self._see(order.name)
        except NO_ANSWER as failed:
            error = str(failed)
        self._post(RestartPolicySet(order.name, order.was, error))

    # -- leave and turns ------------------------------------------------------------------------

    def _give_leave(self, term: int, names: tuple[str, ...]) -> _Leave:
        return _Leave(term, names, sum(self._stops[name] for name in names))

    def _refusal(self, leave: _Leave) -> str:
        """Why nothing may be started any more; empty while it may."""
        if sum(self._stops[name] for name in leave.names) != leave.stops:
            return "overtaken by an order to stop"
        if not self._may_act(leave.term):
            return f"no longer allowed to act in term {leave.term}"
        return ""

    def _check(self, leave: _Leave, name: str) -> None:
        refusal = self._refusal(leave)
        if refusal:
            raise _StartError(name, refusal)

    @contextlib.asynccontextmanager
    async def _turn(self, name: str, leave: _Leave) -> AsyncIterator[None]:
        """When no stop of this container is under way and no other start. Raises _StartError."""

        def is_free() -> bool:
            return name not in self._busy and not self._stopping[name]

        await self._sights.news.until(
            lambda: bool(self._refusal(leave)) or is_free(), self._start_timeout_s
        )
        self._check(leave, name)
        if not is_free():
            raise _StartError(name, "an earlier order about it has not ended yet")
        self._busy.add(name)
        try:
            yield
        finally:
            self._busy.discard(name)
            self._sights.news.ring()

    # -- looking --------------------------------------------------------------------------------

    async def _see(self, name: str) -> Sight:
        """Raises what the client raises."""
        return await self._sights.look(name, ANSWER_S, closely=True)

    async def _look(self, name: str) -> Sight:
        """Raises _StartError where the engine does not answer."""
        return await self._answered(name, self._see(name))

    async def _answered(self, name: str, question: Awaitable[T]) -> T:
        try:
            return await question
        except NO_ANSWER as error:
            raise _StartError(name, str(error)) from error

    async def _look_until(self, name: str, leave: _Leave | None, ends_at_s: float) -> Sight:
        """A look at a container that was started: an engine that is away may come back."""
        while True:
            if leave is not None:
                self._check(leave, name)
            try:
                return await self._see(name)
            except NO_ANSWER as error:
                if self._clock.now() >= ends_at_s:
                    raise _StartError(name, str(error)) from error
            await asyncio.sleep(POLL_S)

    async def _news_of(self, name: str, leave: _Leave, limit_s: float) -> None:
        seen = self._sights.last(name)
        await self._sights.news.until(
            lambda: bool(self._refusal(leave)) or self._sights.last(name) is not seen,
            min(AGAIN_S, max(limit_s, 0)),
        )

    def _has_ended(self, name: str) -> bool:
        sight = self._sights.last(name)
        return sight is not None and not sight.observation.alive
