"""Brings containers down, and shows that they are.

Grace, then the engine's kill, then ours. That an engine says stopped is no proof: it says so while
its containerd is away, and of what a crash of its own has left running. So the end is shown by a
close look; and where the engine does not answer, by the processes that are seen to be gone.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable

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

    async def stop(self, names: tuple[str, ...], grace_s: float | None) -> dict[str, str]:
        """In order, each to its end; side by side once one of them does not end.

        Returns which may still run, and what is the matter with each: empty where all are shown to
        be gone. `grace_s` None: as configured.
        """
        problems: dict[str, str] = {}
        left = list(names)
        while left and not any(problems.values()):
            name = left.pop(0)
            problems[name] = await self._bring_down(name, grace_s)
        rest = await asyncio.gather(*(self._bring_down(name, grace_s) for name in left))
        problems.update(zip(left, rest, strict=True))
        running = await self._confirm(names)
        return {name: problems[name] or what for name, what in running.items()}

    async def end_strays(self, name: str) -> str:
        """What a crash of the engine has left, and the engine denies. Empty where it is gone."""
        problem = "the engine denies a process of it"
        log.warning("container_kill", extra={"fields": {"name": name, "sentence": problem}})
        self._sights.kill_strays(name)
        return "" if await self._is_gone(name, KILL_S) else problem

    async def _bring_down(self, name: str, grace_s: float | None) -> str:
        """Grace, then kill. What went wrong is told; whether it runs is seen at the end."""
        if self._is_start_out(name):
            await self._sights.news.until(lambda: not self._is_start_out(name), LATE_START_S)
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
        if sight.observation.restart_policy != "no":
            with contextlib.suppress(*NO_ANSWER):  # that of a --rm container cannot be dropped
                await self._client.drop_restart_policy(sight.container_id, ANSWER_S)
        problem = await self._stop_gently(sight, grace_s)
        if not problem:
            return ""
        log.warning("container_kill", extra={"fields": {"name": name, "sentence": problem}})
        try:
            await self._client.kill(sight.container_id, KILL_S)
        except EngineUnreachableError as error:
            return "" if await self._is_gone(name, 0) else str(error)
        except EngineRefusedError as error:
            problem = str(error)
        return "" if await self._is_gone(name, KILL_S) else problem

    async def _stop_gently(self, sight: Sight, grace_s: float | None) -> str:
        """Empty where it has stopped; else what is the matter."""
        name = sight.observation.name
        chosen_s = self._stop_timeout_s if grace_s is None else grace_s
        allowed_s = sight.stop_timeout_s if chosen_s is None else chosen_s
        allowed_s = LONGEST_STOP_S if allowed_s is None else min(allowed_s, LONGEST_STOP_S)
        if sight.status == "paused":
            allowed_s = 0  # a frozen process hears no TERM
        whole_s = math.ceil(allowed_s)  # the engine counts in whole seconds
        limit_s = allowed_s + (STOP_SLACK_S if whole_s == allowed_s else 0)
        try:
            await self._client.stop(sight.container_id, whole_s, limit_s)
        except EngineUnreachableError as error:
            return str(error)
        except EngineRefusedError as error:
            return "" if await self._is_gone(name, 0) else str(error)
        # The engine's word is no proof: it says so while its containerd is away, too.
        return "" if await self._is_gone(name, 0) else "the engine says stopped, and it is alive"

    async def _is_gone(self, name: str, limit_s: float) -> bool:
        ends_at_s = self._clock.now() + limit_s
        while await self._what_runs(name):
            if self._clock.now() >= ends_at_s:
                return False
            await asyncio.sleep(POLL_S)
        return True

    async def _confirm(self, names: tuple[str, ...]) -> dict[str, str]:
        """What still runs, or may run, and what is known of it."""
        ends_at_s = self._clock.now() + CONFIRM_S
        while True:
            seen = await asyncio.gather(*(self._what_runs(name) for name in names))
            running = {name: what for name, what in zip(names, seen, strict=True) if what}
            if not running or self._clock.now() >= ends_at_s:
                return running
            await asyncio.sleep(POLL_S)

    async def _what_runs(self, name: str) -> str:
        """Empty where nothing of the container runs: by a fresh look, or by its process."""
        if self._is_start_out(name):
            return "a start of it has not ended yet"
        try:
            sight = await self._sights.look(name, ANSWER_S, closely=True)
        except NO_ANSWER as error:
            is_gone = not await self._sights.has_strays(name) and self._sights.alive(name) is False
            return "" if is_gone else str(error)
        return sight.observation.detail if sight.observation.alive else ""
