"""Brings containers down, and shows that they are.

Grace, then a kill, by the engine and by ourselves. Where time is short (H3) all are stopped side by
side, and a stop that is under way has no more time than the one that came after it.

That an engine says stopped is no proof: it says so while its containerd is away, and of what a
crash of its own has left running. So the end is shown by a close look; and where the engine does
not answer, by the processes that are seen to be gone.
"""

import asyncio
import contextlib
import logging
import math
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator

from failover_agent.adapters.docker.client import (
    NO_ANSWER,
    EngineClient,
    EngineRefusedError,
    EngineUnreachableError,
)
from failover_agent.adapters.docker.parse import Sight
from failover_agent.adapters.docker.sights import Sights
from failover_agent.adapters.docker.watch import Clock

ANSWER_S = 3.0
"""For a question, or an update."""

LATE_START_S = 5.0
"""How long a stop waits for the end of a start call of the same container."""

LONGEST_STOP_S = 300.0
"""For a container that may take for ever to stop."""

STOP_SLACK_S = 1.0
"""After the grace, for the engine's own kill; then we do it."""

KILL_S = 5.0
"""From a kill to the end of the process."""

CONFIRM_S = 3.0
"""After the last stop, until all are seen to be gone."""

POLL_S = 0.1

QUICK_S = 0.5
"""For a question where time is short: the engine may hang, and the processes tell as well."""

log = logging.getLogger(__name__)


class Stopper:
    """`is_start_out(name)`: a start call of it may still be at work, so nothing is at its end.

    `stop_timeout_s` is the operator's grace; None leaves it to each container.
    """

    def __init__(
        self,
        client: EngineClient,
        sights: Sights,
        clock: Clock,
        is_start_out: Callable[[str], bool],
        stop_timeout_s: float | None,
    ) -> None:
        self._client = client
        self._sights = sights
        self._clock = clock
        self._is_start_out = is_start_out
        self._stop_timeout_s = stop_timeout_s
        self._hurrying: Counter[str] = Counter()  # orders under way that have a grace of their own
        self._grace_ends_at_s: dict[str, float] = {}  # by the loop's clock, while one of them is
        self._graces: defaultdict[str, set[asyncio.Timeout]] = defaultdict(set)

    async def stop(
        self, names: tuple[str, ...], grace_s: float | None, calls: asyncio.TaskGroup
    ) -> dict[str, str]:
        """In order, each to its end; side by side once one of them does not end.

        With a `grace_s` all side by side, killed when it is over; 0 kills at once. Returns which
        may still run, and what is the matter with each: empty where all are shown to be gone.

        `calls` is left with what the engine has not answered yet though its work is done.
        """
        if grace_s is None:
            problems = await self._stop_in_order(names, calls)
        else:
            with self._hurry(names, grace_s):
                found = await asyncio.gather(
                    *(self._stop_quickly(name, grace_s, calls) for name in names)
                )
            problems = dict(zip(names, found, strict=True))
        running = await self._confirm(names, ANSWER_S if grace_s is None else QUICK_S)
        return {name: problems[name] or what for name, what in running.items()}

    async def _stop_in_order(
        self, names: tuple[str, ...], calls: asyncio.TaskGroup
    ) -> dict[str, str]:
        problems: dict[str, str] = {}
        left = list(names)
        while left and not any(problems.values()):
            name = left.pop(0)
            problems[name] = await self._bring_down(name, calls)
        rest = await asyncio.gather(*(self._bring_down(name, calls) for name in left))
        problems.update(zip(left, rest, strict=True))
        return problems

    async def end_strays(self, name: str) -> str:
        """What a crash of the engine has left, and the engine denies. Empty where it is gone."""
        problem = "the engine denies a process of it"
        log.warning("container_kill", extra={"fields": {"name": name, "sentence": problem}})
        self._sights.kill_strays(name)
        return "" if await self._is_gone(name, KILL_S) else problem

    async def _bring_down(self, name: str, calls: asyncio.TaskGroup) -> str:
        """Grace, then kill. What went wrong is told; whether it runs is seen at the end."""
        if self._is_start_out(name):
            await self._sights.news.until(
                lambda: not self._is_start_out(name) or self._hurrying[name] > 0, LATE_START_S
            )
        if self._has_ended(name):
            return ""
        try:
            sight = await self._sights.look(name, ANSWER_S, closely=True)
        except NO_ANSWER:
            last = self._sights.last(name)
            if last is None:
                return "the engine does not answer"
            sight = last  # the orders may reach the engine all the same
        if await self._sights.has_strays(name):
            return await self.end_strays(name)
        if not sight.container_id or self._sights.alive(name) is False:
            return ""
        await self._drop_restart_policy(sight, ANSWER_S)
        chosen_s = self._stop_timeout_s
        allowed_s = sight.stop_timeout_s if chosen_s is None else chosen_s
        allowed_s = LONGEST_STOP_S if allowed_s is None else min(allowed_s, LONGEST_STOP_S)
        slack_s = STOP_SLACK_S if math.ceil(allowed_s) == allowed_s else 0
        problem = await self._stop_gently(sight, allowed_s, slack_s, calls)
        return problem if problem and await self._kill(name, problem) else ""

    async def _stop_quickly(self, name: str, grace_s: float, calls: asyncio.TaskGroup) -> str:
        """As `_bring_down`, and nothing of it waits for longer than the grace."""
        ends_at_s = self._clock.now() + grace_s

        def left_s() -> float:
            return max(ends_at_s - self._clock.now(), 0)

        if grace_s > 0:
            await self._sights.news.until(lambda: not self._is_start_out(name), left_s())
            with contextlib.suppress(*NO_ANSWER):
                await self._sights.look(name, min(QUICK_S, left_s()), closely=True)
        sight = self._sights.last(name)
        if not self._is_start_out(name):
            if sight is not None and not sight.observation.exists:
                return ""
            if await self._sights.has_strays(name):
                return await self.end_strays(name)
            if self._sights.alive(name) is False:
                return ""
            if grace_s > 0 and sight is not None and sight.container_id:
                await self._drop_restart_policy(sight, min(QUICK_S, left_s()))
                if not await self._stop_gently(sight, left_s(), 0, calls):
                    return ""
        return await self._kill(name, "time is up")

    async def _drop_restart_policy(self, sight: Sight, limit_s: float) -> None:
        if sight.observation.restart_policy != "no":
            with contextlib.suppress(*NO_ANSWER):  # that of a --rm container cannot be dropped
                await self._client.drop_restart_policy(sight.container_id, limit_s)

    async def _stop_gently(
        self, sight: Sight, allowed_s: float, slack_s: float, calls: asyncio.TaskGroup
    ) -> str:
        """Empty where it has stopped; else what is the matter. `slack_s`: for the engine's kill.

        Returns when its process is seen to have ended: the engine takes half as long again to say
        so, and nobody has to wait for that.
        """
        name = sight.observation.name
        if sight.status == "paused":
            allowed_s = 0  # a frozen process hears no TERM
        whole_s = math.ceil(allowed_s)  # the engine counts in whole seconds
        call = calls.create_task(self._call_stop(sight.container_id, whole_s))
        call.add_done_callback(lambda _: self._sights.news.ring())
        try:
            async with self._grace(name, allowed_s + slack_s):
                await self._sights.news.wait_for(lambda: call.done() or self._has_ended(name))
        except TimeoutError:
            call.cancel()
            return f"no answer within {allowed_s + slack_s:g} s"
        error = call.result() if call.done() else None
        if isinstance(error, EngineUnreachableError):
            return str(error)
        if isinstance(error, EngineRefusedError):
            return "" if await self._is_gone(name, 0) else str(error)
        # The engine's word is no proof: it says so while its containerd is away, too.
        return "" if await self._is_gone(name, 0) else "the engine says stopped, and it is alive"

    async def _call_stop(
        self, container_id: str, grace_s: int
    ) -> EngineUnreachableError | EngineRefusedError | None:
        """What went wrong with it, if anything."""
        try:
            await self._client.stop(container_id, grace_s, LONGEST_STOP_S + STOP_SLACK_S)
        except NO_ANSWER as error:
            return error
        return None

    def _has_ended(self, name: str) -> bool:
        """Shown without the engine, which has not even noticed perhaps: H3 by its processes."""
        return not self._is_start_out(name) and self._sights.has_just_ended(name)

    # -- kill -----------------------------------------------------------------------------------

    async def _kill(self, name: str, problem: str) -> str:
        """By the engine and by ourselves, side by side, because either may not be able to.

        `problem` is why. Returns what still runs, or nothing.
        """
        log.warning("container_kill", extra={"fields": {"name": name, "sentence": problem}})
        ends_at_s = self._clock.now() + KILL_S
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(self._kill_by_engine(name))
            while True:
                await self._sights.kill_processes(name)
                what = await self._what_runs(name, QUICK_S)
                if not what or self._clock.now() >= ends_at_s:
                    break
                await asyncio.sleep(POLL_S)
                if asking.done():
                    asking = group.create_task(self._kill_by_engine(name))
            asking.cancel()
        return what

    async def _kill_by_engine(self, name: str) -> None:
        """What we know under the name, and what bears it now."""
        last = self._sights.last(name)
        known = last.container_id if last is not None else ""

        async def kill(container_id: str) -> None:
            with contextlib.suppress(*NO_ANSWER):
                await self._client.kill(container_id, KILL_S)

        async def kill_another() -> None:
            with contextlib.suppress(*NO_ANSWER):
                another = (await self._client.ids([name], KILL_S)).get(name, known)
                if another != known:
                    await kill(another)

        if known:
            await asyncio.gather(kill(known), kill_another())
        else:
            await kill_another()

    # -- haste ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _hurry(self, names: tuple[str, ...], grace_s: float) -> Iterator[None]:
        """Nobody who stops one of `names` waits politely for longer than that from now on."""
        ends_at_s = asyncio.get_running_loop().time() + grace_s
        for name in names:
            self._hurrying[name] += 1
            its_end_s = min(ends_at_s, self._grace_ends_at_s.get(name, ends_at_s))
            self._grace_ends_at_s[name] = its_end_s
            for grace in self._graces[name]:
                grace.reschedule(min(its_end_s, grace.when() or its_end_s))
        self._sights.news.ring()
        try:
            yield
        finally:
            for name in names:
                self._hurrying[name] -= 1
                if not self._hurrying[name]:
                    del self._grace_ends_at_s[name]

    @contextlib.asynccontextmanager
    async def _grace(self, name: str, limit_s: float) -> AsyncIterator[None]:
        """`limit_s`, or less where haste was ordered, before or meanwhile. Raises TimeoutError."""
        ends_at_s = asyncio.get_running_loop().time() + limit_s
        ends_at_s = min(ends_at_s, self._grace_ends_at_s.get(name, ends_at_s))
        async with asyncio.timeout_at(ends_at_s) as grace:
            self._graces[name].add(grace)
            try:
                yield
            finally:
                self._graces[name].discard(grace)

    # -- seeing the end -------------------------------------------------------------------------

    async def _is_gone(self, name: str, limit_s: float) -> bool:
        ends_at_s = self._clock.now() + limit_s
        while await self._what_runs(name):
            if self._clock.now() >= ends_at_s:
                return False
            await asyncio.sleep(POLL_S)
        return True

    async def _confirm(self, names: tuple[str, ...], limit_s: float) -> dict[str, str]:
        """What still runs, or may run, and what is known of it."""
        ends_at_s = self._clock.now() + CONFIRM_S
        while True:
            seen = await asyncio.gather(*(self._what_runs(name, limit_s) for name in names))
            running = {name: what for name, what in zip(names, seen, strict=True) if what}
            if not running or self._clock.now() >= ends_at_s:
                return running
            await asyncio.sleep(POLL_S)

    async def _what_runs(self, name: str, limit_s: float = ANSWER_S) -> str:
        """Empty where nothing of the container runs: by a fresh look, or by its process."""
        if self._is_start_out(name):
            return "a start of it has not ended yet"
        if self._has_ended(name):
            return ""
        try:
            sight = await self._sights.look(name, limit_s, closely=True)
        except NO_ANSWER as error:
            is_gone = not await self._sights.has_strays(name) and self._sights.alive(name) is False
            return "" if is_gone else str(error)
        return sight.observation.detail if sight.observation.alive else ""
