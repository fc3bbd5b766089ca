"""Keeps an eye on the managed containers, by the engine's event stream.

Events are hints: each leads to a look. A stream begins a few seconds back, because the engine says
200 before it listens to itself; everything is looked at after that. It is not trusted for long, a
proxy may have dropped it without a word: the next one takes over, and only when it is open, because
an engine that is shutting down accepts no new one and still reports on the old. A slow list finds
what the streams lost, and an engine that has stopped answering.
"""

import asyncio
import logging
import random
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from failover_agent.adapters.docker.client import NO_ANSWER, EngineClient, StreamEnd
from failover_agent.adapters.docker.sights import Sights

OVERLAP_S = 3.0
"""How far back each stream begins. The engine remembers 256 events, of everything on the host."""

FIRST_BACKOFF_S = 0.05

log = logging.getLogger(__name__)


class Clock(Protocol):
    """adapters/clock.py, as far as it is used here."""

    def now(self) -> float:
        """Seconds on CLOCK_BOOTTIME."""
        ...

    def wall(self) -> datetime:
        """The time of day: for nothing but the engine's `since`."""
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the watcher waits, in seconds.

    `window_s`: until the next stream takes over. `survey_s`: between two slow lists. `answer_s`: an
    engine that has not answered by then is lost. `remind_s`: between two EngineLost. `retry_s`:
    between two questions whether it is back. `backoff_s`: the longest pause between two attempts to
    open a stream.
    """

    window_s: float = 30.0
    survey_s: float = 5.0
    answer_s: float = 3.0
    remind_s: float = 1.0
    retry_s: float = 0.25
    backoff_s: float = 2.0


class Watcher:
    """The tasks that keep `sights` up to date."""

    def __init__(
        self,
        client: EngineClient,
        sights: Sights,
        names: tuple[str, ...],
        clock: Clock,
        timing: Timing,
    ) -> None:
        self._client = client
        self._sights = sights
        self._names = names
        self._clock = clock
        self._timing = timing
        self._survey_wanted = asyncio.Event()
        self._has_tried = asyncio.Event()  # to open a stream

    async def watch(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._survey())
            group.create_task(self._remind())
            for name in self._names:
                group.create_task(self._attend(name))

    async def _follow(self) -> None:
        """One stream takes over from the other."""
        backoff_s = FIRST_BACKOFF_S
        last: asyncio.Task[StreamEnd] | None = None
        async with asyncio.TaskGroup() as group:
            while True:
                stream = await self._open(group)
                self._has_tried.set()
                if stream is None:
                    await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))  # noqa: S311
                    backoff_s = min(2 * backoff_s, self._timing.backoff_s)
                    continue
                backoff_s = FIRST_BACKOFF_S
                if last is None or last.done():
                    self._sights.tell_all_next_time()
                    self._survey_wanted.set()
                else:
                    last.cancel()
                last = stream
                await asyncio.wait({stream}, timeout=self._timing.window_s)
                if stream.done():
                    fields = {"sentence": stream.result().why}
                    log.info("engine_stream_broke", extra={"fields": fields})
                    self._survey_wanted.set()  # is the engine still there?

    async def _open(self, group: asyncio.TaskGroup) -> asyncio.Task[StreamEnd] | None:
        """None where the engine accepts no stream."""
        opened = asyncio.Event()
        is_open = False

        def on_open() -> None:
            nonlocal is_open
            is_open = True
            opened.set()

        since_s = self._clock.wall().timestamp() - OVERLAP_S
        stream = group.create_task(self._client.follow(since_s, self._sights.hear, on_open))
        stream.add_done_callback(lambda _: opened.set())
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timing.answer_s):
                await opened.wait()
        if is_open:
            self._tell_withheld("")
            return stream
        if stream.done() and stream.result().is_denied:
            self._tell_withheld(stream.result().why)
        stream.cancel()
        return None

    def _tell_withheld(self, what: str) -> None:
        """Without events the slow list is all there is, and it is for the core to say so."""
        if self._sights.withhold(what):
            self._survey_wanted.set()

    async def _attend(self, name: str) -> None:
        """A look at this container for each hint, however long the others' take."""
        while True:
            await self._sights.hint(name)
            if not await self._sights.attend(name):
                self._survey_wanted.set()
                await asyncio.sleep(self._timing.remind_s)

    async def _survey(self) -> None:
        """From time to time, when asked, and all the time while the engine is lost."""
        await self._has_tried.wait()
        while True:
            self._survey_wanted.clear()
            try:
                await self._sights.survey()
            except NO_ANSWER as error:
                self._sights.lose(str(error))
                await asyncio.sleep(self._timing.retry_s)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timing.survey_s):
                    await self._survey_wanted.wait()

    async def _remind(self) -> None:
        """Processes may end while the engine is lost."""
        while True:
            await asyncio.sleep(self._timing.remind_s)
            self._sights.remind()
