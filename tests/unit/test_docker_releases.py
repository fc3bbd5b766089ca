"""adapters/docker on what engines of each release say: recorded, and for Engine 29 documented."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from failover_agent.adapters.clock import Clock
from failover_agent.adapters.docker import DockerEngine
from failover_agent.adapters.docker.parse import ACTIONS, ContainerEvent, parse_event, parse_inspect
from failover_agent.core.events import ContainerDied, ContainersObserved, EngineLost, Event
from failover_agent.core.state import ContainerState
from tests.lab.until import until_async

RECORDED = Path(__file__).parents[1] / "recorded"
RELEASES = ["20.10", "26.1", "28.5", "29-documented"]
APIS = {"20.10": "1.41", "26.1": "1.45", "28.5": "1.51", "29-documented": "1.52"}
UP, DOWN = ContainerState.UP, ContainerState.DOWN
LIMIT_S = 20.0

pytestmark = pytest.mark.parametrize("release", RELEASES)


def said(release: str, name: str) -> Any:
    return json.loads((RECORDED / f"engine-{release}" / f"{name}.json").read_text())


def lines(release: str, happening: str) -> list[str]:
    return (RECORDED / f"engine-{release}" / f"events-{happening}.jsonl").read_text().splitlines()


def events(release: str, happening: str) -> list[ContainerEvent]:
    parsed = [parse_event(json.loads(line)) for line in lines(release, happening)]
    return [event for event in parsed if event is not None and event.action in ACTIONS]


def test_the_recording_is_of_that_release(release: str) -> None:
    version = said(release, "version")

    assert version["ApiVersion"] == APIS[release]
    assert version["Version"].startswith(release.partition("-")[0])


@pytest.mark.parametrize(
    ("state", "detail"),
    [
        ("running", "running"),
        ("health-healthy", "running (healthy)"),
        ("health-unhealthy", "running (unhealthy)"),
        ("paused", "paused"),
        ("restarting", "restarting (3)"),
        ("created", "created"),
        ("exited-3", "exited (3)"),
        ("exited-137", "exited (137)"),
    ],
)
def test_each_state_is_told_alike(release: str, state: str, detail: str) -> None:
    seen = parse_inspect("web", said(release, f"inspect-{state}"))

    assert seen.observation.detail == detail
    assert seen.observation.state is (UP if state in ("running", "health-healthy") else DOWN)
    assert seen.observation.settings == (
        parse_inspect("web", said("20.10", f"inspect-{state}")).observation.settings
    ), "the same line makes the same container on every engine"


@pytest.mark.parametrize(
    ("happening", "actions"),
    [
        ("run", "create start"),
        ("kill", "die"),
        ("kill-hup", ""),
        ("restart", "die stop start"),
        ("start-failed", "create destroy"),
        ("recreate", "create die stop destroy rename start"),
        ("pause", "pause"),
        ("crash-loop", "create " + "start die " * 4),
    ],
)
def test_each_happening_lets_hear_the_same(release: str, happening: str, actions: str) -> None:
    """In whatever order: `stop` may come before `die`."""
    heard = Counter(event.action for event in events(release, happening))

    assert heard >= Counter(actions.split())
    assert not heard - Counter(actions.split() * 2)
    assert all(
        len(event.container_id) == 64 and event.at_us for event in events(release, happening)
    )


def test_a_death_tells_its_exit_code(release: str) -> None:
    [died] = [event for event in events(release, "exit-3") if event.action == "die"]

    assert (died.exit_code, died.name) == (3, "web")


@asynccontextmanager
async def speaking(folder: Path, release: str) -> AsyncIterator[asyncio.Event]:
    """An engine that says what was recorded; set what it gives, and the kill comes."""
    dies = asyncio.Event()
    inspected = {**said(release, "inspect-running"), "Name": "/web"}
    death = lines(release, "kill")
    container_id = next(
        parsed.container_id
        for parsed in map(parse_event, map(json.loads, death))
        if parsed is not None and parsed.action == "die"
    )
    inspected["Id"] = container_id
    listed = said(release, "containers")
    row = {**next(it for it in listed if it["Names"] == ["/running"]), "Id": container_id}

    async def ask(request: web.Request) -> web.StreamResponse:
        what = request.path.rpartition(f"/v{APIS[release]}/")[2]
        if what.endswith("version"):
            return web.json_response(said(release, "version"))
        if what == "containers/json":
            return web.json_response([{**row, "Names": ["/web"]}])
        if what == f"containers/{container_id}/json":
            return web.json_response(inspected)
        assert what == "events", "in the release's own API, and nothing else"
        kind = "application/x-ndjson" if release.startswith("29") else "application/json"
        stream = web.StreamResponse(headers={"Content-Type": kind})
        await stream.prepare(request)
        await dies.wait()
        inspected.update(said(release, "inspect-exited-137") | {"Name": "/web", "Id": container_id})
        # Cut where no line ends, as packets are.
        text = "".join(f"{line}\n" for line in death).encode()
        for part in (text[:100], text[100:]):
            await stream.write(part)
        await asyncio.Event().wait()
        return stream

    app = web.Application()
    app.router.add_get("/{path:.*}", ask)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(folder / "docker.sock")).start()
        yield dies
    finally:
        await runner.cleanup()


async def test_it_is_watched_in_its_own_api(release: str, tmp_path: Path) -> None:
    heard: list[Event] = []
    async with speaking(tmp_path, release) as dies:
        engine = DockerEngine(
            host=f"unix://{tmp_path}/docker.sock",
            names=("web",),
            post=heard.append,
            may_act=lambda _: False,
            clock=Clock(),
            stop_timeout_s=None,
            start_timeout_s=1.0,
        )

        async def hears(kind: type[Event]) -> Event:
            async def ask() -> list[Event]:
                return [event for event in heard if isinstance(event, kind)]

            return (await until_async(ask, LIMIT_S, f"{kind.__name__}: {heard}"))[0]

        async with asyncio.TaskGroup() as group:
            watch = group.create_task(engine.watch())
            observed = await hears(ContainersObserved)
            dies.set()
            died = await hears(ContainerDied)
            watch.cancel()
        await engine.close()

    assert isinstance(observed, ContainersObserved)
    assert [it.detail for it in observed.containers] == ["running"]
    assert isinstance(died, ContainerDied)
    assert (died.name, died.detail) == ("web", "exited (137)")
    assert not [event for event in heard if isinstance(event, EngineLost)]
