"""Guard and agent killed or frozen together: what no software covers is measured here, and short.

Restarted after 100 ms by a supervisor (supervise.py), and by the real unit under the real systemd.
"""

import signal
from collections.abc import Iterator

import pytest

from tests.lab.agent import signal_all
from tests.lab.lab import Node
from tests.lab.pair import LIMIT_S, is_redundant, pass_time
from tests.lab.systemd import Systemd, UnitAgent
from tests.lab.trio import Trio
from tests.lab.truth import now_s
from tests.lab.until import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

TIMEOUT_S = 6.0  # guard and agent need up to 4 s to be back on a busy machine
SHORT_S = 0.35 * TIMEOUT_S
RESTART_S = 4.0  # a supervisor's start of guard and agent, on a busy machine


@pytest.fixture(scope="module")
def shared() -> Iterator[Trio]:
    with Trio.build("witness", heartbeat_timeout=TIMEOUT_S, restart_grace_period=30.0) as trio:
        yield trio


def overlap_is_short(trio: Trio, since_s: float, away_s: float, what: str) -> None:
    """At most as long as both were away, and what a restart and a kill take."""
    overlap_s = trio.longest_overlap_s(since_s)
    limit_s = away_s + RESTART_S + trio.metronome.late_s(since_s)
    print(f"{what}: both hosts ran for {overlap_s:.2f} s")
    assert overlap_s <= limit_s
    trio.excuse_overlaps()


@pytest.mark.parametrize("place", ["active", "standby"])
def test_guard_and_agent_killed_together_and_back_in_time_move_nothing(
    trio: Trio, place: str
) -> None:
    active, standby = trio.ends()
    node = active if place == "active" else standby
    since_s = now_s()
    node.agent.sigkill()
    node.agent.wait_whole()
    assert trio.settle() is active
    trio.watch_unmoved(active, SHORT_S, since_s)


def test_guard_and_agent_killed_together_late_in_a_lease_stop_what_runs_when_they_are_back(
    trio: Trio,
) -> None:
    """History 6: the deadline passes while nobody is there to heed it."""
    active, standby = trio.ends()
    since_s = now_s()
    trio.lab.network.isolate(active)
    # A lease that ends with T, and a stop a quarter of it before: just ahead of that.
    pass_time(0.7 * TIMEOUT_S)
    active.agent.sigkill()
    until(lambda: trio.runs_on(standby), LIMIT_S, "the other takes over")
    until(lambda: not trio.lab.truth.running_now(active.name), LIMIT_S, "stopped by the new guard")
    assert trio.settle() is standby
    overlap_is_short(trio, since_s, 0.0, "killed together late in a lease")


def test_guard_and_agent_frozen_together_stop_what_runs_when_they_go_on(trio: Trio) -> None:
    active, standby = trio.ends()
    since_s = now_s()
    active.agent.sigstop()
    until(lambda: trio.runs_on(standby), LIMIT_S, "the other takes over")
    both_s = now_s()
    pass_time(SHORT_S)
    active.agent.sigcont()
    away_s = now_s() - both_s
    until(lambda: not trio.lab.truth.running_now(active.name), LIMIT_S, "stopped as it thaws")
    assert trio.settle() is standby
    overlap_is_short(trio, since_s, away_s + 1.0, "frozen together")


# -- the real unit --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unit(shared: Trio) -> Iterator[tuple[Trio, Systemd]]:
    """host-a of the same trio goes on under systemd, with a lease that its watchdog lets stand."""
    node = shared.lab.a
    node.agent.end()
    system = Systemd(shared.lab, node)
    system.boot()
    system.start_agent("primary", shared.settings)
    yield shared, system
    node.agent.end()


def lead_on_systemd(trio: Trio, system: Systemd) -> UnitAgent:
    """Its agent, when it is the active one."""
    node, agent = system.node, system.node.agent
    assert isinstance(agent, UnitAgent)
    trio.lab.network.heal()

    def is_led_here() -> bool:
        """The other hands over when it is told to stop, and stays where nobody can take over."""
        leader = trio.find_redundant()
        if leader is trio.lab.peer_of(node):
            signal_all([leader.agent.guard_pid], signal.SIGTERM)
        return leader is node

    until(is_led_here, LIMIT_S, f"{node.name} is active", poll_s=0.5)
    return agent


def stopped_on(trio: Trio, node: Node) -> bool:
    return not trio.lab.truth.running_now(node.name)


def test_systemd_brings_both_back_and_nothing_moves(unit: tuple[Trio, Systemd]) -> None:
    trio, system = unit
    agent = lead_on_systemd(trio, system)
    restarts = agent.restarts()
    since_s = now_s()
    agent.sigkill()
    until(lambda: agent.restarts() > restarts, LIMIT_S, "systemd starts it anew")
    until(lambda: is_redundant(system.node), LIMIT_S, "it took its lease up again")
    trio.watch_unmoved(system.node, SHORT_S, since_s)


def test_under_systemd_a_lease_that_ends_while_both_are_dead_is_heeded_when_they_are_back(
    unit: tuple[Trio, Systemd],
) -> None:
    trio, system = unit
    agent = lead_on_systemd(trio, system)
    since_s = now_s()
    trio.lab.network.isolate(system.node)
    pass_time(0.7 * TIMEOUT_S)
    agent.sigkill()
    until(lambda: stopped_on(trio, system.node), LIMIT_S, "stopped by the new guard")
    until(lambda: trio.runs_on(trio.lab.b), LIMIT_S, "the other takes over")
    overlap_is_short(trio, since_s, 0.0, "systemd: killed together late in a lease")


def test_under_systemd_the_watchdog_ends_what_is_frozen_together(
    unit: tuple[Trio, Systemd],
) -> None:
    """SIGABRT to the guard, SIGKILL to the rest: nobody has to thaw them."""
    trio, system = unit
    agent = lead_on_systemd(trio, system)
    since_s = now_s()
    agent.sigstop()
    until(lambda: trio.runs_on(trio.lab.b) or agent.agent_pid, LIMIT_S, "something moves")
    until(lambda: stopped_on(trio, system.node) or is_redundant(system.node), LIMIT_S, "it is back")
    until(
        lambda: stopped_on(trio, system.node) != stopped_on(trio, trio.lab.b),
        LIMIT_S,
        "the service runs on one of them",
    )
    overlap_is_short(trio, since_s, TIMEOUT_S, "systemd: frozen together")
