"""adapters/docker and a proxy before the engine that denies: a real haproxy and a real engine."""

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from failover_agent.adapters.docker import Timing
from failover_agent.checks import engine as checks
from failover_agent.checks.finding import Level
from failover_agent.config import load
from failover_agent.core.effects import ManageRestartPolicy, StartContainers, StopContainers
from failover_agent.core.events import (
    ContainerDied,
    ContainersObserved,
    ContainersStarted,
    ContainersStopped,
    EngineLost,
    RestartPolicySet,
    StartFailed,
)
from failover_agent.guard import engine as guard
from tests.integration.etcd import program
from tests.integration.test_docker_adapter import (
    PATIENT,
    QUICK,
    Node,
    adapter,
    aside,
    lab,
    node,
    run,
)
from tests.lab.socket_proxy import NEEDED, configuration, environment
from tests.lab.until import until

__all__ = ["lab", "node"]  # fixtures

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

PROXY = "a proxy in front of the engine denies "
NEEDS = "docker-socket-proxy needs "
NOBODY = "/containers/_failover-agent-check/"


class Proxy:
    """Off until `start()`."""

    def __init__(self, folder: Path, engine: Path) -> None:
        self.socket = folder / "proxy.sock"
        self.host = f"unix://{self.socket}"
        self._folder = folder
        self._engine = engine
        self._process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        permissions: Mapping[str, int] = NEEDED,
        *,
        orders_first: bool = False,
        idle_s: float = 600.0,
    ) -> None:
        """Returns when it listens."""
        file = self._folder / "haproxy.cfg"
        file.write_text(
            configuration(self.socket, self._engine, orders_first=orders_first, idle_s=idle_s)
        )
        self.socket.unlink(missing_ok=True)
        command = [program("haproxy"), "-db", "-f", str(file)]
        self._process = subprocess.Popen(command, env=environment(permissions))
        until(self.socket.exists, 30, "haproxy listens")

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)


@contextmanager
def _proxy(folder: Path, engine: Path) -> Iterator[Proxy]:
    made = Proxy(folder, engine)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def proxy(node: Node, tmp_path: Path) -> Iterator[Proxy]:
    with _proxy(tmp_path, node.engine.socket) as made:
        yield made


async def test_with_what_the_agent_needs_nothing_is_missing(node: Node, proxy: Proxy) -> None:
    proxy.start()
    async with adapter(node, host=proxy.host) as (engine, core):
        assert (await engine.probe()).denials == ()
        await engine.perform(StartContainers(term=1, names=("db", "web")))
        assert core.of(ContainersStarted) == [ContainersStarted(1)]
        await aside(node.services["db"].kill)
        await core.hears(lambda: core.deaths)
        await engine.perform(StopContainers(term=1, names=("db", "web"), grace_s=None))
        assert core.of(ContainersStopped) == [ContainersStopped(1)]
        run(node, "db")
        container_id = node.services["db"].inspect()["Id"]
        assert await aside(lambda: guard.kill(proxy.host, ("db",), (), 20.0)) == {
            container_id: True
        }


def without(name: str, **more: int) -> Mapping[str, int]:
    return {**NEEDED, name: 0, **more}


READING = [
    (without("VERSION"), "GET /version", "VERSION=1"),
    (without("CONTAINERS"), f"GET {NOBODY}json", "CONTAINERS=1"),
]
ORDERS = "start stop kill update unpause".split()


@pytest.mark.parametrize(("permissions", "asked", "needed"), READING, ids=lambda it: str(it)[:12])
async def test_what_may_not_be_read_is_unknown_and_the_permission_is_named(
    node: Node, proxy: Proxy, permissions: Mapping[str, int], asked: str, needed: str
) -> None:
    """Never down (S4)."""
    run(node, "db")
    proxy.start(permissions)
    async with adapter(node, host=proxy.host) as (engine, core):
        report = await engine.probe()
        await core.hears(lambda: len(core.of(EngineLost)) > 2)

    assert f"{PROXY}{asked}: {NEEDS}{needed}" in report.denials
    lost = core.of(EngineLost)[0]
    assert lost.error.startswith(PROXY + asked.partition(NOBODY)[0])
    assert lost.error.endswith(NEEDS + needed)
    assert {type(event) for event in core.events} == {EngineLost}


async def test_without_info_only_check_knows_less(node: Node, proxy: Proxy) -> None:
    proxy.start(without("INFO"))
    async with adapter(node, host=proxy.host) as (engine, core):
        assert (await engine.probe()).denials == (f"{PROXY}GET /info: {NEEDS}INFO=1",)
        await engine.perform(StartContainers(term=1, names=("db",)))
        assert core.of(ContainersStarted) == [ContainersStarted(1)]


async def test_without_events_deaths_are_seen_late_and_that_is_said(
    node: Node, proxy: Proxy
) -> None:
    service = run(node, "db")
    proxy.start(without("EVENTS"))
    async with adapter(node, host=proxy.host, timing=PATIENT) as (engine, core):
        denial = f"{PROXY}GET /events: {NEEDS}EVENTS=1"
        assert (await engine.probe()).denials == (denial,)
        await core.hears(lambda: core.of(ContainersObserved)[-1].withheld == denial)
        await core.hears_of("db", "running")
        await aside(service.kill)
        await core.hears_of("db", "exited (137)")
        assert (core.of(ContainerDied), core.of(EngineLost)) == ([], [])

        proxy.end()
        proxy.start()
        await core.hears(lambda: core.of(ContainersObserved)[-1].withheld == "")
        run(node, "db")
        await core.hears_of("db", "running")
        await aside(service.kill)
        await core.hears(lambda: core.deaths)


async def test_a_start_that_is_denied_has_failed_and_nothing_is_unknown(
    node: Node, proxy: Proxy
) -> None:
    run(node, "web")
    proxy.start(without("POST"))
    async with adapter(node, host=proxy.host, timing=PATIENT) as (engine, core):
        report = await engine.probe()
        await engine.perform(StartContainers(term=1, names=("db",)))

    [failed] = core.of(StartFailed)
    path = f"/containers/{node.services['db'].inspect()['Id']}/start"
    needs = f"{NEEDS}POST=1, and CONTAINERS=1 or ALLOW_START=1"
    assert failed == StartFailed(1, "db", f"{PROXY}POST {path}: {needs}")
    assert [it.partition(": ")[0] for it in report.denials] == [
        f"{PROXY}POST {NOBODY}{order}" for order in ORDERS
    ]
    assert core.of(EngineLost) == []


async def test_a_stop_that_is_denied_is_done_by_our_own_hands(node: Node, proxy: Proxy) -> None:
    """As root on the host, with the processes in sight."""
    run(node, "db")
    proxy.start(without("POST"))
    async with adapter(node, host=proxy.host, proc=Path("/proc")) as (engine, core):
        await engine.perform(StopContainers(term=1, names=("db",), grace_s=0))

    assert core.of(ContainersStopped) == [ContainersStopped(1)]
    assert node.services["db"].state == "exited"


async def test_a_proxy_that_lets_orders_through_and_no_update(node: Node, proxy: Proxy) -> None:
    orders = {"ALLOW_START": 1, "ALLOW_STOP": 1, "ALLOW_RESTARTS": 1}
    proxy.start(without("POST", **orders), orders_first=True)
    node.engine.docker("update", "--restart", "always", "db")
    async with adapter(node, host=proxy.host) as (engine, core):
        report = await engine.probe()
        await engine.perform(StartContainers(term=1, names=("db",)))
        await engine.perform(ManageRestartPolicy(name="db", was="always"))

    assert core.of(ContainersStarted) == [ContainersStarted(1)]
    needs = f"{NEEDS}POST=1 and CONTAINERS=1"
    assert report.denials == tuple(
        f"{PROXY}POST {NOBODY}{order}: {needs}" for order in ("update", "unpause")
    )
    [answer] = core.of(RestartPolicySet)
    assert answer.error.endswith(f"/update: {needs}")


async def test_a_stream_that_a_proxy_cuts_for_its_silence_hides_nothing(
    node: Node, proxy: Proxy
) -> None:
    """Docker-socket-proxy does so after ten minutes; a stream of ours is renewed after 30 s."""
    service = run(node, "db")
    proxy.start(idle_s=2.0)
    patient = Timing(window_s=600.0, survey_s=60.0)
    async with adapter(node, host=proxy.host, timing=patient) as (_, core):
        await core.hears(lambda: len(core.of(ContainersObserved)) > 2)  # one for each cut
        await aside(service.kill)
        await core.hears(lambda: core.detail("db") == "exited (137)")
        assert core.of(EngineLost) == []

    proxy.end()
    proxy.start(idle_s=3 * QUICK.window_s)
    async with adapter(node, host=proxy.host, timing=PATIENT) as (_, core):
        began_s = time.monotonic()
        await core.hears(lambda: time.monotonic() - began_s > 4 * QUICK.window_s)
        assert len(core.of(ContainersObserved)) == 1, "none was cut"


async def test_a_proxy_whose_engine_is_gone_says_that(node: Node, proxy: Proxy) -> None:
    words = "a proxy in front of the engine cannot reach it (status 503)"
    proxy.start()
    async with adapter(node, host=proxy.host) as (_, core):
        await aside(node.engine.kill)
        await core.hears(lambda: words in {lost.error for lost in core.of(EngineLost)})


async def test_check_names_every_permission_that_is_missing(proxy: Proxy, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        'containers = ["db"]\n[primary]\nendpoint = "http://10.0.0.2:8000"\n'
        '[backup]\nendpoint = "http://10.0.0.1:8000"\n[security]\nsecret = "sixteen letters!"\n'
        f'[docker]\nhost = "{proxy.host}"\n'
    )
    proxy.start({})
    found = (await checks.look(load(config, "primary"))).findings

    assert {it.level for it in found} == {Level.ERROR}
    assert [it.fix for it in found if "GET" in it.sentence] == [
        f"{NEEDS}{name}=1" for name in ("VERSION", "INFO", "EVENTS", "CONTAINERS")
    ]
    assert len(found) == 4 + len(ORDERS)
    proxy.end()
    proxy.start(without("POST"))
    found = (await checks.look(load(config, "primary"))).findings
    assert [it.level for it in found if it.subject == "engine"] == [Level.OK, *[Level.ERROR] * 5]
