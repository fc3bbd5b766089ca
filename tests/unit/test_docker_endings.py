"""A process's end is seen without the engine: what is made of that, and where it does not count.

The process is a real one; its container's id is whatever its control group is called.
"""

import asyncio
import json
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from failover_agent.adapters.clock import Clock
from failover_agent.adapters.docker import processes, watched
from failover_agent.adapters.docker.client import EngineClient, EngineRefusedError
from failover_agent.adapters.docker.lane import Lane
from failover_agent.adapters.docker.parse import Listed
from failover_agent.adapters.docker.sights import WHOLE_EVERY, Sights
from failover_agent.core.effects import StartContainers, StopContainers
from failover_agent.core.events import (
    ContainerDied,
    ContainersStarted,
    ContainersStopped,
    Event,
    StartFailed,
)
from tests.lab.until import until, until_async

RECORDED = Path(__file__).parents[1] / "recorded" / "engine-20.10"
LIMIT_S = 10.0
GROUP = "unit-test-of-endings"


class FakeEngine:
    """One container, `web`; it goes on calling it running until it `notices`."""

    def __init__(self, container_id: str, pid: int) -> None:
        self.said: dict[str, Any] = json.loads((RECORDED / "inspect-running.json").read_text())
        self.said |= {"Id": container_id, "Name": "/web"}
        self.said["State"] |= {"Pid": pid}
        self.said["HostConfig"] |= {"RestartPolicy": {"Name": "no"}}
        self.asked: list[str] = []
        self.stop_returns = asyncio.Event()
        self.on_stop: Callable[[], None] = lambda: None
        self.start_refusals: list[EngineRefusedError] = []

    def notices(self) -> None:
        exited = json.loads((RECORDED / "inspect-exited-137.json").read_text())["State"]
        started_at = self.said["State"]["StartedAt"]
        self.said["State"] = {**exited, "StartedAt": started_at}

    async def ids(self, names: Iterable[str], limit_s: float) -> dict[str, str]:
        return {name: it.container_id for name, it in (await self.listed(names, limit_s)).items()}

    async def listed(self, _names: Iterable[str], _limit_s: float) -> dict[str, Listed]:
        self.asked.append("list")
        return {"web": Listed(self.said["Id"], self.said["State"]["Status"], "")}

    async def inspect(self, _container_id: str, _limit_s: float) -> Mapping[str, Any]:
        self.asked.append("inspect")
        return self.said

    async def stop(self, _container_id: str, _grace_s: int, _limit_s: float) -> None:
        self.asked.append("stop")
        self.on_stop()
        await self.stop_returns.wait()
        self.notices()

    async def start(self, container_id: str, may_start: Callable[[], bool]) -> None:
        assert may_start()
        self.asked.append(f"start {container_id}")
        if self.start_refusals:
            raise self.start_refusals.pop()
        self.said["State"] |= {"Status": "running", "Running": True, "StartedAt": "2099-01-01"}


class World:
    """A container whose process really runs, and what is told of it."""

    def __init__(self, process: "subprocess.Popen[bytes]", proc: Path) -> None:
        self.process = process
        self.told: list[Event] = []
        self.engine = FakeEngine(GROUP, process.pid)
        client = cast("EngineClient", self.engine)
        self.sights = Sights(client, ("web",), self.told.append, LIMIT_S, proc)
        self.lane = Lane(
            client,
            self.sights,
            self.told.append,
            lambda _: True,
            Clock(),
            stop_timeout_s=None,
            start_timeout_s=LIMIT_S,
        )

    def kill(self) -> None:
        self.process.kill()

    async def see_the_end(self) -> ContainerDied:
        await until_async(self._told, LIMIT_S, "the end of the process is told")
        [died] = [it for it in self.told if isinstance(it, ContainerDied)]
        return died

    async def _told(self) -> bool:
        return any(isinstance(it, ContainerDied) for it in self.told)

    def change(self, **changed: Any) -> None:
        self.engine.said["HostConfig"] |= changed


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "infinity"]) as running:
        yield running
        running.kill()


@pytest.fixture
async def world(process: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch) -> World:
    """After the first snapshot."""
    known = processes.find

    def find(pid: int, container_id: str, proc: Path) -> processes.Process | None:
        found = known(pid, "", proc)  # Its group has another name here.
        return found if pid == process.pid and container_id == GROUP else None

    monkeypatch.setattr(processes, "find", find)
    monkeypatch.setattr(watched, "LATELY_S", 60.0)
    made = World(process, processes.PROC)
    await made.sights.survey()
    made.told.clear()
    return made


# --- told ---------------------------------------------------------------------------------------


async def test_the_end_of_a_process_is_down_at_once_whatever_the_engine_says(world: World) -> None:
    world.kill()
    died = await world.see_the_end()

    assert (died.name, died.detail) == ("web", watched.ENDED)
    await world.sights.look("web", LIMIT_S)  # The engine has not noticed.
    last = world.sights.last("web")
    assert last is not None
    assert not last.observation.alive
    assert world.told == [died], "nor is it told to be up again"


async def test_what_the_engine_says_of_it_later_is_told(world: World) -> None:
    world.kill()
    await world.see_the_end()
    world.engine.notices()
    await world.sights.look("web", LIMIT_S)

    last = world.sights.last("web")
    assert last is not None
    assert last.observation.detail == "exited (137)"


async def test_the_next_incarnation_is_up_again(world: World) -> None:
    world.kill()
    await world.see_the_end()
    world.engine.said["State"] |= {"StartedAt": "2099-01-01T00:00:00Z", "Pid": 1}
    await world.sights.look("web", LIMIT_S)

    last = world.sights.last("web")
    assert last is not None
    assert last.observation.alive


async def test_between_the_rounds_of_a_crash_loop_it_is_as_the_engine_says(world: World) -> None:
    world.kill()
    await world.see_the_end()
    world.engine.said["State"] |= {"Status": "restarting", "Pid": 0}
    await world.sights.look("web", LIMIT_S)

    last = world.sights.last("web")
    assert last is not None
    assert last.status == "restarting"
    assert last.observation.alive, "the engine is about to start it"


async def test_while_the_engine_is_lost_nothing_is_down(world: World) -> None:
    """S4: what is seen of the processes is told with the loss."""
    world.sights.lose("gone")
    world.told.clear()
    world.kill()
    world.process.wait()

    async def is_gone() -> bool:
        return world.sights.alive("web") is False

    await until_async(is_gone, LIMIT_S, "gone")
    assert world.told == []


async def test_nothing_is_told_after_the_end(world: World) -> None:
    world.sights.close()
    world.kill()
    world.process.wait()
    until(lambda: world.sights.alive("web") is False, LIMIT_S)
    await world.sights.look("web", LIMIT_S)

    assert [it for it in world.told if isinstance(it, ContainerDied)] == []


async def test_where_the_kernel_does_not_tell_the_engine_has_to(
    process: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_pid: int) -> int:
        raise PermissionError

    monkeypatch.setattr("os.pidfd_open", refuse)
    told: list[str] = []
    found = processes.find(process.pid, "")
    assert found is not None
    endings = processes.Endings(told.append)
    endings.follow("web", found)
    process.kill()
    process.wait()

    assert processes.is_alive(found) is False
    assert told == []


async def test_a_process_of_another_namespace_is_not_followed(
    process: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    """There is a process of that number here, too."""
    endings = processes.Endings(lambda _: pytest.fail("told"))
    endings.follow("web", processes.Process(tmp_path / str(process.pid), "1"))
    endings.follow("db", processes.Process(processes.PROC / str(process.pid), "not its start time"))
    assert endings.followed == frozenset()


# --- enough to call it stopped --------------------------------------------------------------------


async def test_a_container_seen_to_end_is_stopped_without_a_question(world: World) -> None:
    world.kill()
    await world.see_the_end()
    world.engine.asked.clear()
    await world.lane.stop(StopContainers(term=3, names=("web",), grace_s=None))

    assert world.told[-1] == ContainersStopped(3)
    assert world.engine.asked == []


async def test_a_stop_is_answered_when_the_process_has_ended_and_before_the_engine_says_so(
    world: World,
) -> None:
    world.engine.on_stop = lambda: world.process.send_signal(signal.SIGKILL)
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(
            world.lane.stop(StopContainers(term=3, names=("web",), grace_s=None))
        )

        async def is_told() -> bool:
            return ContainersStopped(3) in world.told

        await until_async(is_told, LIMIT_S, "stopped")
        assert not stopping.done(), "the engine is at it still"
        starting = group.create_task(world.lane.start(StartContainers(term=5, names=("web",))))
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await asyncio.shield(starting)
        assert not any(it.startswith("start") for it in world.engine.asked), "that waits for it"
        world.engine.stop_returns.set()
        await starting

    assert world.told[-1] == ContainersStarted(5)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"RestartPolicy": {"Name": "always"}}, id="the engine would start it anew"),
        pytest.param({"PidMode": "host"}, id="its other processes may live on"),
        pytest.param({"Runtime": "kata"}, id="what ended may have spoken for a machine"),
    ],
)
async def test_the_engine_is_asked_where_the_first_process_is_not_the_whole(
    world: World, changed: dict[str, Any]
) -> None:
    world.change(**changed)
    await world.sights.look("web", LIMIT_S)
    world.kill()
    await world.see_the_end()

    assert not world.sights.has_just_ended("web")


async def test_what_may_have_been_started_since_has_not_ended(world: World) -> None:
    world.kill()
    await world.see_the_end()
    assert world.sights.has_just_ended("web")
    world.sights.doubt("web")

    assert not world.sights.has_just_ended("web")


async def test_a_start_that_the_stream_tells_of_ends_it_too(world: World) -> None:
    world.kill()
    await world.see_the_end()
    actor = {"ID": GROUP, "Attributes": {"name": "web"}}
    world.sights.hear({"Type": "container", "Action": "start", "Actor": actor, "timeNano": 1})

    assert not world.sights.has_just_ended("web")


async def test_that_it_ended_is_no_news_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.kill()
    await world.see_the_end()
    monkeypatch.setattr(watched, "LATELY_S", 0.0)

    assert not world.sights.has_just_ended("web")


# --- a start at once -----------------------------------------------------------------------------


async def test_what_only_has_to_be_started_is_not_looked_at_before(world: World) -> None:
    world.kill()
    world.engine.notices()
    await world.sights.look("web", LIMIT_S)
    world.engine.asked.clear()
    await world.lane.start(StartContainers(term=4, names=("web",)))

    assert world.engine.asked[0] == f"start {GROUP}"
    assert world.told[-1] == ContainersStarted(4)


async def test_what_the_engine_refuses_then_is_looked_at_and_tried_with_care(world: World) -> None:
    """It was removed and made anew, and the events were lost."""
    world.engine.notices()
    await world.sights.look("web", LIMIT_S)
    world.engine.said |= {"Id": "another"}
    world.engine.start_refusals = [EngineRefusedError(404, "No such container")]
    await world.lane.start(StartContainers(term=4, names=("web",)))

    starts = [it for it in world.engine.asked if it.startswith("start")]
    assert starts == [f"start {GROUP}", "start another"]
    assert world.told[-1] == ContainersStarted(4)


async def test_what_the_engine_refuses_twice_has_failed_in_its_words(world: World) -> None:
    world.engine.notices()
    await world.sights.look("web", LIMIT_S)
    world.engine.start_refusals = [EngineRefusedError(500, "no such volume") for _ in range(2)]
    await world.lane.start(StartContainers(term=4, names=("web",)))

    assert world.told[-1] == StartFailed(4, "web", "no such volume")


async def test_what_the_engine_may_start_anew_is_looked_at_first(world: World) -> None:
    """After `die` it may be between two rounds of a crash loop."""
    world.engine.notices()
    world.change(RestartPolicy={"Name": "always"})
    await world.sights.look("web", LIMIT_S)

    assert world.sights.startable("web") is None


async def test_what_is_not_known_well_is_looked_at_first(world: World) -> None:
    assert world.sights.startable("web") is None, "it runs"
    world.engine.notices()
    await world.sights.look("web", LIMIT_S)
    assert world.sights.startable("web") is not None
    world.sights.doubt("web")
    assert world.sights.startable("web") is None, "it may have been started"
    await world.sights.look("web", LIMIT_S)
    world.sights.lose("gone")
    assert world.sights.startable("web") is None, "the engine is away"


# --- the slow list --------------------------------------------------------------------------------


async def test_a_list_that_shows_nothing_new_is_enough(world: World) -> None:
    world.engine.asked.clear()
    for _ in range(WHOLE_EVERY - 2):
        await world.sights.survey()
    assert set(world.engine.asked) == {"list"}

    await world.sights.survey()
    assert world.engine.asked[-1] == "inspect", "now and then all is looked at"


async def test_a_list_that_shows_another_state_leads_to_a_look(world: World) -> None:
    world.engine.notices()
    world.engine.asked.clear()
    await world.sights.survey()

    assert world.engine.asked == ["list", "inspect"]


async def test_a_process_that_has_gone_leads_to_a_look(world: World) -> None:
    world.sights.close()  # Nobody tells of its end.
    world.kill()
    world.process.wait()
    world.engine.asked.clear()
    await world.sights.survey()

    assert world.engine.asked == ["list", "inspect"]
