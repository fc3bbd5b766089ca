"""Containers, engines and hosts that fail: repair, hand over, go back, hold."""

import pytest

from failover_agent.core.effects import StopContainers
from failover_agent.core.events import CommandKind, VoteAnswered
from failover_agent.core.messages import VoteKind
from failover_agent.core.policy import PartitionPolicy
from failover_agent.core.state import Phase
from failover_agent.simulation.engine import Mode
from failover_agent.simulation.facts import Fact, Ordered, Saw
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

DOWNTIME = 2 * (START + STOP) + 2 * INTERVAL + 1
"""From the verdict to the service on the other host."""


def test_a_host_crash_is_followed_by_a_takeover_after_t(core: Product) -> None:
    pair = a_pair_at_rest(core)
    pair.world.crash_host("primary")

    took_s = pair.serves_within("backup", 1.02 * T + 2 * START + 1)
    assert took_s > T - INTERVAL


def test_a_dead_container_is_repaired_where_it_was(core: Product) -> None:
    pair = a_pair_at_rest(core)
    done_since = pair.diary.since()

    pair.world.kill_container("primary", "web")
    pair.serves_within("primary", 2.5)
    pair.running_s(2 * RESTART_GRACE)

    assert done_since() == [("-", "primary", "web"), ("+", "primary", "web")]


class Order:
    """In which order a handover goes: prepared, stop, then the containers."""

    def __init__(self, world: World) -> None:
        self.words: list[str] = []
        world.chronicle.watchers.append(self)

    def see(self, fact: Fact) -> None:
        match fact:
            case Saw(_, VoteAnswered(answer=answer)) if answer.kind is VoteKind.PREPARE:
                self.words.append(f"prepared {answer.vote.granted}")
            case Ordered(_, StopContainers(names=names)):
                self.words.append(f"stop {' '.join(names)}")
            case _:
                pass


def test_a_container_beyond_repair_is_followed_by_a_handover_in_order(core: Product) -> None:
    pair = a_pair_at_rest(core)
    order, done_since = Order(pair.world), pair.diary.since()

    pair.world.break_container("primary", "web")
    took_s = pair.serves_within("backup", RESTART_GRACE + DOWNTIME)

    assert took_s > RESTART_GRACE
    assert order.words == ["prepared True", "stop web db"]
    assert done_since() == [
        ("-", "primary", "web"),
        ("-", "primary", "db"),
        ("+", "backup", "db"),
        ("+", "backup", "web"),
    ]


def test_right_after_a_promotion_the_startup_grace_comes_first(core: Product) -> None:
    pair = Pair(core)
    pair.world.boot("primary")
    pair.world.boot("backup")
    pair.serves_within("primary", 2 * STARTUP_GRACE + 3 * T)
    pair.world.break_container("primary", "web")
    pair.running_s(RESTART_GRACE + STARTUP_GRACE - 3.0)
    pair.world.allow_start("primary", "web")
    pair.running_s(2 * RESTART_GRACE)

    assert pair.serves("primary")
    assert ("+", "backup", "db") not in pair.diary.lines


def test_a_container_that_crashes_again_and_again_is_down(core: Product) -> None:
    pair = a_pair_at_rest(core)
    pair.world.hosts["primary"].engine.containers["web"].lives_for_s = 1.5
    pair.world.kill_container("primary", "web")

    pair.serves_within("backup", RESTART_GRACE + DOWNTIME + 3.0)


def test_a_container_that_comes_back_within_the_grace_moves_nothing(core: Product) -> None:
    pair = a_pair_at_rest(core)
    pair.world.break_container("primary", "web")
    pair.running_s(RESTART_GRACE - 3.0)
    pair.world.allow_start("primary", "web")
    pair.running_s(2 * RESTART_GRACE)

    assert pair.serves("primary")
    assert ("+", "backup", "db") not in pair.diary.lines


def test_paused_unhealthy_and_removed_containers_are_down(core: Product) -> None:
    for befall in (World.pause_container, World.sicken_container, World.remove_container):
        pair = a_pair_at_rest(core)
        befall(pair.world, "primary", "db")

        pair.serves_within("backup", RESTART_GRACE + DOWNTIME)


def test_nothing_is_stopped_while_the_peer_is_not_ready(core: Product) -> None:
    pair = a_pair_at_rest(core)
    pair.world.remove_container("backup", "db")
    pair.running_s(2 * INTERVAL)

    pair.world.break_container("primary", "web")
    pair.running_s(5 * RESTART_GRACE)
    assert pair.world.runs("primary") == ("db",)
    assert not pair.world.runs("backup")

    pair.world.recreate_container("backup", "db")
    pair.serves_within("backup", DOWNTIME + INTERVAL + STARTUP_GRACE)


def test_nothing_is_stopped_while_the_peer_is_silent(core: Product) -> None:
    pair = a_pair_at_rest(core)
    pair.world.crash_host("backup")
    pair.world.break_container("primary", "web")
    pair.running_s(5 * RESTART_GRACE)

    assert pair.world.runs("primary") == ("db",)
    pair.world.allow_start("primary", "web")
    pair.serves_within("primary", RESTART_GRACE)


def test_a_peer_with_another_image_gets_no_handover_but_takes_over_from_the_dead(
    core: Product,
) -> None:
    pair = a_pair_at_rest(core)
    pair.world.remove_container("backup", "db")
    pair.world.hosts["backup"].engine.recreate("db", image="image-2")
    pair.running_s(2 * INTERVAL)
    pair.world.break_container("primary", "web")
    pair.running_s(3 * RESTART_GRACE)
    assert pair.world.runs("primary") == ("db",)

    pair.world.crash_host("primary")
    pair.serves_within("backup", 2 * T)


def test_a_start_that_fails_on_the_peer_goes_back(core: Product) -> None:
    pair = a_pair_at_rest(core)
    pair.world.forbid_start("backup", "web")
    pair.world.break_container("primary", "web")
    pair.world.run_until(lambda: not pair.world.runs("primary"), RESTART_GRACE + DOWNTIME)
    pair.world.allow_start("primary", "web")

    pair.serves_within("primary", RESTART_GRACE + 3 * DOWNTIME + T)
    pair.running_s(3 * RESTART_GRACE)
    assert pair.serves("primary")


def test_broken_on_both_it_holds_and_keeps_running_what_can_run(core: Product) -> None:
    pair = a_pair_at_rest(core)
    pair.world.forbid_start("backup", "web")
    pair.world.break_container("primary", "web")
    pair.running_s(10 * RESTART_GRACE)
    done_since = pair.diary.since()
    pair.running_s(10 * RESTART_GRACE)

    (holder,) = (name for name in pair.world.hosts if pair.world.runs(name))
    assert pair.world.runs(holder) == ("db",)
    assert done_since() == []
    assert pair.diary.lines.count(("+", "backup", "db")) == 1
    pair.world.allow_start(holder, "web")
    pair.serves_within(holder, 45)


def test_after_max_failovers_the_pair_holds_until_resume(core: Product) -> None:
    pair = a_pair_at_rest(core, max_failovers=2, failover_window_s=3600.0)
    for _ in range(2):
        (active,) = (name for name in pair.world.hosts if pair.world.serves(name))
        (standby,) = (name for name in pair.world.hosts if name != active)
        pair.world.pause_container(active, "web")
        pair.serves_within(standby, RESTART_GRACE + STARTUP_GRACE + DOWNTIME)
        pair.phase_within(standby, Phase.ACTIVE, DOWNTIME)  # else its start fails, and it moves on
        pair.world.unpause_container(active, "web")
    pair.running_s(2 * T)

    pair.world.pause_container("primary", "web")
    pair.running_s(5 * RESTART_GRACE)
    assert pair.world.runs("primary") == ("db", "web")

    pair.world.command("primary", CommandKind.RESUME)
    pair.world.command("backup", CommandKind.RESUME)
    pair.serves_within("backup", RESTART_GRACE + DOWNTIME)


def test_an_engine_that_does_not_answer_says_nothing_about_its_containers(core: Product) -> None:
    for mode in (Mode.HANGS, Mode.REFUSES):
        for visible in (True, False):
            pair = a_pair_at_rest(core)
            done_since = pair.diary.since()
            pair.world.lose_engine("primary", mode, visible=visible)
            pair.running_s(3 * RESTART_GRACE)
            assert pair.phases() == (Phase.ACTIVE, Phase.STANDBY)

            pair.world.recover_engine("primary")
            pair.running_s(3 * RESTART_GRACE)
            assert done_since() == []


def test_an_engine_that_is_gone_with_its_containers_is_followed_by_a_handover(
    core: Product,
) -> None:
    pair = a_pair_at_rest(core)
    pair.world.lose_engine("primary", Mode.REFUSES, processes_die=True)

    took_s = pair.serves_within("backup", RESTART_GRACE + DOWNTIME)
    assert took_s > RESTART_GRACE


def test_a_stray_on_the_standby_is_stopped(core: Product) -> None:
    pair = a_pair_at_rest(core)
    pair.world.run_by_hand("backup", "web")

    pair.serves_within("primary", STOP + 1)
    assert pair.world.runs("primary") == ("db", "web")


def test_a_standby_with_a_full_disk_takes_nothing_over_until_it_can_write(core: Product) -> None:
    pair = a_pair_at_rest(core)
    pair.world.break_disk("backup")
    pair.world.crash_host("primary")
    pair.running_s(3 * T)
    # A save that was reported as failed may have reached the disk, but nothing was started on it.
    assert not pair.world.runs("backup")

    pair.world.mend_disk("backup")
    pair.serves_within("backup", T)


def test_a_full_disk_stops_no_running_service(core: Product) -> None:
    for policy in PartitionPolicy:
        pair = a_pair_at_rest(core, partition_policy=policy)
        done_since = pair.diary.since()
        pair.world.break_disk("primary")
        pair.world.kill_agent("backup")
        pair.running_s(2 * T)
        pair.world.start_agent("backup")
        pair.running_s(2 * T)
        pair.world.mend_disk("primary")
        pair.running_s(2 * T)

        assert done_since() == []
        assert pair.phases() == (Phase.ACTIVE, Phase.STANDBY)


def test_a_handover_into_a_full_disk_is_finished_once_it_can_be_written(core: Product) -> None:
    pair = a_pair_at_rest(core)
    pair.world.break_container("primary", "web")
    pair.phase_within("primary", Phase.DEMOTING, 3 * RESTART_GRACE)
    pair.world.break_disk("primary")
    pair.running_s(2 * T)
    pair.world.mend_disk("primary")

    pair.serves_within("backup", T + DOWNTIME)


def test_one_that_could_start_nothing_starts_nothing_beside_what_runs_on_the_other(
    core: Product,
) -> None:
    pair = a_pair_at_rest(core)
    pair.world.forbid_start("backup", "db")
    pair.world.kill_agent("primary")
    pair.world.lose_record("primary")
    pair.phase_within("backup", Phase.FAILED, 2 * T)
    pair.world.start_agent("primary")
    pair.running_s(2 * T)
    assert pair.world.runs("primary") == ("db", "web")

    pair.world.allow_start("backup", "db")
    pair.running_s(3 * RESTART_GRACE)
    assert pair.world.serves("primary") != pair.world.serves("backup")
