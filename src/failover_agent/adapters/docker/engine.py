"""The adapter as the rest of the agent sees it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from failover_agent.adapters.docker import own
from failover_agent.adapters.docker.client import NO_ANSWER, EngineClient
from failover_agent.adapters.docker.lane import Lane
from failover_agent.adapters.docker.processes import PROC
from failover_agent.adapters.docker.sights import OnProcess, Sights
from failover_agent.adapters.docker.watch import Clock, Timing, Watcher
from failover_agent.core.effects import (
    ManageRestartPolicy,
    RepairContainer,
    StartContainers,
    StopContainers,
)
from failover_agent.core.events import ContainerObservation, Event
from failover_agent.errors import EngineError
from failover_agent.guard.engine import NO_FILES, TlsFiles

PROBE_S = 5.0
"""For each question of a probe."""

REPLACED_S = 1.0
"""A stop waits so long for an answer, and then is taken for a plain one."""

DEFAULT_TIMING = Timing()


@dataclass(frozen=True, slots=True)
class EngineReport:
    """What `check` wants to know of an engine; one observation per name, in their order.

    `denials`: what a proxy in front of it does not let the agent ask; a sentence each.
    """

    version: str
    api_version: str
    live_restore: bool
    containers: tuple[ContainerObservation, ...]
    denials: tuple[str, ...] = ()


class DockerEngine:
    """Watches and moves the containers `names`. Nothing is opened before the first call.

    `host` is `unix:///path`, `tcp://host:port`, or `https://host:port` with TLS and these `files`;
    anything else raises EngineError. `post` takes
    each event and must not block. `may_act(term)` is asked again before each call that starts
    something. `stop_timeout_s` None: each container's own. `start_timeout_s`: for each container,
    until it is healthy. `proc`: where this host's processes are shown. `on_process` is told of each
    container that was looked at, with the process that runs it.
    """

    def __init__(  # noqa: PLR0913 - each has a name
        self,
        *,
        host: str,
        names: tuple[str, ...],
        post: Callable[[Event], None],
        may_act: Callable[[int], bool],
        clock: Clock,
        stop_timeout_s: float | None,
        start_timeout_s: float,
        timing: Timing = DEFAULT_TIMING,
        proc: Path = PROC,
        on_process: OnProcess = lambda *_: None,
        files: TlsFiles = NO_FILES,
    ) -> None:
        self._names = names
        self._clock = clock
        self._client = EngineClient(host, files)
        self._sights = Sights(self._client, names, post, timing.answer_s, proc, on_process)
        self._watcher = Watcher(self._client, self._sights, names, clock, timing)
        self._lane = Lane(
            self._client,
            self._sights,
            post,
            may_act,
            clock,
            stop_timeout_s=stop_timeout_s,
            start_timeout_s=start_timeout_s,
        )

    async def watch(self) -> None:
        """For ever; a bad world is an event."""
        await self._watcher.watch()

    async def perform(
        self, effect: StartContainers | RepairContainer | StopContainers | ManageRestartPolicy
    ) -> None:
        """Posts one answer, of the effect's term, and returns. A bad world is in the answer.

        Not to be awaited where a later effect waits: a stop is told from the starts that it
        overtakes by the order in which these calls begin.
        """
        match effect:
            case StartContainers():
                await self._lane.start(effect)
            case RepairContainer():
                await self._lane.repair(effect)
            case StopContainers():
                await self._lane.stop(effect)
            case ManageRestartPolicy():
                await self._lane.manage_restart_policy(effect)
            case _:
                assert_never(effect)

    async def is_replacing_us(self) -> bool:
        """Do we run in a container that compose is about to recreate? Waits at most REPLACED_S."""
        ours = own.own_id()
        if not ours:
            return False
        try:
            rows = await self._client.rows(own.OF_COMPOSE, REPLACED_S)
        except NO_ANSWER:
            return False
        return own.is_replaced(ours, rows, self._clock.wall().timestamp())

    async def probe(self) -> EngineReport:
        """One look at everything, for `check`; nothing is posted. Raises EngineError."""
        sights = Sights(self._client, self._names, lambda _: None, PROBE_S)
        try:
            denials = await self._client.denials(PROBE_S)
            if any(" denies GET /" in it for it in denials):
                return EngineReport("", "", live_restore=False, containers=(), denials=denials)
            version = await self._client.version(PROBE_S)
            info = await self._client.info(PROBE_S)
            seen = await asyncio.gather(*(sights.look(name, PROBE_S) for name in self._names))
        except NO_ANSWER as error:
            raise EngineError(engine=self._client.host, what=str(error)) from error
        finally:
            sights.close()
        return EngineReport(
            version=str(version["Version"]),
            api_version=str(version["ApiVersion"]),
            live_restore=bool(info.get("LiveRestoreEnabled")),
            containers=tuple(sight.observation for sight in seen),
            denials=denials,
        )

    async def close(self) -> None:
        """Ends every connection."""
        self._sights.close()
        await self._client.close()
