"""adapters/docker and an engine that becomes another release under it, both ways."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from failover_agent.core.effects import StartContainers, StopContainers
from failover_agent.core.events import (
    ContainersObserved,
    ContainersStarted,
    ContainersStopped,
    EngineLost,
)
from tests.integration.test_docker_adapter import Node, Relay, adapter, aside
from tests.lab.lab import Lab
from tests.lab.lab import Node as LabNode
from tests.lab.service import Service, Spec

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab([], releases=("26.1", "")) as made:
        yield made


def containers(lab: Lab, node: LabNode) -> Node:
    folder = lab.truth.folder / node.host.name
    services = {name: Service(node.engine, Spec(name), folder / name) for name in ("db", "web")}
    for service in services.values():
        service.create()
    return Node(node.host, node.engine, services)


@pytest.fixture
def newer(lab: Lab) -> Node:
    return containers(lab, lab.a)


@pytest.fixture
def older(lab: Lab) -> Node:
    return containers(lab, lab.b)


async def test_a_downgrade_and_an_upgrade_are_survived(
    newer: Node, older: Node, tmp_path: Path
) -> None:
    """The adapter speaks the newest API of the engine that it found, and the older refuses that."""
    between = Relay(newer.engine.socket)
    path = tmp_path / "docker.sock"
    refusal = older.engine.api("GET", "/v1.45/containers/json")
    assert "client version 1.45 is too new" in refusal.text
    async with (
        await between.serve(path),
        adapter(newer, host=f"unix://{path}", proc=Path("/proc/self/fdinfo")) as (engine, core),
    ):
        for term, node in enumerate((newer, older, newer), start=1):
            known = len(core.of(ContainersObserved))
            between.engine = node.engine.socket
            between.cut()
            await core.hears(lambda known=known: len(core.of(ContainersObserved)) > known)  # type: ignore[misc]
            report = await engine.probe()
            assert report.version.startswith("26.1." if node is newer else "20.10.")
            await engine.perform(StartContainers(term=term, names=("db", "web")))
            assert len(core.of(ContainersStarted)) == term
            await core.hears(
                lambda: [core.detail(name) for name in ("db", "web")] == ["running"] * 2
            )
            deaths = len(core.deaths)
            await aside(node.services["db"].kill)
            await core.hears(lambda deaths=deaths: len(core.deaths) > deaths)  # type: ignore[misc]
            await engine.perform(StopContainers(term=term, names=("db", "web"), grace_s=None))
            assert len(core.of(ContainersStopped)) == term
        for lost in core.of(EngineLost):
            print(lost.error)
