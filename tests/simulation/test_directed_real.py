"""What real hosts were seen to do and the simulator did not know (tests/lab/replay.py)."""

import pytest

from failover_agent.core.policy import PartitionPolicy
from failover_agent.core.state import Phase
from failover_agent.simulation.engine import Mode, Process, void
from failover_agent.simulation.product import Product
from tests.simulation.pairs import (
    RESTART_GRACE,
    START,
    STARTUP_GRACE,
    Pair,
    T,
    a_pair_at_rest,
)

pytestmark = pytest.mark.simulation


def test_a_wire_cut_one_way_falls_silent_in_both_where_messages_need_a_connection(
    core: Product,
) -> None:
    pair = a_pair_at_rest(core)
    pair.world.network.wants_handshakes = True
    pair.world.cut("backup", "primary", both_ways=False)

    pair.phase_within("backup", Phase.ACTIVE, 2 * T + 2 * START + 1)
    assert pair.phases() == (Phase.ACTIVE, Phase.ACTIVE)
    pair.world.mend("backup", "primary")
    pair.serves_within("backup", T)


def test_under_consistency_nothing_moves_then(core: Product) -> None:
    pair = a_pair_at_rest(core, partition_policy=PartitionPolicy.CONSISTENCY)
    pair.world.network.wants_handshakes = True
    done_since = pair.diary.since()
    pair.world.cut("backup", "primary", both_ways=False)
    pair.running_s(4 * T)
    assert not done_since()


def test_a_container_that_ends_at_once_did_not_start(core: Product) -> None:
    pair = a_pair_at_rest(core)
    pair.world.hosts["backup"].engine.containers["db"].lives_for_s = 0.1
    pair.world.crash_host("primary")

    pair.phase_within("backup", Phase.FAILED, 2 * T + 4 * START + 1)
    pair.world.hosts["backup"].engine.containers["db"].lives_for_s = None
    pair.serves_within("backup", 4 * RESTART_GRACE)


def test_one_engine_ends_what_the_one_before_it_left_and_that_is_repaired(core: Product) -> None:
    pair = a_pair_at_rest(core)
    pair.world.engine_boots_s = (1.0, 1.0)
    pair.world.hosts["primary"].engine.ends_survivors = True
    done_since = pair.diary.since()

    pair.world.lose_engine("primary", Mode.REFUSES)
    pair.running_s(1.0)
    pair.world.recover_engine("primary")
    pair.running_s(0.5)
    assert not pair.world.hosts["primary"].engine.answers
    pair.running_s(0.6)
    assert not pair.world.serves("primary")
    pair.serves_within("primary", RESTART_GRACE)
    assert {host for _, host, _ in done_since()} == {"primary"}, "nothing moves"


def test_an_engine_that_has_gone_already_ends_nothing(core: Product) -> None:
    pair = a_pair_at_rest(core)
    pair.world.lose_engine("primary", Mode.REFUSES)
    pair.world.lose_engine("primary", Mode.REFUSES, processes_die=True)
    assert pair.world.runs("primary") == ("db", "web")


def test_a_start_lets_a_paused_container_go_on(core: Product) -> None:
    pair = a_pair_at_rest(core)
    engine = pair.world.hosts["primary"].engine
    engine.pause("db")
    void(engine.start("db"))
    pair.running_s(2 * START)
    assert engine.containers["db"].process is Process.RUNNING


def test_hosts_whose_agents_and_engines_take_their_time_agree_on_one(core: Product) -> None:
    pair = Pair(core)
    pair.world.agent_starts_s, pair.world.engine_boots_s = (0.5, 2.0), (0.5, 3.0)
    for host in ("primary", "backup"):
        pair.world.boot(host)
    pair.serves_within("primary", 3 * STARTUP_GRACE + 2 * T)
    pair.running_s(2 * T)
    assert pair.phases() == (Phase.ACTIVE, Phase.STANDBY)
