"""What is known of the managed containers, and what the core was told of it.

List and inspect are the truth. Only the event `die` is believed without a look, because an engine
that is shutting down still reports and answers no more questions. Several looks may be under way,
and an old one may end after a newer one or after the container's death: each has a number, and what
it saw is dropped where something newer is known.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from failover_agent.adapters.docker import processes
from failover_agent.adapters.docker.client import (
    NO_ANSWER,
    EngineClient,
    EngineRefusedError,
    EngineUnreachableError,
)
from failover_agent.adapters.docker.parse import (
    ACTIONS,
    ContainerEvent,
    Sight,
    exited,
    missing,
    parse_event,
    parse_inspect,
)
from failover_agent.adapters.docker.watched import Watched
from failover_agent.core.events import (
    ContainerChanged,
    ContainerDied,
    ContainerObservation,
    ContainersObserved,
    EngineLost,
    Event,
)

EVENTS_REMEMBERED = 512
"""So that an event told twice counts once: each stream begins where the last one still was."""

WHOLE_EVERY = 6
"""One survey of so many looks at all containers, not only at those that the list shows changed."""

FAILED_LOOKS = 3
"""After so many, with an engine that answers otherwise, a container is unknown. One that the engine
is just starting cannot be looked at for some seconds."""

LOOKS_IN_A_ROW = 10
"""So often a look begins again because the container died or lost its name meanwhile."""


OnProcess = Callable[[str, str, processes.Process | None], None]
"""A container by name and id, and the process that was seen to run it."""


class Bell:
    """Wakes all who wait for a condition that somebody else makes true."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Something has changed."""
        self._rung.set()
        self._rung = asyncio.Event()

    async def until(self, condition: Callable[[], bool], limit_s: float) -> bool:
        """Waits until `condition` is true, but no longer than `limit_s`. Is it?"""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self.wait_for(condition)
        return condition()

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Waits until `condition` is true, however long that takes."""
        while not condition():
            await self._rung.wait()


class _Begun(NamedTuple):
    """How things stood when a look began."""

    number: int
    deaths: int
    starts: int
    orders: int


class Sights:
    """Posts what is news to the core.

    `answer_s` limits each question of a survey; `proc` is where the host's processes are shown.
    """

    def __init__(
        self,
        client: EngineClient,
        names: tuple[str, ...],
        post: Callable[[Event], None],
        answer_s: float,
        proc: Path = processes.PROC,
        on_process: OnProcess = lambda *_: None,
    ) -> None:
        self.news = Bell()
        """Rings whenever more is known."""
        self._client = client
        self._watched = {name: Watched(name) for name in names}
        self._post = post
        self._answer_s = answer_s
        self._proc = proc
        self._on_process = on_process
        self._looks = 0
        self._surveys = 0
        self._is_lost = True  # until the first snapshot
        self._lost_because = ""
        self._must_tell_all = True
        self._withheld = ""
        self._heard: deque[tuple[int, str, str]] = deque(maxlen=EVENTS_REMEMBERED)
        self._endings = processes.Endings(self._see_end)

    # -- what is known --------------------------------------------------------------------------

    def last(self, name: str) -> Sight | None:
        """What was seen last; None before the first look."""
        return self._watched[name].believed

    def alive(self, name: str) -> bool | None:
        """Does a process of it run, by what can be seen without the engine?"""
        return self._watched[name].alive()

    def has_just_ended(self, name: str) -> bool:
        """Was it seen, without the engine, that nothing of it runs, and nothing will?"""
        return self._watched[name].has_just_ended()

    def startable(self, name: str) -> Sight | None:
        """What was seen last, where nothing has to be found out before a start of it."""
        return None if self._is_lost else self._watched[name].startable

    def doubt(self, name: str) -> None:
        """It may have been started: whether it runs is not known before the next look."""
        self._watched[name].orders += 1

    # -- hints ----------------------------------------------------------------------------------

    def hear(self, said: Mapping[str, Any]) -> None:
        """One event of the stream: a reason to look, and word of a death."""
        event = parse_event(said)
        if event is None or event.action not in ACTIONS:
            return
        key = (event.at_us, event.container_id, event.action)
        if key in self._heard:
            return
        self._heard.append(key)
        for watched in self._concerned(event):
            if event.action == "die":
                self._hear_of_death(watched, event)
            elif event.action == "start":
                watched.starts += 1
            watched.hint.set()

    async def hint(self, name: str) -> None:
        """Waits for a reason to look at this container, however long that takes."""
        watched = self._watched[name]
        await watched.hint.wait()
        watched.hint.clear()

    def _concerned(self, event: ContainerEvent) -> Iterator[Watched]:
        for watched in self._watched.values():
            sight = watched.sight
            is_its_id = sight is not None and event.container_id == sight.container_id
            if is_its_id or watched.name in (event.name, event.old_name):
                yield watched

    def _hear_of_death(self, watched: Watched, event: ContainerEvent) -> None:
        """Down at once, if it is the incarnation that we know; a look that ends later is stale."""
        watched.deaths += 1
        sight = watched.sight
        if sight is None or not sight.observation.alive:
            return
        if event.container_id != sight.container_id or event.at_us < sight.started_at_us:
            return
        self._tell_death(watched, watched.take_death(sight, exited(event.exit_code)))

    def _see_end(self, name: str) -> None:
        """Its process has ended, which is what `die` would say: down at once.

        While the engine is lost that is told with the rest of what is seen of the processes.
        """
        watched = self._watched[name]
        sight = watched.sight
        if self._is_lost or sight is None or not sight.observation.alive:
            return
        watched.deaths += 1
        self._tell_death(watched, watched.take_end(sight))
        watched.hint.set()

    def _tell_death(self, watched: Watched, dead: ContainerObservation) -> None:
        if watched.told is not None and watched.told.incarnation == dead.incarnation:
            watched.told = dead
            self._post(ContainerDied(watched.name, dead.incarnation, dead.detail))
        self.news.ring()

    # -- looking --------------------------------------------------------------------------------

    async def look(self, name: str, limit_s: float, *, closely: bool = False) -> Sight:
        """One container, as it was after this call; the core is told what is news.

        Raises EngineUnreachableError or EngineRefusedError. `limit_s` is for each of two requests.
        `closely`: the engine is not believed that nothing runs.
        """
        watched = self._watched[name]
        for _ in range(LOOKS_IN_A_ROW):
            begun = self._begin(watched)
            ids = await self._client.ids([name], limit_s)
            sight = await self._inspect(watched, ids.get(name), limit_s)
            if sight is not None and closely:
                await self._find_strays(watched, sight)
            if sight is not None and self._take(watched, sight, begun) and watched.believed:
                return watched.believed
        raise EngineUnreachableError(f"{name} changes faster than it can be looked at")

    async def has_strays(self, name: str) -> bool:
        """Do processes of it run that the engine denied when it was seen last?"""
        watched = self._watched[name]
        if watched.sight is not None:
            await self._find_strays(watched, watched.sight)
        return watched.has_strays()

    def kill_strays(self, name: str) -> None:
        """SIGKILL: the engine ends only what it knows."""
        for stray in self._watched[name].strays:
            processes.kill(stray)

    async def kill_processes(self, name: str) -> None:
        """SIGKILL to all that is seen of it, engine or not."""
        watched = self._watched[name]
        if watched.process is not None:
            processes.kill(watched.process)
        if watched.sight is not None and watched.sight.container_id:
            inside = (watched.sight.container_id, self._proc)
            for process in await asyncio.to_thread(processes.of_container, *inside):
                processes.kill(process)

    async def attend(self, name: str) -> bool:
        """A look because of a hint. False where the engine did not answer: there is a new hint."""
        watched = self._watched[name]
        try:
            await self.look(name, self._answer_s)
        except NO_ANSWER as error:
            watched.hint.set()
            watched.failed_looks += 1
            if watched.failed_looks >= FAILED_LOOKS and not self._is_lost:
                self._tell(watched, watched.unknown(f"the engine says nothing of it: {error}"))
            return False
        return True

    async def survey(self) -> None:
        """One list, then an inspection of each that it shows to be another than was known.

        After a break, and now and then, of all: a list does not show everything. Tells all after a
        break, else what has changed. Raises where the engine does not answer the list. What it says
        nothing of is left to hints.
        """
        must_tell_all = self._must_tell_all or self._is_lost
        begun = {name: self._begin(watched) for name, watched in self._watched.items()}
        listed = await self._client.listed(self._watched, self._answer_s)
        self._must_tell_all = False
        self._surveys += 1
        is_whole = must_tell_all or self._surveys % WHOLE_EVERY == 0
        async with asyncio.TaskGroup() as group:
            for name, watched in self._watched.items():
                row = listed.get(name)
                if is_whole or not watched.is_as(row):
                    its_id = None if row is None else row.container_id
                    group.create_task(self._see(watched, its_id, begun[name], must_tell_all))
        if must_tell_all:
            self._tell_all()

    async def _see(
        self, watched: Watched, container_id: str | None, begun: _Begun, closely: bool
    ) -> None:
        try:
            sight = await self._inspect(watched, container_id, self._answer_s)
            if sight is not None and closely:
                await self._find_strays(watched, sight)
        except NO_ANSWER:
            sight = None
        if sight is None or not self._take(watched, sight, begun):
            watched.hint.set()

    async def _inspect(
        self, watched: Watched, container_id: str | None, limit_s: float
    ) -> Sight | None:
        """None where the container has lost its name, or itself, since it was listed."""
        if container_id is None:
            return missing(watched.name, was_here=watched.was_here)
        try:
            inspected = await self._client.inspect(container_id, limit_s)
        except EngineRefusedError as error:
            if error.is_no_such_container:
                return None
            raise
        if inspected["Name"] != f"/{watched.name}":
            return None
        return parse_inspect(watched.name, inspected)

    async def _find_strays(self, watched: Watched, sight: Sight) -> None:
        if sight.container_id and not sight.observation.alive:
            found = await asyncio.to_thread(processes.of_container, sight.container_id, self._proc)
            watched.strays = tuple({*watched.strays, *found})

    def _begin(self, watched: Watched) -> _Begun:
        self._looks += 1
        return _Begun(self._looks, watched.deaths, watched.starts, watched.orders)

    def _take(self, watched: Watched, sight: Sight, begun: _Begun) -> bool:
        """Keeps what was seen, unless something newer is known. False: look again."""
        if begun.deaths != watched.deaths and sight.observation.alive:
            return False
        if begun.number > watched.number:
            watched.take(sight, self._proc)
            watched.number = begun.number
            watched.starts_seen = begun.starts
            watched.orders_seen = begun.orders
            self._endings.follow(watched.name, watched.process)
            if sight.container_id:
                self._on_process(watched.name, sight.container_id, watched.process)
        if watched.believed is not None and not self._is_lost:
            self._tell(watched, watched.believed.observation)
        self.news.ring()
        return True

    def close(self) -> None:
        """Nothing is watched any more."""
        self._endings.close()

    # -- telling --------------------------------------------------------------------------------

    def tell_all_next_time(self) -> None:
        """The stream broke: the next survey is told whole."""
        self._must_tell_all = True

    def withhold(self, what: str) -> bool:
        """What the engine does not tell of all it should, "" for nothing. Is that news?"""
        is_news = what != self._withheld
        self._withheld = what
        self._must_tell_all = self._must_tell_all or is_news
        return is_news

    def lose(self, error: str) -> None:
        """The engine does not answer, says `error`: all is unknown until the next survey."""
        is_news = not self._lost_because
        self._is_lost = True
        self._lost_because = error
        for watched in self._watched.values():
            watched.is_stale = True
        if is_news:
            self.remind()

    def remind(self) -> None:
        """While the engine is lost: what /proc tells of the processes, which may end meanwhile."""
        if self._lost_because:
            alive = tuple((name, watched.alive()) for name, watched in self._watched.items())
            self._post(EngineLost(self._lost_because, alive))

    def _tell(self, watched: Watched, observation: ContainerObservation) -> None:
        if observation != watched.told:
            watched.told = observation
            self._post(ContainerChanged(observation))

    def _tell_all(self) -> None:
        self._is_lost = False
        self._lost_because = ""
        told = []
        for watched in self._watched.values():
            if watched.believed is None or watched.is_stale:
                watched.told = watched.unknown("not seen yet")
            else:
                watched.told = watched.believed.observation
            told.append(watched.told)
        self._post(ContainersObserved(tuple(told), self._withheld))
