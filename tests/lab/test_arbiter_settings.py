"""With a witness: nodes that differ, strangers with a name that is taken, a witness that forgot."""

from collections.abc import Iterator

import pytest

from tests.lab.agent import Agent, default_command, pair_config, to_toml
from tests.lab.pair import LIMIT_S, alarms, pass_time, status
from tests.lab.trio import Trio
from tests.lab.truth import now_s
from tests.lab.until import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

TIMEOUT_S = 6.0  # with time for a guard and its agent to start anew where both cores are busy
STRANGER = "/etc/failover-agent/stranger.toml"


@pytest.fixture(scope="module")
def shared() -> Iterator[Trio]:
    with Trio.build("witness", heartbeat_timeout=TIMEOUT_S, restart_grace_period=30.0) as trio:
        yield trio


@pytest.mark.parametrize("place", ["active", "standby"])
def test_an_arbiter_in_one_configuration_only_is_an_alarm_and_never_two(
    trio: Trio, place: str
) -> None:
    """History 13: the one without it takes nothing for granted that the other needs a vote for."""
    active, standby = trio.ends()
    changed = active if place == "active" else standby
    other = trio.lab.peer_of(changed)
    changed.agent.end()
    trio.start_agent(changed, arbiter=None, witness=None)
    until(lambda: status(changed) != {}, LIMIT_S, "it answers")
    until(lambda: "fingerprint_differs" in alarms(changed) | alarms(other), LIMIT_S, "the alarm")
    trio.lab.network.cut_both(changed, other)
    pass_time(2 * TIMEOUT_S)
    trio.lab.network.heal()
    changed.agent.end()
    trio.settle()


def test_a_witness_with_an_empty_disk_moves_nothing_and_votes_again_later(trio: Trio) -> None:
    active, standby = trio.ends()
    since_s = now_s()
    trio.forget_witness()
    assert trio.settle() is active
    trio.watch_unmoved(active, TIMEOUT_S, since_s)
    crashed_s = now_s()
    active.crash()
    trio.wait_back(crashed_s, "host crash after the witness had forgotten", standby)


def test_a_witness_that_forgets_while_the_active_is_cut_off_makes_no_second_one(
    trio: Trio,
) -> None:
    """History 5: its empty disk must not give away what it had promised."""
    active, standby = trio.ends()
    since_s = now_s()
    trio.lab.network.cut_both(active, standby)
    trio.lab.network.cut(active, trio.lab.c)
    trio.forget_witness()
    until(lambda: trio.runs_on(standby), LIMIT_S, "the other takes over")
    print(f"witness forgot, active cut off: away for {trio.absence_s(since_s):.2f} s")
    assert trio.settle() is standby


def test_a_third_node_under_a_role_that_is_taken_is_an_alarm_and_starts_nothing(
    trio: Trio,
) -> None:
    active, _ = trio.ends()
    host = trio.lab.c.host
    own = {"port": 8001, "state_dir": "/var/lib/stranger", "control_socket": "/run/stranger.sock"}
    names = [spec.name for spec in trio.lab.specs]
    settings = {**trio.settings, "backup": own}
    config = pair_config("backup", trio.lab.b.host, trio.lab.a.host, names, settings)
    host.path(STRANGER).write_text(to_toml(config))
    since_s = now_s()
    third = Agent(host, "backup", 8001, default_command(), config=STRANGER)
    try:
        until(lambda: any("same_role" in alarms(node) for node in trio.nodes), LIMIT_S, "the alarm")
        trio.watch_unmoved(active, TIMEOUT_S, since_s)
    finally:
        third.end()


@pytest.mark.parametrize("longer", ["active", "standby"])
def test_a_timeout_changed_on_one_node_is_an_alarm_and_never_two(trio: Trio, longer: str) -> None:
    """History 1: a promise lasts as long as its holder asked for, not as its voter thinks.

    The last in this file: voters remember the longest lease they have heard of (V4).
    """
    active, standby = trio.ends()
    changed = active if longer == "active" else standby
    changed.agent.end()
    trio.start_agent(changed, heartbeat_timeout=2 * TIMEOUT_S)
    until(lambda: "settings_differ" in alarms(changed), LIMIT_S, "the alarm")
    leader = until(trio.active, LIMIT_S, "one is active")
    other = trio.lab.peer_of(leader)
    since_s = now_s()
    trio.lab.network.isolate(leader)
    until(lambda: trio.runs_on(other), LIMIT_S, "the other takes over")
    print(f"T doubled on {longer}: away for {trio.absence_s(since_s):.2f} s")
    changed.agent.end()
    trio.lab.network.heal()
    trio.settle()
