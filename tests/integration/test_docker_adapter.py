"""adapters/docker against a real engine: what it tells the core, and what it does for it."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import pytest

from failover_agent.adapters.clock import Clock
from failover_agent.adapters.docker import DockerEngine, Timing, lane, processes
from failover_agent.adapters.docker.processes import PROC
from failover_agent.adapters.docker.sights import OnProcess
from failover_agent.core.effects import (
    ManageRestartPolicy,
    RepairContainer,
    StartContainers,
    StopContainers,
)
from failover_agent.core.events import (
    ContainerChanged,
    ContainerDied,
    ContainerObservation,
    ContainersObserved,
    ContainersStarted,
    ContainersStopped,
    EngineLost,
    Event,
    RepairFinished,
    RestartPolicySet,
    StartFailed,
    StopFailed,
)
from failover_agent.core.state import ContainerState
from failover_agent.errors import EngineError
from failover_agent.guard import kill
from failover_agent.guard.engine import NO_FILES, TlsFiles
from tests.lab import cgroups
from tests.lab.engine import Engine
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.process import first_child
from tests.lab.service import Service, Spec
from tests.lab.until import until, until_async

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

T = TypeVar("T")

UP, DOWN, UNKNOWN = ContainerState.UP, ContainerState.DOWN, ContainerState.UNKNOWN
LIMIT_S = 30.0
QUICK = Timing(window_s=2.0, survey_s=1.0, answer_s=1.0, remind_s=0.3, retry_s=0.1, backoff_s=0.3)
PATIENT = replace(QUICK, answer_s=5.0)  # a machine that is busy is not an engine that is lost
SLOW = Timing(survey_s=60.0)  # what comes, comes from the stream


class Core:
    """Takes the events of one adapter, as the agent would."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.events: list[Event] = []
        self.views: dict[str, ContainerObservation] = {}
        self.deaths: list[ContainerDied] = []
        self.may_act: Callable[[int], bool] = lambda _: True

    def take(self, event: Event) -> None:
        self.events.append(event)
        before = self.views
        match event:
            case ContainersObserved(containers):
                assert tuple(seen.name for seen in containers) == self.names
                self.views = {seen.name: seen for seen in containers}
            case ContainerChanged(seen):
                assert seen != self.views.get(seen.name), "told though nothing has changed"
                self.views = {**self.views, seen.name: seen}
            case ContainerDied(name, incarnation, detail):
                assert self.views[name].incarnation == incarnation
                died = replace(self.views[name], state=DOWN, detail=detail, alive=False)
                self.views = {**self.views, name: died}
            case _:
                pass
        self._note_deaths(before)

    def _note_deaths(self, before: Mapping[str, ContainerObservation]) -> None:
        """In whatever words: a look that some other event asked for may see it before `die` comes.

        `detail` is what was told of it, and that of its successor where this was told at once.
        """
        for name, was in before.items():
            now = self.views[name]
            is_known = was.alive and was.incarnation
            if is_known and (now.incarnation != was.incarnation or now.alive is False):
                self.deaths.append(ContainerDied(name, was.incarnation, now.detail))

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]

    def detail(self, name: str) -> str:
        return self.views[name].detail if name in self.views else ""

    async def hears(self, condition: Callable[[], T], limit_s: float = LIMIT_S) -> T:
        async def ask() -> T:
            return condition()

        try:
            return await until_async(ask, limit_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; heard: {self.events}") from error

    async def hears_of(self, name: str, detail: str) -> ContainerObservation:
        await self.hears(lambda: self.detail(name) == detail)
        return self.views[name]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One for all: each test brings its own containers."""
    with Lab([]) as made:
        yield made


@dataclass(frozen=True, slots=True)
class Node:
    """A host with an engine, and the containers of one test."""

    host: Host
    engine: Engine
    services: dict[str, Service]


@pytest.fixture
def node(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Node]:
    """With `db` and `web`, or what `@containers(...)` says. The engine is up."""
    host, engine = lab.a.host, lab.a.engine
    folder = lab.truth.folder / host.name
    services = {}
    for item in getattr(request, "param", ["db", "web"]):
        spec = item if isinstance(item, Spec) else Spec(item)
        services[spec.name] = Service(engine, spec, folder / spec.name)
        services[spec.name].create()
    yield Node(host, engine, services)
    if not engine.is_up():
        engine.start()
    for row in engine.must("GET", "/containers/json?all=1").json:
        engine.must("DELETE", f"/containers/{row['Id']}?force=1")
    shutil.rmtree(folder)


def containers(*specs: str | Spec) -> pytest.MarkDecorator:
    """Instead of `db` and `web`."""
    return pytest.mark.parametrize("node", [specs], indirect=True, ids=["node"])


@asynccontextmanager
async def adapter(  # noqa: PLR0913 - each has a name
    node: Node,
    *,
    host: str | None = None,
    names: tuple[str, ...] | None = None,
    timing: Timing = QUICK,
    proc: Path | None = None,
    watching: bool = True,
    start_timeout_s: float = 20.0,
    stop_timeout_s: float | None = None,
    on_process: OnProcess = lambda *_: None,
    files: TlsFiles = NO_FILES,
) -> AsyncIterator[tuple[DockerEngine, Core]]:
    """An adapter that watches (after its first look at all), and the core it tells."""
    core = Core(names or tuple(node.services))
    engine = DockerEngine(
        host=host or f"unix://{node.engine.socket}",
        names=core.names,
        post=core.take,
        may_act=lambda term: core.may_act(term),  # noqa: PLW0108 - a test may change it
        clock=Clock(),
        stop_timeout_s=stop_timeout_s,
        start_timeout_s=start_timeout_s,
        timing=timing,
        proc=proc or node.host.path("/proc"),
        on_process=on_process,
        files=files,
    )
    try:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(engine.watch()) if watching else None
            if watching:
                await core.hears(lambda: len(core.events))
                # On a slow machine a snapshot may come before one of them was looked at.
                await core.hears(lambda: not any(map(is_awaited, core.views.values())))
                # A stream begins with what was done before the test.
                await core.hears(lambda: is_settled(engine))
            yield engine, core
            if watch is not None:
                watch.cancel()
    finally:
        await engine.close()


def is_awaited(view: ContainerObservation) -> bool:
    return view.detail == "not seen yet"


def is_settled(engine: DockerEngine) -> bool:
    """Is there nothing to be looked at? While the engine is lost there is nothing to see."""
    sights = engine._sights
    return sights._is_lost or all(
        (it.starts, it.orders) == (it.starts_seen, it.orders_seen) and not it.hint.is_set()
        for it in sights._watched.values()
    )


async def aside(call: Callable[[], T]) -> T:
    """The lab's calls block; the adapter must go on meanwhile."""
    return await asyncio.to_thread(call)


@contextmanager
def frozen(node: Node) -> Iterator[None]:
    node.engine.freeze()
    try:
        yield
    finally:
        node.engine.thaw()


def run(node: Node, name: str) -> Service:
    """Started, and the engine has told so: some tell a moment after they have answered."""
    service = node.services[name]
    began = int(time.time())  # noqa: TID251 - the engine's events are dated so
    service.start()
    which = quote(json.dumps({"container": [name], "event": ["start"]}))

    def told() -> str:
        path = f"/events?since={began}&until={int(time.time())}&filters={which}"  # noqa: TID251
        return node.engine.api("GET", path).text

    until(told, 30, f"the engine tells of the start of {name}")
    return service


def pid_of(node: Node, name: str) -> int:
    """The first process of a container, as this machine counts."""
    container_id = node.services[name].inspect()["Id"]
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                numbers = re.search(r"NSpid:\s+(.*)", (folder / "status").read_text())
                is_first = numbers is not None and numbers[1].split()[-1] == "1"
                if is_first and container_id in (folder / "cgroup").read_text():
                    return int(folder.name)
    raise AssertionError(f"{name} has no process")


# -- what it tells ------------------------------------------------------------------------------


async def test_the_first_word_is_a_snapshot_of_all_in_their_order(node: Node) -> None:
    run(node, "web")
    async with adapter(node, names=("web", "db", "none")) as (_, core):
        [snapshot] = core.events
        assert isinstance(snapshot, ContainersObserved)
        told = [(it.name, it.state, it.detail, it.exists) for it in snapshot.containers]

        assert told == [
            ("web", UP, "running", True),
            ("db", DOWN, "created", True),
            ("none", DOWN, "no such container", False),
        ]


async def test_a_death_is_told_at_once_and_nothing_twice(node: Node) -> None:
    service = run(node, "db")
    async with adapter(node, timing=PATIENT) as (_, core):
        known = len(core.events)
        incarnation = core.views["db"].incarnation
        await aside(service.kill)
        await core.hears(lambda: core.deaths)

        # Two windows of the stream and some surveys later all is said.
        began_s = time.monotonic()
        await core.hears(lambda: time.monotonic() - began_s > 2 * QUICK.window_s)
        assert core.deaths == [ContainerDied("db", incarnation, "exited (137)")]
        assert len(core.events[known:]) == 1


async def test_a_docker_restart_is_a_death_and_another_incarnation(node: Node) -> None:
    service = run(node, "db")
    async with adapter(node, timing=SLOW) as (_, core):
        before = core.views["db"]
        await aside(service.restart)
        await core.hears(lambda: core.views["db"].incarnation != before.incarnation)
        await core.hears_of("db", "running")

        assert [died.incarnation for died in core.deaths] == [before.incarnation]
        assert core.views["db"].settings == before.settings


async def test_a_recreated_container_is_followed_by_its_name(node: Node) -> None:
    service = run(node, "db")
    async with adapter(node, timing=SLOW) as (_, core):
        before = core.views["db"]
        await aside(service.recreate)
        await core.hears(
            lambda: (
                core.detail("db") == "running"
                and core.views["db"].incarnation[:12] != before.incarnation[:12]
            )
        )

        assert [died.incarnation for died in core.deaths] == [before.incarnation]
        assert core.views["db"].settings == before.settings
        await aside(service.kill)
        await core.hears(lambda: len(core.deaths) == 2)


async def test_a_removed_container_is_gone(node: Node) -> None:
    service = run(node, "db")
    async with adapter(node, timing=SLOW) as (_, core):
        await aside(service.remove)
        gone = await core.hears_of("db", "removed")

        assert (gone.state, gone.exists, gone.alive) == (DOWN, False, False)
        assert core.views["web"].exists


async def test_a_renamed_container_is_gone_and_another_may_take_the_name(node: Node) -> None:
    run(node, "db")
    async with adapter(node, timing=SLOW) as (_, core):
        await aside(lambda: node.engine.docker("rename", "db", "old"))
        await core.hears_of("db", "removed")
        await aside(lambda: node.engine.docker("rename", "web", "db"))
        await core.hears_of("db", "created")
        await core.hears_of("web", "removed")


async def test_a_name_that_begins_an_id_is_not_taken_for_it(node: Node) -> None:
    """An inspect of `3f` finds the container whose id begins with it."""
    short = node.services["db"].inspect()["Id"][:6]
    async with adapter(node, names=(short,)) as (engine, core):
        assert core.detail(short) == "no such container"
        await engine.perform(StartContainers(term=1, names=(short,)))

    assert core.of(StartFailed) == [StartFailed(1, short, "no such container")]
    assert node.services["db"].state == "created"


async def test_a_paused_container_is_down_and_alive(node: Node) -> None:
    service = run(node, "db")
    async with adapter(node, timing=SLOW) as (_, core):
        await aside(service.pause)
        seen = await core.hears_of("db", "paused")
        assert (seen.state, seen.alive) == (DOWN, True)
        await aside(service.unpause)
        await core.hears_of("db", "running")


@containers(Spec("web", health=True))
async def test_an_unhealthy_container_is_down_until_it_is_well_again(node: Node) -> None:
    service = run(node, "web")
    async with adapter(node, timing=SLOW) as (_, core):
        await core.hears_of("web", "running (healthy)")
        service.make_sick()
        seen = await core.hears_of("web", "running (unhealthy)")
        assert (seen.state, seen.alive) == (DOWN, True)
        service.make_well()
        seen = await core.hears_of("web", "running (healthy)")
        assert seen.state is UP


@containers(Spec("web", memory_mb=16))
async def test_a_container_out_of_memory_is_down(node: Node) -> None:
    service = run(node, "web")
    async with adapter(node, timing=PATIENT) as (_, core):
        service.run_out_of_memory()
        await core.hears(lambda: core.deaths)
        assert core.deaths[0].detail == "exited (137)"
        await core.hears_of("web", "exited (137), OOM killed")


@containers(Spec("web", restart="always"))
async def test_a_crash_loop_is_down_and_may_be_alive(node: Node) -> None:
    service = run(node, "web")
    async with adapter(node, timing=SLOW) as (_, core):
        service.break_process()
        service.exit(1)
        seen = await core.hears_of("web", "restarting (1)")
        assert (seen.state, seen.alive) == (DOWN, True)


# -- an engine that goes away -------------------------------------------------------------------


@containers(Spec("db", ignores_term=True), "web")
async def test_deaths_are_told_while_the_engine_shuts_down(node: Node) -> None:
    run(node, "db")
    run(node, "web")
    async with adapter(node) as (_, core):
        await aside(node.engine.stop)
        await core.hears(lambda: core.of(EngineLost) and len(core.deaths) == 2)
        await core.hears(lambda: core.of(EngineLost)[-1].alive == (("db", False), ("web", False)))
        assert {died.name: died.detail for died in core.deaths} == {
            "db": "exited (137)",
            "web": "exited (0)",
        }

        await aside(node.engine.start)
        await core.hears(lambda: len(core.of(ContainersObserved)) >= 2)
        await core.hears_of("db", "exited (137)")


async def test_the_processes_of_a_killed_engine_are_seen_to_live_and_to_end(node: Node) -> None:
    run(node, "db")
    run(node, "web")
    async with adapter(node) as (_, core):
        db = pid_of(node, "db")
        await aside(node.engine.kill)
        await core.hears(lambda: core.of(EngineLost))
        assert core.of(EngineLost)[-1].alive == (("db", True), ("web", True))
        assert core.of(ContainerDied) == []
        os.kill(db, signal.SIGKILL)
        await core.hears(lambda: core.of(EngineLost)[-1].alive == (("db", False), ("web", True)))
        assert core.views["web"].state is UP, "unknown is not down"

        # The next engine ends the survivors before it answers.
        before = len(core.of(ContainersObserved))
        await aside(node.engine.start)
        await core.hears(lambda: len(core.of(ContainersObserved)) > before)
        await core.hears(lambda: {view.state for view in core.views.values()} == {DOWN})


async def test_in_another_pid_namespace_nothing_is_claimed(node: Node) -> None:
    run(node, "db")
    async with adapter(node, proc=Path("/proc")) as (_, core):
        await aside(node.engine.kill)
        await core.hears(lambda: core.of(EngineLost))
        assert core.of(EngineLost)[-1].alive == (("db", None), ("web", False))


async def test_a_frozen_engine_is_lost_again_and_again_and_then_back(node: Node) -> None:
    run(node, "db")
    async with adapter(node) as (_, core):
        with frozen(node):
            await core.hears(lambda: len(core.of(EngineLost)) >= 3)
            assert core.of(EngineLost)[-1].error == "no answer within 1 s"
            before = len(core.events)
        await core.hears(lambda: len(core.of(ContainersObserved)) == 2)
        assert {type(event) for event in core.events[before:]} <= {EngineLost, ContainersObserved}
        assert core.views["db"].state is UP


async def test_an_engine_that_is_not_there_yet_is_waited_for(node: Node) -> None:
    await aside(node.engine.stop)
    async with adapter(node) as (_, core):
        assert core.of(EngineLost)[0].alive == (("db", None), ("web", None))
        assert "no such socket" in core.of(EngineLost)[0].error
        await aside(node.engine.start)
        await core.hears(lambda: core.of(ContainersObserved))


async def test_a_process_that_ended_unnoticed_by_the_engine_is_down(node: Node) -> None:
    """Its containerd stands still, so nobody tells the engine."""
    run(node, "db")
    async with adapter(node) as (engine, core):
        containerd = first_child(node.engine.process.pid)
        assert containerd, "the engine has its own"
        os.kill(containerd, signal.SIGSTOP)
        try:
            os.kill(pid_of(node, "db"), signal.SIGKILL)
            seen = await core.hears_of("db", "its process is gone, and the engine has not noticed")
            assert (seen.state, seen.alive, node.services["db"].state) == (DOWN, False, "running")
            await engine.perform(StopContainers(term=1, names=("db",), grace_s=1))
            assert core.of(ContainersStopped) == [ContainersStopped(1)]
        finally:
            os.kill(containerd, signal.SIGCONT)
        await core.hears_of("db", "exited (137)")


NOTHING = b"\0"


class Relay:
    """Between adapter and engine: loses or holds what contains a text, or cuts all connections."""

    def __init__(self, engine: Path) -> None:
        self.engine = engine  # of each connection made from now on
        self._open: set[asyncio.StreamWriter] = set()
        self._released = asyncio.Event()
        self.swallow = NOTHING
        self.hold = NOTHING
        self.holds = asyncio.Event()

    def release(self) -> None:
        self._released.set()

    async def serve(self, path: Path) -> asyncio.Server:
        return await asyncio.start_unix_server(self._relay, path)

    async def serve_tcp(self) -> asyncio.Server:
        return await asyncio.start_server(self._relay, "127.0.0.1")

    def cut(self) -> None:
        self._released.set()
        for writer in self._open:
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        engine_reader, engine_writer = await asyncio.open_unix_connection(self.engine)
        self._open |= {writer, engine_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, engine_writer))
                group.create_task(self._pump(engine_reader, writer))
        finally:
            self._open -= {writer, engine_writer}
            writer.close()
            engine_writer.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                if self.hold in data:
                    self.holds.set()
                    await self._released.wait()
                if self.swallow not in data:
                    sink.write(data)
                    await sink.drain()
            sink.write_eof()
        except ConnectionError:
            pass


@asynccontextmanager
async def relay(node: Node, folder: Path) -> AsyncIterator[tuple[Relay, str]]:
    made = Relay(node.engine.socket)
    async with await made.serve(folder / "relay.sock"):
        yield made, f"unix://{folder / 'relay.sock'}"


async def test_a_cut_stream_is_opened_again_after_a_snapshot(node: Node, tmp_path: Path) -> None:
    service = run(node, "db")
    async with AsyncExitStack() as stack:
        between, host = await stack.enter_async_context(relay(node, tmp_path))
        _, core = await stack.enter_async_context(adapter(node, host=host, timing=SLOW))
        began_s = time.monotonic()
        await core.hears(lambda: time.monotonic() - began_s > 1.5)
        between.cut()
        await core.hears(lambda: len(core.of(ContainersObserved)) == 2)
        await aside(service.kill)
        await core.hears(lambda: core.deaths)
        assert core.of(EngineLost) == []


async def test_an_engine_behind_tcp_is_watched_and_ordered_alike(node: Node) -> None:
    server = await Relay(node.engine.socket).serve_tcp()
    port = server.sockets[0].getsockname()[1]
    async with server, adapter(node, host=f"tcp://127.0.0.1:{port}") as (engine, core):
        await engine.perform(StartContainers(term=1, names=("db",)))
        assert core.of(ContainersStarted) == [ContainersStarted(1)]
        await aside(node.services["db"].kill)
        await core.hears(lambda: core.deaths)


async def test_one_container_of_which_the_engine_says_nothing_is_unknown(
    node: Node, tmp_path: Path
) -> None:
    run(node, "db")
    run(node, "web")
    async with AsyncExitStack() as stack:
        between, host = await stack.enter_async_context(relay(node, tmp_path))
        timing = replace(QUICK, answer_s=2.0)  # Each look that gets no answer takes so long.
        _, core = await stack.enter_async_context(adapter(node, host=host, timing=timing))
        between.swallow = f"containers/{node.services['db'].inspect()['Id']}/json".encode()
        await core.hears(lambda: core.views["db"].state is UNKNOWN)
        assert core.views["db"].alive
        assert core.of(EngineLost) == []
        await aside(node.services["web"].kill)
        await core.hears_of("web", "exited (137)")
        between.swallow = NOTHING
        await core.hears_of("db", "running")


# -- starting -----------------------------------------------------------------------------------


@containers("db", Spec("cache", health=True), "web")
async def test_containers_start_in_order_and_each_is_waited_for(lab: Lab, node: Node) -> None:
    async with adapter(node) as (engine, core):
        await engine.perform(StartContainers(term=7, names=("db", "cache", "web")))

        assert core.of(ContainersStarted) == [ContainersStarted(7)]
        assert core.detail("cache") == "running (healthy)"
        assert isinstance(core.events[-1], ContainersStarted), "the core knows them before"
    runs = (run for run in lab.truth.runs() if run.has_started)
    starts = sorted(runs, key=lambda run: run.first_s)
    assert [run.name for run in starts] == ["db", "cache", "web"]
    healthy_after_s = 0.5  # the first check of the lab's containers
    assert starts[2].first_s - starts[1].first_s > healthy_after_s


async def test_what_runs_is_left_as_it_is(node: Node) -> None:
    run(node, "db")
    async with adapter(node) as (engine, core):
        before = core.views["db"].incarnation
        await engine.perform(StartContainers(term=1, names=("db", "web")))

        assert core.of(ContainersStarted) == [ContainersStarted(1)]
        assert core.views["db"].incarnation == before


async def test_a_start_works_without_a_watcher(node: Node) -> None:
    async with adapter(node, watching=False) as (engine, core):
        await engine.perform(StartContainers(term=1, names=("db", "web")))
        await engine.perform(StopContainers(term=1, names=("web", "db"), grace_s=None))

    assert core.events == [ContainersStarted(1), ContainersStopped(1)]


async def test_a_paused_container_is_woken(node: Node) -> None:
    service = run(node, "db")
    service.pause()
    async with adapter(node) as (engine, core):
        await engine.perform(StartContainers(term=1, names=("db",)))
        assert core.of(ContainersStarted) == [ContainersStarted(1)]
        assert core.detail("db") == "running"


@containers(Spec("web", restart="always"))
async def test_a_container_between_two_crashes_is_started_by_us(node: Node) -> None:
    service = run(node, "web")
    async with adapter(node) as (engine, core):
        service.break_process()
        service.exit(1)
        await core.hears_of("web", "restarting (1)")
        service.mend_process()
        await engine.perform(StartContainers(term=1, names=("web",)))
        assert core.of(ContainersStarted) == [ContainersStarted(1)]
        assert core.detail("web") == "running"


async def test_a_start_that_the_engine_refuses_is_told_in_its_words(node: Node) -> None:
    node.services["db"].break_start()
    async with adapter(node) as (engine, core):
        await engine.perform(StartContainers(term=3, names=("db", "web")))
        [failed] = core.of(StartFailed)

    assert (failed.term, failed.name) == (3, "db")
    assert "bind source path does not exist" in failed.error
    assert node.services["web"].state == "created", "the order is kept"


async def test_a_process_that_ends_at_once_did_not_start(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "SETTLED_S", 5.0)
    node.services["web"].break_process()
    async with adapter(node) as (engine, core):
        await engine.perform(StartContainers(term=1, names=("db", "web")))
        assert core.of(StartFailed) == [StartFailed(1, "web", "exited (1)")]
        assert core.of(ContainersStarted) == []


@containers(Spec("web", health=True))
async def test_a_container_that_does_not_become_healthy_did_not_start(node: Node) -> None:
    node.services["web"].make_sick()
    async with adapter(node, start_timeout_s=6.0) as (engine, core):
        await engine.perform(StartContainers(term=1, names=("web",)))
        assert core.of(StartFailed) == [
            StartFailed(1, "web", "not healthy within 6 s: running (unhealthy)")
        ]


@containers(Spec("web", health=True))
async def test_a_container_that_dies_before_it_is_healthy_did_not_start(node: Node) -> None:
    service = node.services["web"]
    service.make_sick()
    async with adapter(node, timing=SLOW) as (engine, core), asyncio.TaskGroup() as group:
        group.create_task(engine.perform(StartContainers(term=1, names=("web",))))
        await core.hears_of("web", "running (unhealthy)")
        service.exit(5)
        await core.hears(lambda: core.of(StartFailed), 5)
        assert core.of(StartFailed) == [StartFailed(1, "web", "exited (5)")]


async def test_nothing_is_started_without_leave(node: Node) -> None:
    async with adapter(node) as (engine, core):
        core.may_act = lambda term: term != 4
        await engine.perform(StartContainers(term=4, names=("db",)))
        await engine.perform(RepairContainer(term=4, name="db"))

        refusal = "no longer allowed to act in term 4"
        assert core.of(StartFailed) == [StartFailed(4, "db", refusal)]
        assert core.of(RepairFinished) == [RepairFinished(4, "db", refusal)]
    assert node.services["db"].state == "created"


async def test_leave_is_asked_for_when_the_request_is_written(node: Node) -> None:
    """However often it was given before: only the last answer counts, and there no byte is sent."""
    answers: list[bool] = []

    def given(times: int) -> Callable[[int], bool]:
        def may_act(_: int) -> bool:
            answers.append(len(answers) < times)
            return answers[-1]

        return may_act

    async with adapter(node) as (engine, core):
        core.may_act = given(1_000_000)
        await engine.perform(RepairContainer(term=1, name="db"))
        asked = len(answers)
        await aside(node.services["db"].kill)
        for times in range(asked):
            answers.clear()
            core.may_act = given(times)
            await engine.perform(RepairContainer(term=1, name="db"))
            assert node.services["db"].state == "exited"
        assert asked >= 3
        assert [finished.error != "" for finished in core.of(RepairFinished)] == [False] + [
            True
        ] * asked


async def test_a_start_that_is_out_is_answered_only_when_it_has_ended(
    node: Node, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        between, host = await stack.enter_async_context(relay(node, tmp_path))
        engine, core = await stack.enter_async_context(adapter(node, host=host))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        between.hold = b"/start HTTP"
        start = StartContainers(term=1, names=("db", "web"))
        group.create_task(engine.perform(start))
        await between.holds.wait()

        stop = StopContainers(term=1, names=("web", "db"), grace_s=0.5)
        await engine.perform(stop)
        [failed] = core.of(StopFailed)
        assert failed.names == ("db",)
        assert failed.error == "db: a start of it has not ended yet"
        assert core.of(StartFailed) == []

        between.release()
        await core.hears(lambda: core.of(StartFailed))
        assert core.of(StartFailed) == [StartFailed(1, "db", "overtaken by an order to stop")]
        assert node.services["db"].state == "running", "the engine has done it"
        await engine.perform(stop)
        assert core.of(ContainersStopped) == [ContainersStopped(1)]
        assert node.services["db"].state == "exited"


async def test_a_start_whose_answer_is_lost_is_looked_at(node: Node, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        between, host = await stack.enter_async_context(relay(node, tmp_path))
        engine, core = await stack.enter_async_context(adapter(node, host=host))
        between.swallow = b"204 No Content"
        await engine.perform(StartContainers(term=1, names=("db",)))
        assert core.of(ContainersStarted) == [ContainersStarted(1)]


async def test_a_start_that_is_cut_off_before_the_engine_heard_it_has_failed(
    node: Node, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        between, host = await stack.enter_async_context(relay(node, tmp_path))
        engine, core = await stack.enter_async_context(adapter(node, host=host))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        between.hold = b"/start HTTP"
        group.create_task(engine.perform(StartContainers(term=1, names=("db",))))
        await between.holds.wait()
        between.cut()
        await core.hears(lambda: core.of(StartFailed))
        assert "broke off" in core.of(StartFailed)[0].error
    assert node.services["db"].state == "created"


async def test_a_dead_container_is_started_again(node: Node) -> None:
    service = run(node, "db")
    async with adapter(node) as (engine, core):
        await aside(service.kill)
        await core.hears(lambda: core.deaths)
        await engine.perform(RepairContainer(term=2, name="db"))
        assert core.of(RepairFinished) == [RepairFinished(2, "db", "")]
        assert core.detail("db") == "running"


async def test_a_repair_tells_why_it_failed(node: Node) -> None:
    node.services["db"].break_start()
    async with adapter(node) as (engine, core):
        await engine.perform(RepairContainer(term=2, name="db"))
        [finished] = core.of(RepairFinished)
        assert "bind source path does not exist" in finished.error


# -- stopping -----------------------------------------------------------------------------------


async def test_containers_stop_in_the_order_given(lab: Lab, node: Node) -> None:
    run(node, "db")
    run(node, "web")
    async with adapter(node) as (engine, core):
        await engine.perform(StopContainers(term=5, names=("web", "db"), grace_s=None))

        assert core.of(ContainersStopped) == [ContainersStopped(5)]
        assert [died.name for died in core.deaths] == ["web", "db"]
        assert {view.alive for view in core.views.values()} == {False}
    assert [node.services[name].state for name in ("db", "web")] == ["exited", "exited"]
    ends = {run.name: run.last_s for run in lab.truth.runs()}
    assert ends["web"] < ends["db"]


@containers(Spec("db", ignores_term=True, stop_timeout_s=8), "web")
@pytest.mark.parametrize(
    ("grace_s", "stop_timeout_s", "least_s", "most_s"),
    [
        (None, None, 8.0, 8.9),  # the container's own
        (None, 1, 1.0, 1.9),  # the operator's
        (0.5, 30, 0.5, 0.9),  # the order's, and not in whole seconds
        (0, None, 0.0, 0.9),
    ],
)
async def test_a_container_that_ignores_term_is_killed_after_its_grace(
    node: Node, grace_s: float | None, stop_timeout_s: float | None, least_s: float, most_s: float
) -> None:
    run(node, "db")
    run(node, "web")
    async with adapter(node, stop_timeout_s=stop_timeout_s) as (engine, core):
        began_s = time.monotonic()
        await engine.perform(StopContainers(term=1, names=("db", "web"), grace_s=grace_s))
        took_s = time.monotonic() - began_s

        assert core.of(ContainersStopped) == [ContainersStopped(1)]
        await core.hears_of("db", "exited (137)")
    assert least_s <= took_s < most_s + 5, "and no more than a loaded machine adds"


@containers(Spec("db", ignores_term=True), Spec("web", ignores_term=True), "job")
async def test_with_a_grace_of_its_own_all_are_stopped_side_by_side(node: Node) -> None:
    for name in node.services:
        run(node, name)
    async with adapter(node, stop_timeout_s=30) as (engine, core):
        began_s = time.monotonic()
        await engine.perform(StopContainers(term=1, names=("db", "web", "job"), grace_s=1.5))
        took_s = time.monotonic() - began_s

        assert core.of(ContainersStopped) == [ContainersStopped(1)]
        await core.hears_of("db", "exited (137)")
        await core.hears_of("web", "exited (137)")
        await core.hears_of("job", "exited (0)")
    assert 1.5 <= took_s < 2 * 1.5 + 1.5, "one grace for all, and what a loaded machine adds"


@containers(Spec("db", ignores_term=True, stop_timeout_s=60), Spec("web", ignores_term=True))
@pytest.mark.parametrize("grace_s", [None, 50.0], ids=["polite", "hurried"])
async def test_a_kill_overtakes_a_stop_that_waits(node: Node, grace_s: float | None) -> None:
    for name in node.services:
        run(node, name)
    async with adapter(node) as (engine, core), asyncio.TaskGroup() as group:
        began_s = time.monotonic()
        names = ("db", "web")
        polite = group.create_task(engine.perform(StopContainers(1, names, grace_s)))
        await core.hears(lambda: engine._lane._stopper._graces["db"])
        await engine.perform(StopContainers(1, names, 0))
        await polite

        assert core.of(ContainersStopped) == [ContainersStopped(1)] * 2
    assert time.monotonic() - began_s < 30, "and not the minute that it was given"


async def test_a_kill_ends_the_processes_of_an_engine_that_hangs(node: Node) -> None:
    for name in node.services:
        run(node, name)
    ids = {name: service.inspect()["Id"] for name, service in node.services.items()}
    async with adapter(node, proc=PROC) as (engine, core), asyncio.TaskGroup() as group:
        for name in ids:
            await core.hears_of(name, "running")
        with frozen(node):
            # By pid this machine's /proc shows another process than the engine means: it cannot
            # tell what has become of them, and what it is asked is only to kill.
            group.create_task(engine.perform(StopContainers(1, ("db", "web"), 0)))
            await core.hears(lambda: not any(map(processes.of_container, ids.values())))
        await core.hears(lambda: bool(core.of(ContainersStopped) or core.of(StopFailed)))
    assert {service.state for service in node.services.values()} == {"exited"}


async def test_each_container_that_is_seen_is_told_with_its_process(node: Node) -> None:
    told: list[tuple[str, str, processes.Process | None]] = []
    ids = {name: service.inspect()["Id"] for name, service in node.services.items()}
    async with adapter(node, on_process=lambda *seen: told.append(seen)) as (engine, _):
        assert {(name, container_id) for name, container_id, _ in told} == set(ids.items())
        assert {process for _, _, process in told} == {None}
        await engine.perform(StartContainers(term=1, names=("db", "web")))

        last = {name: process for name, _, process in told}
        assert all(process and processes.is_alive(process) for process in last.values())
        started = [process.started for process in last.values() if process]
        assert started == [kill.start_time(pid_of(node, name)) for name in last]


async def test_a_paused_container_is_stopped_without_waiting(node: Node) -> None:
    run(node, "db").pause()
    async with adapter(node) as (engine, core):
        began_s = time.monotonic()
        await engine.perform(StopContainers(term=1, names=("db",), grace_s=20))
        assert core.of(ContainersStopped) == [ContainersStopped(1)]
        assert time.monotonic() - began_s < 10


@containers(Spec("db", restart="always"), Spec("web", restart="always"))
async def test_a_policy_is_dropped_before_a_stop_and_a_crash_loop_is_ended(node: Node) -> None:
    run(node, "db")
    run(node, "web").break_process()
    node.services["web"].exit(1)
    async with adapter(node) as (engine, core):
        await core.hears_of("web", "restarting (1)")
        await engine.perform(StopContainers(term=1, names=("web", "db"), grace_s=None))
        assert core.of(ContainersStopped) == [ContainersStopped(1)]

        await aside(node.engine.restart)  # which would bring back what has a policy
        await core.hears(lambda: len(core.of(ContainersObserved)) >= 2)
        assert {view.alive for view in core.views.values()} == {False}
        assert {view.restart_policy for view in core.views.values()} == {"no"}


async def test_what_does_not_run_or_is_not_there_is_stopped(node: Node) -> None:
    async with adapter(node, names=("db", "none")) as (engine, core):
        await engine.perform(StopContainers(term=1, names=("none", "db"), grace_s=None))
        assert core.of(ContainersStopped) == [ContainersStopped(1)]


@containers("db", Spec("web", health=True))
async def test_a_stop_overtakes_a_start_that_waits(node: Node) -> None:
    node.services["web"].make_sick()
    async with adapter(node) as (engine, core), asyncio.TaskGroup() as group:
        group.create_task(engine.perform(StartContainers(term=1, names=("db", "web"))))
        await core.hears_of("web", "running (unhealthy)")
        await engine.perform(StopContainers(term=1, names=("web", "db"), grace_s=None))

        overtaken = StartFailed(1, "web", "overtaken by an order to stop")
        answers = [it for it in core.events if isinstance(it, StartFailed | ContainersStopped)]
        assert answers == [overtaken, ContainersStopped(1)]
    assert [node.services[name].state for name in ("db", "web")] == ["exited", "exited"]


@containers("db", Spec("web", ignores_term=True))
async def test_a_start_waits_for_the_end_of_a_stop_before_it(node: Node) -> None:
    run(node, "db")
    run(node, "web")
    async with adapter(node) as (engine, core):
        async with asyncio.TaskGroup() as group:
            group.create_task(engine.perform(StopContainers(1, ("web", "db"), None)))
            group.create_task(engine.perform(StartContainers(2, ("db", "web"))))
        answers = [
            it for it in core.events if isinstance(it, ContainersStarted | ContainersStopped)
        ]
        assert answers == [ContainersStopped(1), ContainersStarted(2)]


async def test_a_stop_on_a_dead_engine_is_confirmed_by_the_processes(node: Node) -> None:
    run(node, "db")
    async with adapter(node) as (engine, core):
        db = pid_of(node, "db")
        await aside(node.engine.kill)
        stop = StopContainers(term=1, names=("web", "db"), grace_s=1)
        await engine.perform(stop)
        [failed] = core.of(StopFailed)
        assert failed.names == ("db",)
        assert "no such socket" in failed.error or "nobody listens" in failed.error
        os.kill(db, signal.SIGKILL)
        await engine.perform(stop)
        assert core.of(ContainersStopped) == [ContainersStopped(1)]


@contextmanager
def stray(node: Node, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the container's control group, as a dockerd leaves it that is killed in the
    middle of a start: the next one calls the container created, and neither stops nor kills it.
    """
    hierarchy = cgroups.ROOT / "pids"  # cgroup v1
    hierarchy = hierarchy if hierarchy.is_dir() else cgroups.ROOT
    folder = hierarchy / node.host.cgroup / node.services[name].inspect()["Id"]
    folder.mkdir(parents=True)
    with subprocess.Popen(["sleep", "100"]) as process:
        try:
            (folder / "cgroup.procs").write_text(str(process.pid))
            yield process
        finally:
            process.kill()
            process.wait()
            folder.rmdir()


async def test_what_the_engine_denies_is_ended_all_the_same(node: Node) -> None:
    with stray(node, "db") as process:
        async with adapter(node, proc=PROC) as (engine, core):
            denied = "created, but a process of it runs that the engine denies"
            assert (core.detail("db"), core.views["db"].alive) == (denied, True)
            ending = engine.perform(StopContainers(term=1, names=("db",), grace_s=1))
            async with asyncio.TaskGroup() as group:
                group.create_task(ending)
                assert await aside(lambda: process.wait(LIMIT_S)) == -signal.SIGKILL
            assert core.of(ContainersStopped) == [ContainersStopped(1)]
            assert core.detail("db") == "created"


async def test_what_the_engine_denies_and_cannot_be_ended_is_not_stopped(node: Node) -> None:
    with stray(node, "db"):
        elsewhere = Path("/proc/self", "root", "proc")  # the same, but for all we know another's
        async with adapter(node, proc=elsewhere) as (engine, core):
            await engine.perform(StopContainers(term=1, names=("db",), grace_s=1))
            assert core.of(StopFailed) == [
                StopFailed(1, ("db",), "db: the engine denies a process of it")
            ]


async def test_a_stop_that_an_engine_does_not_answer_is_not_confirmed(node: Node) -> None:
    run(node, "db")
    async with adapter(node) as (engine, core):
        with frozen(node):
            await engine.perform(StopContainers(term=1, names=("db",), grace_s=0))
        [failed] = core.of(StopFailed)
        assert (failed.names, "no answer" in failed.error) == (("db",), True)


# -- restart policies ---------------------------------------------------------------------------


@containers(Spec("db", restart="unless-stopped"), "web")
async def test_a_restart_policy_is_dropped(node: Node) -> None:
    async with adapter(node) as (engine, core):
        assert core.views["db"].restart_policy == "unless-stopped"
        await engine.perform(ManageRestartPolicy(name="db", was="unless-stopped"))
        await engine.perform(ManageRestartPolicy(name="web", was="no"))

        assert core.of(RestartPolicySet) == [
            RestartPolicySet("db", "unless-stopped", ""),
            RestartPolicySet("web", "no", ""),
        ]
        assert core.views["db"].restart_policy == "no"


async def test_a_policy_that_cannot_be_dropped_is_told(node: Node) -> None:
    node.services["db"].remove()
    node.engine.docker("create", "--rm", "--name", "db", "--network", "host", "lab:1")
    async with adapter(node, names=("db", "none")) as (engine, core):
        await engine.perform(ManageRestartPolicy(name="none", was="always"))
        await aside(node.engine.kill)
        await engine.perform(ManageRestartPolicy(name="db", was="always"))

        missing, silent = core.of(RestartPolicySet)
        assert missing.error == "no such container"
        assert silent.error != ""


# -- check --------------------------------------------------------------------------------------


async def test_a_probe_tells_all_that_check_wants(node: Node) -> None:
    run(node, "web")
    async with adapter(node, names=("db", "web", "none"), watching=False) as (engine, core):
        report = await engine.probe()

    assert report.version.startswith("20.10.")
    assert report.api_version == "1.41"
    assert not report.live_restore
    assert [(it.name, it.detail) for it in report.containers] == [
        ("db", "created"),
        ("web", "running"),
        ("none", "no such container"),
    ]
    assert core.events == []


async def test_the_errors_of_a_probe_say_what_is_wrong(node: Node, tmp_path: Path) -> None:
    async def problem(host: str) -> str:
        async with adapter(node, host=host, watching=False) as (engine, _):
            with pytest.raises(EngineError) as raised:
                await engine.probe()
            return str(raised.value)

    nowhere = tmp_path / "docker.sock"
    told = await problem(f"unix://{nowhere}")
    assert told.startswith(f"Docker Engine at unix://{nowhere}: there is no such socket")
    nowhere.touch()
    assert "nobody listens there" in await problem(f"unix://{nowhere}")
    assert "nobody listens there" in await problem("tcp://127.0.0.1:1")
    with pytest.raises(EngineError, match="neither unix:///PATH, tcp://HOST:PORT"):
        await problem("localhost:2375")


async def test_a_socket_that_is_not_for_us_is_told(node: Node) -> None:
    socket = node.engine.socket
    reached = node.host.path("/run/reached.sock")
    reached.hardlink_to(socket)
    reached.chmod(0o600)
    os.chown(reached, 0, 0)
    os.seteuid(65534)
    try:
        async with adapter(node, host=f"unix://{reached}", watching=False) as (engine, _):
            with pytest.raises(EngineError, match="no permission to use it"):
                await engine.probe()
    finally:
        os.seteuid(0)
