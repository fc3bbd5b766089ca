"""Cut wires, frozen agents, equal terms: who may run, and who stops when they meet again."""

from dataclasses import replace

import pytest

from failover_agent.core.events import ReleaseReceived
from failover_agent.core.policy import LoneStart, PartitionPolicy
from failover_agent.core.state import Phase
from failover_agent.simulation.engine import Mode
from failover_agent.simulation.facts import Fact, Saw
from failover_agent.simulation.product import Product
from failover_agent.simulation.world import World
from tests.simulation.pairs import (
    INTERVAL,
    RESTART_GRACE,
    START,
    STARTUP_GRACE,
    STOP,
    Pair,
    T,
    a_pair_at_rest,
)

pytestmark = pytest.mark.simulation

CONSISTENCY = PartitionPolicy.CONSISTENCY
A_BEAT = INTERVAL + 2 * STOP + 0.3


def test_under_consistency_a_cut_wire_moves_nothing(core: Product) -> None:
    pair = a_pair_at_rest(core, partition_policy=CONSISTENCY)
    done_since = pair.diary.since()
    for source, target, both_ways in (
        ("primary", "backup", True),
        ("primary", "backup", False),
        ("backup", "primary", False),
    ):
        pair.world.cut(source, target, both_ways=both_ways)
        pair.running_s(5 * T)
        pair.world.mend(source, target)
        pair.running_s(5 * T)

    assert done_since() == []
    assert pair.phases() == (Phase.ACTIVE, Phase.STANDBY)


def test_under_consistency_a_dead_active_waits_for_its_boot_or_an_operator(core: Product) -> None:
    pair = a_pair_at_rest(core, partition_policy=CONSISTENCY)
    pair.world.crash_host("primary")
    pair.running_s(5 * T)
    assert not pair.world.runs("backup")

    pair.world.boot("primary")
    pair.serves_within("primary", STARTUP_GRACE + 2 * T)


def test_under_availability_both_run_while_cut_and_the_lower_term_stops_within_a_beat(
    core: Product,
) -> None:
    pair = a_pair_at_rest(core)
    pair.world.cut("primary", "backup")
    pair.running_s(2 * T)
    assert pair.world.serves("primary")
    assert pair.world.serves("backup")

    pair.world.mend("primary", "backup")
    pair.serves_within("backup", A_BEAT)
    pair.running_s(3 * T)
    assert pair.serves("backup")


def test_equal_terms_at_first_contact_are_decided_by_preference(core: Product) -> None:
    pair = Pair(core, lone_start=LoneStart.START)
    pair.world.cut("primary", "backup")
    pair.world.boot("primary")
    pair.world.boot("backup")
    pair.running_s(STARTUP_GRACE + 2 * T)
    assert pair.world.serves("primary")
    assert pair.world.serves("backup")

    pair.world.mend("primary", "backup")
    pair.serves_within("primary", A_BEAT)
    pair.running_s(3 * T)
    assert pair.serves("primary")


def test_a_backup_that_hears_nothing_but_is_heard_takes_over_and_the_primary_stops(
    core: Product,
) -> None:
    pair = a_pair_at_rest(core)
    pair.world.cut("primary", "backup", both_ways=False)

    pair.serves_within("backup", 2 * T)
    pair.running_s(3 * T)
    assert pair.serves("backup")


def test_a_backup_that_hears_but_is_not_heard_does_nothing(core: Product) -> None:
    pair = a_pair_at_rest(core)
    done_since = pair.diary.since()
    pair.world.cut("backup", "primary", both_ways=False)
    pair.running_s(5 * T)
    pair.world.mend("backup", "primary")
    pair.running_s(2 * T)

    assert done_since() == []


def test_a_thawed_standby_knows_nothing(core: Product) -> None:
    for frozen_s in (T / 2 + 0.3, T - 0.2, T + 0.3, 3 * T):
        pair = a_pair_at_rest(core)
        done_since = pair.diary.since()
        pair.world.freeze("backup")
        pair.world.cut("primary", "backup")
        pair.running_s(frozen_s)
        pair.world.thaw("backup")
        pair.running_s(T - INTERVAL)
        pair.world.mend("primary", "backup")
        pair.running_s(3 * T)

        assert done_since() == []


def test_a_thawed_former_active_stops_within_a_beat(core: Product) -> None:
    pair = a_pair_at_rest(core)
    pair.world.freeze("primary")
    pair.running_s(2 * T)
    assert pair.world.serves("backup")

    pair.world.thaw("primary")
    pair.serves_within("backup", A_BEAT)


def test_an_agent_frozen_in_the_middle_of_a_start_stops_within_a_beat_of_its_thaw(
    core: Product,
) -> None:
    pair = Pair(core)
    for container in pair.world.hosts["primary"].engine.containers.values():
        container.start_takes_s = 2.0
    pair.world.boot("primary")
    pair.world.boot("backup")
    pair.phase_within("primary", Phase.PROMOTING, 4 * T)
    pair.running_s(0.5)
    pair.world.freeze("primary")
    pair.world.run_until(lambda: pair.world.serves("backup"), 3 * T)
    pair.world.thaw("primary")

    pair.serves_within("backup", A_BEAT + 3.0)


def test_a_cut_in_the_middle_of_a_handover_leaves_one_that_runs(core: Product) -> None:
    for policy in PartitionPolicy:
        pair = a_pair_at_rest(core, partition_policy=policy)
        pair.world.break_container("primary", "web")
        pair.phase_within("primary", Phase.DEMOTING, 3 * RESTART_GRACE)
        pair.world.cut("primary", "backup")
        pair.running_s(3 * T)
        pair.world.mend("primary", "backup")
        pair.world.allow_start("primary", "web")
        pair.running_s(STARTUP_GRACE + 3 * T)

        assert pair.serves("primary") or pair.serves("backup")


def with_another_fingerprint(pair: Pair) -> Pair:
    """The backup comes back with other members, another arbiter, or another policy."""
    pair.world.kill_agent("backup")
    backup = pair.world.hosts["backup"]
    backup.policy = replace(backup.policy, fingerprint="another")
    pair.world.start_agent("backup")
    pair.running_s(2 * T)
    assert pair.serves("primary")
    return pair


def test_a_peer_with_another_fingerprint_takes_nothing_over(core: Product) -> None:
    pair = with_another_fingerprint(a_pair_at_rest(core))
    pair.world.crash_host("primary")
    pair.running_s(5 * T)
    assert not pair.world.runs("backup")


def test_a_peer_with_another_fingerprint_is_not_handed_anything(core: Product) -> None:
    pair = with_another_fingerprint(a_pair_at_rest(core))
    pair.world.break_container("primary", "web")
    pair.running_s(3 * RESTART_GRACE)

    assert pair.world.runs("primary") == ("db",)


def test_an_active_that_nobody_hears_and_that_hears_nobody_for_long_keeps_its_containers(
    core: Product,
) -> None:
    pair = a_pair_at_rest(core)
    pair.world.crash_host("backup")
    pair.running_s(2 * T)
    pair.world.kill_agent("primary")
    pair.running_s(2 * T)
    done_since = pair.diary.since()
    pair.world.start_agent("primary")
    pair.running_s(STARTUP_GRACE + 3 * START + 2 * T)

    assert done_since() == []
    assert pair.phases()[0] is Phase.ACTIVE


class CutsAtRelease:
    """The wire goes down at the very moment at which the backup hears of the release."""

    def __init__(self, world: World) -> None:
        self._world = world
        world.chronicle.watchers.append(self)

    def see(self, fact: Fact) -> None:
        match fact:
            case Saw("backup", ReleaseReceived()):
                self._world.cut("primary", "backup")
            case _:
                pass


def test_under_consistency_a_release_binds_though_nobody_confirms_it(core: Product) -> None:
    pair = a_pair_at_rest(core, partition_policy=CONSISTENCY)
    CutsAtRelease(pair.world)
    pair.world.break_container("primary", "web")
    pair.phase_within("primary", Phase.STANDBY, 3 * RESTART_GRACE)
    pair.running_s(3 * T)
    assert pair.serves("backup")

    pair.world.allow_start("primary", "web")
    pair.world.kill_agent("primary")
    pair.world.start_agent("primary")
    pair.running_s(STARTUP_GRACE + 5 * T)
    assert pair.serves("backup")


def test_a_node_starts_nothing_before_the_other_has_confirmed_that_it_stopped(
    core: Product,
) -> None:
    pair = a_pair_at_rest(core)
    pair.world.cut("primary", "backup")
    pair.running_s(2 * T)
    for host in ("primary", "backup"):
        pair.world.kill_agent(host)
        pair.world.lose_record(host)
    pair.world.kill_container("primary", "db")
    pair.world.kill_container("primary", "web")
    pair.world.remove_container("backup", "web")
    pair.running_s(60)
    pair.world.mend("primary", "backup")
    pair.world.start_agent("primary")
    pair.world.start_agent("backup")

    pair.serves_within("primary", 3 * STARTUP_GRACE + 3 * T)


def test_a_resumed_agent_starts_nothing_before_the_other_has_stopped(core: Product) -> None:
    pair = a_pair_at_rest(core)
    pair.world.kill_agent("primary")
    pair.world.crash_agent_at_save("backup", after=True)
    pair.running_s(2 * T)
    assert pair.phases() == (None, None)
    assert not pair.world.runs("backup")

    pair.running_s(60)
    for container in pair.world.hosts["primary"].engine.containers.values():
        container.stop_takes_s = 2.0
    pair.world.start_agent("primary")
    pair.running_s(INTERVAL)
    pair.world.start_agent("backup")

    pair.serves_within("backup", RESTART_GRACE + 3 * T)


def test_under_consistency_a_stop_that_failed_releases_nothing(core: Product) -> None:
    pair = a_pair_at_rest(core, partition_policy=CONSISTENCY)
    pair.world.hosts["primary"].engine.containers["db"].stop_takes_s = 2.0
    pair.world.break_container("primary", "web")
    pair.phase_within("primary", Phase.DEMOTING, 3 * RESTART_GRACE)
    pair.world.lose_engine("primary", Mode.HANGS, visible=False)
    pair.phase_within("primary", Phase.FAILED, 30)
    pair.running_s(2 * INTERVAL)
    pair.world.kill_agent("primary")
    pair.running_s(5 * T)

    assert pair.world.runs("primary") == ("db",)
    assert not pair.world.runs("backup")


def test_a_slow_stop_is_not_silence(core: Product) -> None:
    pair = a_pair_at_rest(core)
    for container in pair.world.hosts["primary"].engine.containers.values():
        container.stop_takes_s = 3.0
    pair.world.terminate("primary")

    took_s = pair.serves_within("backup", 6.0 + T)
    assert took_s > 6.0
