"""The guard and real containers of a real engine: one that answers, hangs, or is dead."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from failover_agent.guard import engine, kill
from tests.integration.guarded import LIMIT_S, T_S, Guard, now_s
from tests.lab.lab import Lab
from tests.lab.service import Service, Spec
from tests.lab.until import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab([]) as made:
        yield made


@pytest.fixture
def services(lab: Lab) -> Iterator[dict[str, Service]]:
    """`db` and `web`, of which `db` hears no TERM, run."""
    folder = lab.truth.folder / lab.a.host.name
    specs = (Spec("db", ignores_term=True), Spec("web"))
    made = {spec.name: Service(lab.a.engine, spec, folder / spec.name) for spec in specs}
    for service in made.values():
        service.create()
        service.start()
    yield made
    if not lab.a.engine.is_running():
        lab.a.engine.start()
    for row in lab.a.engine.must("GET", "/containers/json?all=1").json:
        lab.a.engine.must("DELETE", f"/containers/{row['Id']}?force=1")
    shutil.rmtree(folder)


@pytest.fixture
def guard(tmp_path: Path, lab: Lab) -> Iterator[Guard]:
    made = Guard(tmp_path)
    made.greet(docker_host=f"unix://{lab.a.engine.socket}")
    yield made
    made.close()


def pids(service_id: str) -> list[int]:
    """Its processes, as this machine counts them."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            if folder.name.isdigit() and service_id in (folder / "cgroup").read_text():
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                found += [int(folder.name)] if state not in "ZX" else []
    return found


def seen(service: Service) -> dict[str, Any]:
    container_id = service.inspect()["Id"]
    pid = min(pids(container_id))
    return {
        "say": "seen",
        "name": service.name,
        "container_id": container_id,
        "pid": pid,
        "started": kill.start_time(pid),
    }


def arm(
    guard: Guard,
    *targets: dict[str, Any],
    names: tuple[str, ...] = ("db", "web"),
    left_s: float = T_S,
) -> None:
    for target in targets:
        guard.order(send=target)
    guard.say("arm", term=1, names=list(names), valid_until_s=now_s() + left_s)
    until(guard.heard, LIMIT_S)
    assert guard.heard()[0]["error"] == ""


@pytest.mark.parametrize("fault", ["none", "engine hung", "engine dead", "paused"])
def test_all_containers_end_with_the_lease(
    guard: Guard, lab: Lab, services: dict[str, Service], fault: str
) -> None:
    targets = [seen(service) for service in services.values()]
    if fault == "paused":
        services["web"].pause()
    guard.start()
    guard.agent()
    arm(guard, *targets)
    if fault == "engine hung":
        lab.a.engine.freeze()
    if fault == "engine dead":
        lab.a.engine.kill()
    try:
        gone = [target["container_id"] for target in targets]
        until(lambda: not any(map(pids, gone)), LIMIT_S)
        guard.agent(2)
    finally:
        if fault == "engine hung":
            lab.a.engine.thaw()
    if fault != "engine dead":
        until(lambda: {service.state for service in services.values()} == {"exited"}, LIMIT_S)


def test_what_was_recreated_meanwhile_is_found_by_its_name_and_a_restart_policy_ends(
    guard: Guard, lab: Lab, services: dict[str, Service]
) -> None:
    lab.a.docker("update", "--restart", "always", "web")
    guard.greet(docker_host=f"unix://{lab.a.engine.socket}", heartbeat_timeout_s=5 * T_S)
    guard.start()
    guard.agent()
    arm(guard, left_s=5 * T_S)  # without a word of ids or processes
    services["db"].recreate()
    ids = [service.inspect()["Id"] for service in services.values()]
    assert all(map(pids, ids))
    until(lambda: not any(map(pids, ids)), LIMIT_S)
    until(lambda: {service.state for service in services.values()} == {"exited"}, LIMIT_S)


def test_a_start_under_way_at_the_end_of_the_lease_comes_to_nothing(
    guard: Guard, lab: Lab, services: dict[str, Service]
) -> None:
    target = seen(services["db"])
    services["db"].kill()
    guard.start()
    agent = guard.agent()
    arm(guard, target, names=("db",))
    os.kill(agent["pid"], signal.SIGSTOP)
    guard.agent(2)

    # As one that the frozen agent had asked for. The engine may well say that it came to nothing.
    lab.a.engine.api("POST", "/containers/db/start")
    until(lambda: not pids(target["container_id"]), LIMIT_S)
    assert services["web"].state == "running"


def test_a_name_that_begins_an_id_is_not_taken_for_it(
    lab: Lab, services: dict[str, Service]
) -> None:
    host = f"unix://{lab.a.engine.socket}"
    container_id = services["db"].inspect()["Id"]

    assert engine.kill(host, (container_id[:6],), (), 10.0) == {}
    assert services["db"].state == "running"
    assert engine.kill(host, ("db",), (), 10.0) == {container_id: True}
    assert engine.kill(host, ("db",), (container_id,), 10.0) == {container_id: False}


def test_among_many_names_those_that_run_are_found(lab: Lab, services: dict[str, Service]) -> None:
    host = f"unix://{lab.a.engine.socket}"
    container_id = services["db"].inspect()["Id"]
    others = [f"other-{number}" for number in range(engine.MOST_FILTERED)]

    assert engine.kill(host, ("db", *others), (), 10.0) == {container_id: True}
    assert services["web"].state == "running"


def test_an_engine_that_hangs_or_is_not_there_costs_no_more_than_its_limit(
    lab: Lab, services: dict[str, Service], tmp_path: Path
) -> None:
    ids = [service.inspect()["Id"] for service in services.values()]
    lab.a.engine.freeze()
    try:
        began_s = now_s()
        assert engine.kill(f"unix://{lab.a.engine.socket}", ("db",), ids, 0.5) == {}
        took_s = now_s() - began_s
    finally:
        lab.a.engine.thaw()
    assert took_s >= 0.5
    assert engine.kill(f"unix://{tmp_path}/none.sock", ("db",), ids, 0.5) == {}
    assert engine.kill("tcp://127.0.0.1:1", ("db",), ids, 0.5) == {}
    assert engine.kill("tcp://127.0.0.1:none", ("db",), ids, 0.5) == {}
