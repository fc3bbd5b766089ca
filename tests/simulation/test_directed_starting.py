"""Starting: cold, on a running service, after a reboot, without a record."""

import pytest

from failover_agent.core.policy import LoneStart, PartitionPolicy
from failover_agent.core.state import Phase
from failover_agent.simulation.product import Product
from tests.simulation.pairs import INTERVAL, STARTUP_GRACE, Pair, T, a_pair_at_rest

pytestmark = pytest.mark.simulation

CONSISTENCY = PartitionPolicy.CONSISTENCY
SOON = 2 * STARTUP_GRACE + 3 * T


def test_two_cold_starts_end_with_the_primary_active(core: Product) -> None:
    for late_s in (0.0, 0.3, 2.0, -0.3, -2.0):
        pair = Pair(core, seed=f"cold start, {late_s} s")
        first, second = ("primary", "backup") if late_s >= 0 else ("backup", "primary")
        pair.world.boot(first)
        pair.running_s(abs(late_s))
        pair.world.boot(second)

        pair.serves_within("primary", SOON)
        pair.running_s(3 * T)

        assert pair.phases() == (Phase.ACTIVE, Phase.STANDBY)
        assert [line[0] for line in pair.diary.lines] == ["+", "+"]


def test_a_first_install_on_a_running_service_leaves_it_running_where_it_runs(
    core: Product,
) -> None:
    pair = Pair(core)
    for host in ("primary", "backup"):
        pair.world.boot(host, agent=False)
    for name in ("db", "web"):
        pair.world.run_by_hand("backup", name)
    pair.running_s(60)
    done_since = pair.diary.since()

    pair.world.start_agent("primary")
    pair.running_s(0.4)
    pair.world.start_agent("backup")
    pair.running_s(SOON)

    assert pair.phases() == (Phase.STANDBY, Phase.ACTIVE)
    assert done_since() == []


def test_an_agent_that_is_soon_back_touches_nothing_on_either_side(core: Product) -> None:
    for host in ("primary", "backup"):
        pair = a_pair_at_rest(core)
        done_since = pair.diary.since()

        pair.world.kill_agent(host)
        pair.running_s(T - INTERVAL - 0.5)
        pair.world.start_agent(host)
        pair.running_s(SOON)

        assert pair.phases() == (Phase.ACTIVE, Phase.STANDBY)
        assert done_since() == []


def test_a_rebooted_former_active_comes_back_as_standby(core: Product) -> None:
    pair = a_pair_at_rest(core)

    pair.world.crash_host("primary")
    pair.serves_within("backup", 2 * T)
    done_since = pair.diary.since()
    pair.world.boot("primary")
    pair.running_s(SOON)

    assert pair.phases() == (Phase.STANDBY, Phase.ACTIVE)
    assert done_since() == []


def test_what_docker_started_by_itself_after_a_reboot_is_stopped_on_the_standby(
    core: Product,
) -> None:
    pair = a_pair_at_rest(core)
    pair.world.crash_host("primary")
    pair.serves_within("backup", 2 * T)

    pair.world.hosts["primary"].engine.containers["db"].restart_policy = "always"
    pair.world.boot("primary")

    pair.serves_within("backup", 2 * INTERVAL + 1)
    pair.running_s(T)
    assert pair.world.hosts["primary"].engine.containers["db"].restart_policy == "no"


def test_both_hosts_power_cycled(core: Product) -> None:
    for order in ("holder first", "other first", "together"):
        pair = a_pair_at_rest(core)
        pair.world.crash_host("primary")
        pair.serves_within("backup", 2 * T)
        pair.world.boot("primary")
        pair.running_s(2 * T)
        pair.world.crash_host("primary")
        pair.world.crash_host("backup")
        pair.running_s(2.0)

        first, second = ("primary", "backup") if order == "other first" else ("backup", "primary")
        pair.world.boot(first)
        if order != "together":
            pair.running_s(SOON)
            assert pair.serves(first)
        pair.world.boot(second)

        pair.serves_within(first, SOON)
        pair.running_s(3 * T)
        assert pair.serves(first)


def test_under_consistency_only_the_last_holder_starts_alone_after_a_boot(core: Product) -> None:
    for alone in ("primary", "backup"):
        pair = a_pair_at_rest(core, partition_policy=CONSISTENCY)
        pair.world.crash_host("primary")
        pair.world.crash_host("backup")
        pair.world.boot(alone)
        pair.running_s(3 * SOON)

        assert pair.serves(alone) is (alone == "primary")
        pair.world.boot("backup" if alone == "primary" else "primary")
        pair.serves_within("primary", SOON)


def test_under_consistency_one_that_released_does_not_start_alone(core: Product) -> None:
    pair = a_pair_at_rest(core, partition_policy=CONSISTENCY)
    pair.world.terminate("primary")
    pair.serves_within("backup", 2 * T)
    pair.running_s(T)
    pair.world.crash_host("backup")
    pair.world.start_agent("primary")
    pair.running_s(3 * SOON)

    assert not pair.world.runs("primary")
    assert not pair.world.runs("backup")
    pair.world.boot("backup")
    pair.running_s(SOON)
    assert pair.world.serves("backup") != pair.world.serves("primary")


def test_a_backup_that_never_heard_its_primary_does_not_start_alone(core: Product) -> None:
    pair = Pair(core)
    pair.world.boot("backup")
    pair.running_s(3 * SOON)

    assert not pair.world.runs("backup")
    pair.world.boot("primary")
    pair.serves_within("primary", SOON)


def test_a_primary_starts_alone_after_its_startup_grace(core: Product) -> None:
    pair = Pair(core)
    pair.world.boot("primary")
    took_s = pair.serves_within("primary", SOON)

    assert took_s > STARTUP_GRACE


def test_a_backup_may_be_told_to_start_alone(core: Product) -> None:
    pair = Pair(core, lone_start=LoneStart.START)
    pair.world.boot("backup")

    pair.serves_within("backup", SOON)


def test_nobody_is_granted_a_term_within_t_of_a_lost_record(core: Product) -> None:
    pair = Pair(core)
    pair.world.boot("primary")
    pair.world.boot("backup")

    took_s = pair.world.run_until(lambda: bool(pair.world.runs("primary")), SOON)
    assert took_s >= T


def test_a_standby_that_lost_its_record_changes_nothing(core: Product) -> None:
    for policy in PartitionPolicy:
        pair = a_pair_at_rest(core, partition_policy=policy)
        done_since = pair.diary.since()

        pair.world.kill_agent("backup")
        pair.world.lose_record("backup")
        pair.world.start_agent("backup")
        pair.running_s(SOON)

        assert done_since() == []
        pair.world.terminate("primary")
        pair.serves_within("backup", 2 * T)


def test_an_active_that_lost_its_record_goes_on(core: Product) -> None:
    pair = a_pair_at_rest(core)
    done_since = pair.diary.since()

    pair.world.kill_agent("primary")
    pair.world.lose_record("primary")
    pair.world.start_agent("primary")
    pair.running_s(3 * SOON)

    assert done_since() == []
    assert pair.phases()[0] is Phase.ACTIVE


def test_an_interrupted_takeover_is_taken_up_from_every_middle(core: Product) -> None:
    for policy in PartitionPolicy:
        for items in range(0, 24, 3):
            pair = a_pair_at_rest(core, partition_policy=policy)
            pair.world.terminate("primary", host_is_shutting_down=True)
            pair.world.crash_agent_after("backup", items)
            pair.running_s(2 * T)
            if pair.world.phase("backup") is None:
                pair.world.start_agent("backup")
            if pair.world.phase("primary") is None:
                pair.world.start_agent("primary")
            pair.world.agent("backup").crash_after_items = None

            pair.running_s(2 * SOON)
            assert pair.serves("backup") or pair.serves("primary"), pair.world.tale()
