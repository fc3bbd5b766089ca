"""With a witness: agents and engines that are killed, frozen, busy or restarted."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.agent import freeze, signal_all
from tests.lab.lab import Node
from tests.lab.pair import LIMIT_S, alarms, pass_time, status, watch
from tests.lab.trio import Trio
from tests.lab.truth import now_s
from tests.lab.until import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

TIMEOUT_S = 6.0  # with time for a guard and its agent to start anew where both cores are busy
SHORT_S = 0.35 * TIMEOUT_S
LONG_S = 2 * TIMEOUT_S


@pytest.fixture(scope="module")
def shared() -> Iterator[Trio]:
    # An interval by which the peer has 3 s to answer one that is told to stop (patience).
    settings: dict[str, Any] = {"heartbeat_interval": 1.0, "restart_grace_period": 60.0}
    with Trio.build("witness", heartbeat_timeout=TIMEOUT_S, **settings) as trio:
        yield trio


def pick(trio: Trio, place: str) -> tuple[Node, Node]:
    """The node in this place, and the active one."""
    active, standby = trio.ends()
    return (active if place == "active" else standby), active


# -- agents ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["active", "standby"])
def test_a_killed_agent_is_started_by_its_guard_and_nothing_moves(trio: Trio, place: str) -> None:
    node, active = pick(trio, place)
    killed, guard = node.agent.agent_pid, node.agent.guard_pid
    since_s = now_s()
    signal_all([killed], signal.SIGKILL)
    until(lambda: node.agent.agent_pid not in (0, killed), LIMIT_S, "another agent")
    assert node.agent.guard_pid == guard
    assert trio.settle() is active
    trio.watch_unmoved(active, SHORT_S, since_s)


@pytest.mark.parametrize("place", ["active", "standby"])
def test_an_agent_frozen_for_less_than_the_timeout_moves_nothing(trio: Trio, place: str) -> None:
    node, active = pick(trio, place)
    pids = [node.agent.agent_pid]
    since_s = now_s()
    freeze(pids)
    pass_time(SHORT_S)
    signal_all(pids, signal.SIGCONT)
    assert trio.settle() is active
    trio.watch_unmoved(active, SHORT_S, since_s)


def wait_told_of_the_kill(node: Node, log_before: str) -> None:
    """Until the log of this node's agent says, since then, why its peer went first."""
    told = 'code=not_ready "its guard had to end the lease of the agent before this one"'
    until(lambda: told in node.agent.log()[len(log_before) :], LIMIT_S, "not ready after the kill")


def test_an_active_agent_frozen_for_longer_loses_its_containers_to_the_other(trio: Trio) -> None:
    active, standby = trio.ends()
    frozen, log = active.agent.agent_pid, active.agent.log()
    since_s = now_s()
    freeze([frozen])
    trio.wait_back(since_s, "agent frozen", standby)
    until(lambda: active.agent.agent_pid not in (0, frozen), LIMIT_S, "the guard replaced it")
    wait_told_of_the_kill(active, log)
    assert trio.settle() is standby


def test_an_active_agent_that_spins_loses_its_containers_to_the_other(trio: Trio) -> None:
    active, standby = trio.ends()
    spinning, log = active.agent.agent_pid, active.agent.log()
    since_s = now_s()
    active.agent.spin(10 * TIMEOUT_S)
    trio.wait_back(since_s, "agent spins", standby)
    until(lambda: active.agent.agent_pid not in (0, spinning), LIMIT_S, "the guard replaced it")
    wait_told_of_the_kill(active, log)
    assert trio.settle() is standby


def test_a_standby_agent_frozen_for_longer_is_missed_and_moves_nothing(trio: Trio) -> None:
    active, standby = trio.ends()
    pids = [standby.agent.agent_pid]
    since_s = now_s()
    freeze(pids)
    until(lambda: "redundancy_lost" in alarms(active), LIMIT_S, "the alarm")
    pass_time(TIMEOUT_S)
    signal_all(pids, signal.SIGCONT)
    assert trio.settle() is active
    trio.watch_unmoved(active, TIMEOUT_S, since_s)


@pytest.mark.parametrize("place", ["active", "standby"])
def test_sigterm_of_a_supervised_agent_ends_with_one_active(trio: Trio, place: str) -> None:
    """The supervisor starts it again, as systemd does at a restart that nobody announced."""
    node, active = pick(trio, place)
    since_s = now_s()
    signal_all([node.agent.guard_pid], signal.SIGTERM)
    trio.wait_back(since_s, f"SIGTERM on {place}", trio.lab.peer_of(node))
    assert trio.settle() is trio.lab.peer_of(node)
    assert (place == "active") == bool(trio.lab.truth.starts(since_s))
    assert active.agent.is_alive()


# -- guards ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["active", "standby"])
def test_a_killed_guard_is_replaced_and_nothing_moves(trio: Trio, place: str) -> None:
    node, active = pick(trio, place)
    guard = node.agent.guard_pid
    since_s = now_s()
    signal_all([guard], signal.SIGKILL)
    until(lambda: node.agent.guard_pid not in (0, guard), LIMIT_S, "another guard")
    assert trio.settle() is active
    node.agent.wait_whole()
    trio.watch_unmoved(active, SHORT_S, since_s)


@pytest.mark.parametrize("place", ["active", "standby"])
def test_a_guard_frozen_alone_moves_nothing(trio: Trio, place: str) -> None:
    node, active = pick(trio, place)
    guard = [node.agent.guard_pid]
    since_s = now_s()
    freeze(guard)
    trio.watch_unmoved(active, LONG_S, since_s)
    signal_all(guard, signal.SIGCONT)
    assert trio.settle() is active
    trio.watch_unmoved(active, SHORT_S, since_s)


# -- engines --------------------------------------------------------------------------------------


def test_a_killed_engine_moves_nothing_and_what_its_successor_ends_is_repaired(trio: Trio) -> None:
    active, _ = trio.ends()
    since_s = now_s()
    active.engine.kill()
    until(lambda: "engine_lost" in alarms(active), LIMIT_S, "the alarm")
    trio.watch_unmoved(active, SHORT_S, since_s)
    active.engine.start()
    assert trio.settle() is active


def test_a_hung_engine_moves_nothing(trio: Trio) -> None:
    active, _ = trio.ends()
    since_s = now_s()
    active.engine.freeze()
    until(lambda: "engine_lost" in alarms(active), LIMIT_S, "the alarm")
    trio.watch_unmoved(active, SHORT_S, since_s)
    active.engine.thaw()
    assert trio.settle() is active
    trio.watch_unmoved(active, SHORT_S, since_s)


def test_a_restarted_engine_is_waited_for_and_the_service_is_back_on_the_same_host(
    trio: Trio,
) -> None:
    active, _ = trio.ends()
    active.engine.restart()
    assert trio.settle() is active


def is_missed(standby: Node) -> bool:
    """It says itself that it could not take over."""
    told = status(standby)
    return bool(told) and not told["redundancy"]["ok"]


@pytest.mark.parametrize("how", ["kill", "freeze", "restart"])
def test_whatever_befalls_the_engine_of_the_standby_moves_nothing(trio: Trio, how: str) -> None:
    active, standby = trio.ends()
    since_s = now_s()
    getattr(standby.engine, how)()
    if how != "restart":
        until(lambda: is_missed(standby), LIMIT_S, "it is missed")
    watch(trio.lab, SHORT_S, active)
    assert trio.settle() is active
    trio.watch_unmoved(active, SHORT_S, since_s)


def test_a_hung_engine_keeps_nobody_from_taking_over_from_a_frozen_agent(trio: Trio) -> None:
    """The guard kills the containers without the engine."""
    active, standby = trio.ends()
    active.engine.freeze()
    since_s = now_s()
    freeze([active.agent.agent_pid])
    trio.wait_back(since_s, "agent frozen, engine hung", standby)
    active.engine.thaw()
    assert trio.settle() is standby


def test_a_hung_engine_keeps_nobody_from_taking_over_from_an_isolated_active(trio: Trio) -> None:
    active, standby = trio.ends()
    active.engine.freeze()
    since_s = now_s()
    trio.lab.network.isolate(active)
    trio.wait_back(since_s, "isolated, engine hung", standby)
    active.engine.thaw()
    assert trio.settle() is standby
