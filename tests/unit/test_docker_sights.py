"""adapters/docker/sights.py: in what order things can come, and what is kept of them."""

import asyncio
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from failover_agent.adapters.docker import processes
from failover_agent.adapters.docker.client import (
    EngineClient,
    EngineRefusedError,
    EngineUnreachableError,
)
from failover_agent.adapters.docker.parse import Listed
from failover_agent.adapters.docker.sights import FAILED_LOOKS, Sights
from failover_agent.core.events import (
    ContainerChanged,
    ContainerDied,
    ContainersObserved,
    EngineLost,
    Event,
)
from failover_agent.core.state import ContainerState

RECORDED = Path(__file__).parents[1] / "recorded" / "engine-20.10"
ID = "ab" * 32
PID = 4711
LIMIT_S = 5.0

Container = dict[str, Any]


def container(state: str = "running", **changed: Any) -> Container:
    said: Container = json.loads((RECORDED / f"inspect-{state}.json").read_text())
    said |= {"Id": ID, "Name": "/web"}
    said["State"] |= {"Pid": PID if said["State"]["Running"] else 0}
    said["State"] |= changed
    return said


def died(at_s: float = 4e9, container_id: str = ID, name: str = "web") -> dict[str, Any]:
    """The engine's word of a death; at a moment of its wall clock, by default far in the future."""
    attributes = {"name": name, "exitCode": "137"}
    actor = {"ID": container_id, "Attributes": attributes}
    return {"Type": "container", "Action": "die", "Actor": actor, "timeNano": int(at_s * 1e9)}


class FakeEngine:
    """Answers from `containers`; `before_inspect` is called between list and inspect."""

    def __init__(self) -> None:
        self.containers: dict[str, Container] = {"web": container()}
        self.list_error: Exception | None = None
        self.inspect_error: Exception | None = None
        self.before_inspect: list[Callable[[], None]] = []
        self.gates: list[asyncio.Event] = []
        self.inspected = 0

    async def ids(self, names: Iterable[str], limit_s: float) -> dict[str, str]:
        return {name: it.container_id for name, it in (await self.listed(names, limit_s)).items()}

    async def listed(self, names: Iterable[str], _limit_s: float) -> dict[str, Listed]:
        if self.list_error is not None:
            raise self.list_error
        known = {name: self.containers[name] for name in names if name in self.containers}
        return {
            name: Listed(said["Id"], said["State"]["Status"], said["State"].get("health", ""))
            for name, said in known.items()
        }

    async def inspect(self, container_id: str, _limit_s: float) -> Mapping[str, Any]:
        self.inspected += 1
        [said] = [it for it in self.containers.values() if it["Id"] == container_id]
        if self.before_inspect:
            self.before_inspect.pop(0)()
        if self.gates:
            await self.gates.pop(0).wait()
        if self.inspect_error is not None:
            raise self.inspect_error
        return said


class World:
    """Sights of one container, `web`, and what they tell."""

    def __init__(self, proc: Path) -> None:
        self.engine = FakeEngine()
        self.told: list[Event] = []
        client = cast("EngineClient", self.engine)
        self.sights = Sights(client, ("web",), self.told.append, LIMIT_S, proc)

    async def look(self) -> None:
        await self.sights.look("web", LIMIT_S)

    @property
    def details(self) -> list[str]:
        return [it.container.detail for it in self.told if isinstance(it, ContainerChanged)]


@pytest.fixture
async def world(tmp_path: Path) -> World:
    """After the first snapshot, which showed a running container."""
    made = World(tmp_path)
    await made.sights.survey()
    assert [type(event) for event in made.told] == [ContainersObserved]
    made.told.clear()
    return made


async def test_what_has_not_changed_is_not_told(world: World) -> None:
    await world.look()
    await world.sights.survey()
    assert world.told == []


async def test_nothing_is_told_before_the_first_snapshot(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.look()
    world.sights.hear(died())
    assert world.told == []


async def test_a_look_that_was_overtaken_by_a_death_begins_again(world: World) -> None:
    """The engine answered while it still ran, and the event was quicker than the answer."""

    def die() -> None:
        world.engine.containers["web"] = container(Status="exited", ExitCode=137, Pid=0)
        world.sights.hear(died())

    world.engine.before_inspect.append(die)
    await world.look()

    [death] = world.told
    assert isinstance(death, ContainerDied)
    assert death.detail == "exited (137)"


async def test_a_look_that_ends_after_a_newer_one_is_dropped(world: World) -> None:
    slow = asyncio.Event()
    world.engine.gates.append(slow)
    async with asyncio.TaskGroup() as group:
        begun = asyncio.Event()
        world.engine.before_inspect.append(begun.set)
        late = group.create_task(world.look())
        await begun.wait()
        world.engine.containers["web"] = container("paused")
        await world.look()
        assert world.details == ["paused"]
        slow.set()
        await late
    assert world.details == ["paused"]


@pytest.mark.parametrize(
    "event",
    [died(at_s=1), died(container_id="cd" * 32), died(container_id="cd" * 32, name="other")],
    ids=["before it started", "of its namesake", "of another"],
)
async def test_the_death_of_something_else_is_not_its_death(
    world: World, event: dict[str, Any]
) -> None:
    world.sights.hear(event)
    assert world.told == []
    await world.look()
    assert world.told == []


async def test_a_hint_is_given_for_what_may_concern_it(world: World) -> None:
    world.sights.hear(died(container_id="cd" * 32, name="other"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(world.sights.hint("web"), 0.01)
    for event in (died(at_s=1), died(at_s=2, container_id="cd" * 32), died(at_s=3, name="old")):
        world.sights.hear(event)
        await asyncio.wait_for(world.sights.hint("web"), LIMIT_S)


async def test_an_event_told_twice_counts_once(world: World) -> None:
    for _ in range(2):
        world.sights.hear(died(at_s=1))
        with suppress(TimeoutError):
            await asyncio.wait_for(world.sights.hint("web"), 0.01)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(world.sights.hint("web"), 0.01)


async def test_what_is_gone_between_list_and_inspection_is_listed_again(world: World) -> None:
    def vanish() -> None:
        world.engine.containers.clear()
        world.engine.inspect_error = EngineRefusedError(404, f"No such container: {ID}")

    world.engine.before_inspect.append(vanish)
    await world.look()
    assert world.details == ["removed"]


async def test_what_lost_its_name_between_list_and_inspection_is_listed_again(
    world: World,
) -> None:
    renamed = container() | {"Name": "/old"}
    world.engine.before_inspect.append(world.engine.containers.clear)
    world.engine.containers["web"] = renamed
    await world.look()
    assert world.details == ["removed"]


async def test_another_404_is_no_removal(world: World) -> None:
    world.engine.inspect_error = EngineRefusedError(404, "page not found")
    with pytest.raises(EngineRefusedError):
        await world.look()
    assert world.told == []


async def test_a_container_that_nothing_is_said_of_becomes_unknown_and_comes_back(
    world: World,
) -> None:
    world.engine.inspect_error = EngineUnreachableError("no answer within 3 s")
    for _ in range(FAILED_LOOKS - 1):
        assert not await world.sights.attend("web")
        assert world.told == []
    assert not await world.sights.attend("web")
    [changed] = world.told
    assert isinstance(changed, ContainerChanged)
    assert (changed.container.state, changed.container.alive) == (ContainerState.UNKNOWN, True)

    world.engine.inspect_error = None
    assert await world.sights.attend("web")
    assert world.details[-1] == "running"


async def test_a_lost_engine_is_told_once_and_at_its_return_everything(world: World) -> None:
    world.engine.list_error = EngineUnreachableError("no answer within 3 s")
    for _ in range(2):
        with pytest.raises(EngineUnreachableError):
            await world.sights.survey()
        world.sights.lose("no answer within 3 s")
    assert world.told == [EngineLost("no answer within 3 s", (("web", None),))]
    world.sights.remind()
    assert len(world.told) == 2

    world.engine.list_error = None
    world.engine.containers["web"] = container("exited-3")
    await world.sights.survey()
    [*_, snapshot] = world.told
    assert len(world.told) == 3
    assert isinstance(snapshot, ContainersObserved)
    assert snapshot.containers[0].detail == "exited (3)"


async def test_a_death_is_told_while_the_engine_is_lost(world: World) -> None:
    world.sights.lose("nobody listens there")
    world.sights.hear(died())
    assert [type(event) for event in world.told] == [EngineLost, ContainerDied]
    assert world.sights.alive("web") is False


async def test_after_a_return_what_is_not_yet_seen_is_unknown(world: World) -> None:
    world.sights.lose("nobody listens there")
    world.engine.inspect_error = EngineUnreachableError("no answer within 3 s")
    await world.sights.survey()
    [*_, snapshot] = world.told
    assert isinstance(snapshot, ContainersObserved)
    assert snapshot.containers[0].state is ContainerState.UNKNOWN


async def test_what_may_have_been_started_is_not_known_to_be_dead(world: World) -> None:
    world.engine.containers["web"] = container("exited-3")
    await world.look()
    assert world.sights.alive("web") is False
    world.sights.doubt("web")
    assert world.sights.alive("web") is None
    await world.look()
    assert world.sights.alive("web") is False


# -- processes ----------------------------------------------------------------------------------


def show(
    proc: Path, *, pid: int = PID, started: int = 99, state: str = "S", group: str = ID
) -> None:
    """As proc(5) shows it, with a name that is hard to read."""
    folder = proc / str(pid)
    folder.mkdir(exist_ok=True)
    fields = [state, *["0"] * 18, str(started)]
    (folder / "stat").write_text(f"{pid} (a) b (c) {' '.join(fields)}\n")
    (folder / "cgroup").write_text(f"4:memory:/docker/{group}\n0::/\n")


def found(proc: Path) -> processes.Process:
    process = processes.find(PID, ID, proc)
    assert process is not None
    return process


def test_a_process_lives_until_its_start_time_is_another_ones(tmp_path: Path) -> None:
    show(tmp_path)
    process = found(tmp_path)
    assert processes.is_alive(process) is True
    show(tmp_path, started=100)
    assert processes.is_alive(process) is False


def test_a_process_that_is_gone_or_a_zombie_does_not_live(tmp_path: Path) -> None:
    show(tmp_path)
    process = found(tmp_path)
    show(tmp_path, state="Z")
    assert processes.is_alive(process) is False
    shutil.rmtree(tmp_path / str(PID))
    assert processes.is_alive(process) is False


def test_a_process_of_somebody_else_is_not_taken_for_it(tmp_path: Path) -> None:
    assert processes.find(PID, ID, tmp_path) is None
    show(tmp_path, group="cd" * 32)
    assert processes.find(PID, ID, tmp_path) is None


def test_what_cannot_be_read_is_not_dead(tmp_path: Path) -> None:
    show(tmp_path)
    process = found(tmp_path)
    (tmp_path / str(PID) / "stat").unlink()
    (tmp_path / str(PID) / "stat").mkdir()  # reading it is an error of another kind
    assert processes.is_alive(process) is None


async def test_a_process_that_the_host_shows_is_followed(tmp_path: Path) -> None:
    show(tmp_path)
    world = World(tmp_path)
    await world.look()
    assert world.sights.alive("web") is True
    show(tmp_path, started=100)
    assert world.sights.alive("web") is False


async def test_a_process_that_the_engine_denies_is_alive_until_it_is_gone(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.engine.containers["web"] = container("created")
    show(tmp_path)
    await world.sights.survey()  # the first one is a close look
    [snapshot] = world.told
    assert isinstance(snapshot, ContainersObserved)
    [seen] = snapshot.containers
    assert (seen.state, seen.alive) == (ContainerState.DOWN, True)
    assert seen.detail == "created, but a process of it runs that the engine denies"
    world.engine.containers.clear()
    await world.look()
    assert world.sights.alive("web") is True, "nor does it end with its container"

    shutil.rmtree(tmp_path / str(PID))
    await world.look()
    assert world.sights.alive("web") is False
    assert world.details[-1] == "removed"


def test_a_process_is_killed_only_where_its_number_is_ours(tmp_path: Path) -> None:
    """The pid of another namespace is some innocent here: this test."""
    show(tmp_path, pid=os.getpid())
    process = processes.find(os.getpid(), ID, tmp_path)
    assert process is not None
    assert processes.is_alive(process)
    processes.kill(process)
