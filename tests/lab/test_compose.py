"""Dockerfile and compose.yaml, for real: the image as users build it, on three hosts, failing over.

What a container costs against the unit of systemd is measured here, and told in docs/compose.md.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.lab.builder import build_image
from tests.lab.compose import CONTAINER, ComposeAgent, ComposeTrio
from tests.lab.conftest import FAILED
from tests.lab.lab import Node
from tests.lab.pair import LIMIT_S, alarms, is_redundant, pass_time
from tests.lab.truth import now_s
from tests.lab.until import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

TIMEOUT_S = 6.0  # a busy machine takes seconds to start two interpreters in a container
KILL_S = 2.0  # from the start of a guard to the last tick, on a busy machine
MEGABYTE = 1_000_000
LOG_TAIL = 5000


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("image") / "image.tar"
    build_image(target)
    return target


@pytest.fixture(scope="module")
def shared(image: Path) -> Iterator[ComposeTrio]:
    with ComposeTrio.build_compose(image, heartbeat_timeout=TIMEOUT_S) as trio:
        yield trio


@pytest.fixture
def trio(trio: ComposeTrio, request: pytest.FixtureRequest) -> Iterator[ComposeTrio]:
    """The one of conftest.py, by its own kind; Docker has the logs of its agents."""
    yield trio
    if request.node.stash.get(FAILED, True):
        for node in (*trio.nodes, trio.lab.c):
            log = node.agent.log()[-LOG_TAIL:] if node.engine.is_up() else "the engine is down"
            sys.stderr.write(f"--- the agent of {node.name}\n{log}\n")


def agent_of(node: Node) -> ComposeAgent:
    assert isinstance(node.agent, ComposeAgent)
    return node.agent


def inspect(node: Node) -> dict[str, Any]:
    """The container of its agent."""
    [found] = json.loads(node.docker("inspect", CONTAINER))
    return dict(found)


# -- what it is -----------------------------------------------------------------------------------


def test_the_image_holds_the_product_and_nothing_else(trio: ComposeTrio) -> None:
    sizes = trio.lab.a.docker("history", "--human=false", "--format", "{{.Size}}", CONTAINER)
    own = sum(int(size) for size in sizes.split()[:-1])  # the last one is the base
    print(f"the image: {own / MEGABYTE:.0f} MB beside its base")
    assert own < 60 * MEGABYTE
    inside = trio.lab.a.docker("exec", CONTAINER, "sh", "-c", "ls -d /src /opt/*; pip list")
    assert inside.startswith("/opt/failover-agent\n")
    for tool in ("pytest", "ruff", "hypothesis"):
        assert tool not in inside
    attempt = "touch /opt/failover-agent/x 2>/dev/null && echo written || echo refused"
    assert trio.lab.a.docker("exec", CONTAINER, "sh", "-c", attempt) == "refused\n"


def test_each_container_has_what_its_role_needs_and_no_more(trio: ComposeTrio) -> None:
    node, witness = inspect(trio.lab.a), inspect(trio.lab.c)
    assert node["HostConfig"]["PidMode"] == "host"
    assert witness["HostConfig"]["PidMode"] == ""
    assert {*witness["HostConfig"]["CapAdd"]} < {*node["HostConfig"]["CapAdd"]}
    targets = {mount["Destination"] for mount in witness["Mounts"]}
    assert targets == {
        *("/etc/failover-agent", "/etc/machine-id"),
        *("/run/failover-agent", "/var/lib/failover-agent"),
    }
    powers = trio.lab.c.docker("exec", CONTAINER, "grep", "CapEff", "/proc/self/status")
    assert powers.split()[1] == f"{1 << 2:016x}", "CAP_DAC_READ_SEARCH"
    for place in (node, witness):
        assert place["HostConfig"]["ReadonlyRootfs"]
        assert not place["HostConfig"]["Privileged"]


def test_the_command_line_answers_inside(trio: ComposeTrio) -> None:
    active, standby = trio.ends()
    assert "ACTIVE on this node" in active.agent.cli("status").stdout
    assert "WITNESS of 1 pair" in trio.lab.c.agent.cli("status").stdout
    checked = standby.agent.cli("check")
    assert checked.returncode in (0, 3), checked.stdout + checked.stderr
    assert "the agent answers" in checked.stdout


# -- it fails over --------------------------------------------------------------------------------


def test_a_container_beyond_repair_moves_the_service(trio: ComposeTrio) -> None:
    active, standby = trio.ends()
    since_s = now_s()
    active.services["web"].break_process()
    active.services["web"].kill()
    until(lambda: trio.runs_on(standby), LIMIT_S, "the other takes over")
    active.services["web"].mend_process()
    print(f"container beyond repair: away for {trio.absence_s(since_s):.2f} s")


def test_a_host_that_crashes_is_taken_over_and_comes_back_as_standby(trio: ComposeTrio) -> None:
    active, standby = trio.ends()
    since_s = now_s()
    active.crash()
    trio.wait_back(since_s, "host crash", standby)
    active.boot()
    until(lambda: active.agent.phase() == "standby", LIMIT_S, "Docker has started its agent")
    assert trio.settle() is standby


def test_compose_down_hands_over(trio: ComposeTrio) -> None:
    active, standby = trio.ends()
    since_s = now_s()
    active.agent.sigterm()
    states = {service.state for service in active.services.values()}
    assert states == {"exited"}, "stopped before it ended"
    until(lambda: trio.runs_on(standby), LIMIT_S, "the other has been handed the service")
    print(f"compose down: away for {trio.absence_s(since_s):.2f} s")
    assert trio.settle() is standby


@pytest.mark.parametrize("place", ["active", "standby"])
def test_a_new_image_moves_nothing(trio: ComposeTrio, place: str) -> None:
    """Compose recreates the container: the old agent leaves, the new one takes its lease up."""
    active, standby = trio.ends()
    node = active if place == "active" else standby
    before, since_s = inspect(node)["Id"], now_s()
    trio.composes[node.name].run("up", "--detach", "--no-build", "--force-recreate")
    assert inspect(node)["Id"] != before
    node.agent.wait_whole()
    assert trio.settle() is active
    trio.watch_unmoved(active, 0.2 * TIMEOUT_S, since_s)


def test_an_engine_that_stops_takes_the_agent_along_which_hands_over(trio: ComposeTrio) -> None:
    """`systemctl restart docker`, and a host that shuts down: all containers hear SIGTERM."""
    active, standby = trio.ends()
    since_s = now_s()
    active.engine.stop()
    until(lambda: trio.runs_on(standby), LIMIT_S, "the other takes over")
    print(f"engine stopped: away for {trio.absence_s(since_s):.2f} s")
    assert trio.settle() is standby


def test_with_live_restore_a_restart_of_the_engine_moves_nothing(trio: ComposeTrio) -> None:
    """And the agent, which went on, finds the socket of the new engine."""
    active, _ = trio.ends()
    settings = active.host.path("/etc/docker/daemon.json")
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "live-restore": True}))
    os.kill(active.engine.process.pid, signal.SIGHUP)  # `systemctl reload docker`
    until(
        lambda: "true" in active.docker("info", "--format", "{{.LiveRestoreEnabled}}"),
        LIMIT_S,
        "live-restore is on",
    )
    since_s, pids = now_s(), active.agent.pids()
    active.engine.stop()
    until(lambda: "engine_lost" in alarms(active), LIMIT_S, "its agent sees that")
    active.engine.start(live_restore=True)
    until(lambda: is_redundant(active), LIMIT_S, "it sees the new engine")
    assert active.agent.pids() == pids
    trio.watch_unmoved(active, 0.2 * TIMEOUT_S, since_s)


# -- guard and agent together ---------------------------------------------------------------------


def test_guard_and_agent_killed_together_and_restarted_by_docker_move_nothing(
    trio: ComposeTrio,
) -> None:
    active, _ = trio.ends()
    agent, since_s = agent_of(active), now_s()
    restarts = agent.restarts()
    agent.sigkill()
    agent.wait_whole()
    print(f"killed together: guard and agent are back after {now_s() - since_s:.2f} s")
    assert agent.restarts() > restarts
    until(lambda: is_redundant(active), LIMIT_S, "it took its lease up again")
    trio.watch_unmoved(active, 0.2 * TIMEOUT_S, since_s)


def has_a_place(node: Node) -> bool:
    """Its agent is back: active, unless it was away for too long."""
    return node.agent.phase() in ("active", "standby")


@pytest.mark.parametrize("deaths_before", [0, 5])
def test_a_lease_that_ends_while_both_are_dead_is_heeded_when_docker_has_restarted_them(
    trio: ComposeTrio, deaths_before: int
) -> None:
    """Docker waits twice as long after each death in a row, from 0.1 s up to a minute."""
    active, _ = trio.ends()
    for _ in range(deaths_before):
        active.agent.sigkill()
        until(partial(has_a_place, active), LIMIT_S, "back")  # and not yet 10 s old
    active = trio.settle()
    standby, since_s = trio.lab.peer_of(active), now_s()
    trio.lab.network.isolate(active)
    # A lease that ends with T, and a stop a quarter of it before: ahead of that.
    pass_time(0.6 * TIMEOUT_S)
    killed_s = now_s()
    active.agent.sigkill()
    until(active.agent.pids, LIMIT_S, "another guard")
    back_s = now_s() - killed_s
    until(lambda: trio.runs_on(standby), LIMIT_S, "the other takes over")
    until(lambda: not trio.lab.truth.running_now(active.name), LIMIT_S, "stopped by the new guard")
    overlap_s = trio.longest_overlap_s(since_s)
    print(
        f"compose: killed together late in a lease, after {deaths_before} such deaths: back after"
        f" {back_s:.2f} s, and both hosts ran for {overlap_s:.2f} s"
    )
    assert overlap_s <= back_s + KILL_S + trio.metronome.late_s(since_s)
    assert trio.settle() is standby
    trio.excuse_overlaps()


# -- and at last ----------------------------------------------------------------------------------


def test_it_is_healthy_in_the_words_of_docker(trio: ComposeTrio) -> None:
    """The witness is the one that nobody has touched: its first check has come by now."""
    until(lambda: agent_of(trio.lab.c).health() == "healthy", LIMIT_S, "the witness is healthy")
    [kind, command] = inspect(trio.lab.b)["Config"]["Healthcheck"]["Test"]
    assert kind == "CMD-SHELL"
    trio.lab.b.docker("exec", CONTAINER, "sh", "-c", command)
