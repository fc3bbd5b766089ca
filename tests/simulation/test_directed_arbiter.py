"""Three voters: what each loss changes, who waits for whom, and what binds across restarts."""

from itertools import permutations

import pytest

from failover_agent.core import bounds
from failover_agent.core.effects import ReplyToOperator, StartContainers
from failover_agent.core.events import CommandKind
from failover_agent.core.policy import LoneStart, OnStop
from failover_agent.core.state import Phase
from failover_agent.simulation.facts import Fact, Ordered
from failover_agent.simulation.product import Product
from failover_agent.simulation.world import World
from tests.simulation.trios import (
    DRIFT,
    INTERVAL,
    START,
    STARTUP_GRACE,
    STOP_AFTER,
    TAKEOVER,
    T,
    Trio,
    a_trio_at_rest,
    lease_policy,
)

pytestmark = pytest.mark.simulation

ONE_BEAT = 2 * INTERVAL + 2 * START + 2.0
"""A handover: asked, stopped, released, started."""


def alarms(world: World, host: str) -> set[str]:
    """The codes of the open alarms of an agent."""
    return set(world.agent(host).state.alarms)


# --- the loss of one voter ------------------------------------------------------------------------


def test_losing_the_arbiter_changes_nothing_and_raises_an_alarm_on_both_nodes(
    core: Product,
) -> None:
    for etcd in (False, True):
        trio = a_trio_at_rest(core, etcd=etcd)
        done_since = trio.diary.since()
        trio.world.lose_quorum() if etcd else trio.world.crash_witness()
        trio.must_go_on("primary", 3 * T)
        assert "redundancy_lost" in alarms(trio.world, "primary")
        assert "redundancy_lost" in alarms(trio.world, "backup")
        trio.world.recover_store() if etcd else trio.world.boot_witness()
        trio.must_go_on("primary", 2 * T)

        assert done_since() == []
        assert "redundancy_lost" not in alarms(trio.world, "primary")


def test_losing_the_standby_changes_nothing_and_raises_an_alarm(core: Product) -> None:
    for etcd in (False, True):
        trio = a_trio_at_rest(core, etcd=etcd)
        done_since = trio.diary.since()
        trio.world.crash_host("backup")
        trio.must_go_on("primary", 3 * T)
        assert "redundancy_lost" in alarms(trio.world, "primary")
        trio.world.boot("backup")
        trio.must_go_on("primary", 2 * T)
        assert done_since() == []


def test_without_the_arbiter_the_two_hand_over_to_each_other(core: Product) -> None:
    trio = a_trio_at_rest(core)
    trio.world.crash_witness()
    trio.running_s(2 * T)
    trio.world.terminate("primary", host_is_shutting_down=True)

    trio.serves_within("backup", ONE_BEAT)


def test_without_the_arbiter_nobody_takes_over_from_the_dead(core: Product) -> None:
    trio = a_trio_at_rest(core)
    trio.world.crash_witness()
    trio.running_s(2 * T)
    trio.world.crash_host("primary")
    trio.running_s(4 * T)
    assert not trio.world.runs("backup")
    assert "no_majority" in alarms(trio.world, "backup")

    trio.world.boot_witness()
    trio.serves_within("backup", TAKEOVER)


def test_two_of_three_lost_stop_the_service_in_time(core: Product) -> None:
    trio = a_trio_at_rest(core)
    trio.world.crash_witness()
    trio.running_s(2 * T)
    trio.world.crash_host("backup")
    trio.world.run_until(lambda: not trio.world.runs("primary"), T)

    trio.world.boot("backup")
    trio.somebody_serves_within(STARTUP_GRACE + 3 * T)


def test_a_crash_is_followed_by_a_takeover_after_t(core: Product) -> None:
    for etcd in (False, True):
        trio = a_trio_at_rest(core, etcd=etcd)
        trio.world.crash_host("primary")
        took_s = trio.serves_within("backup", TAKEOVER)
        assert took_s > T - INTERVAL


class FirstStart:
    """When the first start call on a host was made."""

    def __init__(self, world: World, host: str) -> None:
        self.at_s = 0.0
        self._world, self._host = world, host
        world.chronicle.watchers.append(self)

    def see(self, fact: Fact) -> None:
        match fact:
            case Ordered(host, StartContainers()) if host == self._host and not self.at_s:
                self.at_s = self._world.now_s
            case _:
                pass


def test_a_takeover_keeps_to_the_bound_that_check_prints(core: Product) -> None:
    measured = bounds.Measured(rtt_s=0.08, fsync_s=0.03, wake_s=0.02)
    for etcd in (False, True):
        bound_s = bounds.takeover_s(lease_policy(), measured, is_register=etcd)
        for seed in range(12):
            trio = a_trio_at_rest(core, etcd=etcd, seed=f"bound {seed}")
            trio.running_s(seed * INTERVAL / 12)
            first, struck_at_s = FirstStart(trio.world, "backup"), trio.world.now_s
            trio.world.crash_host("primary")
            trio.serves_within("backup", TAKEOVER + INTERVAL)

            assert first.at_s - struck_at_s <= bound_s


def test_an_isolated_active_stops_within_the_window_that_check_prints(core: Product) -> None:
    begins_s, ends_s = bounds.stop_window_s(lease_policy())
    for seed in range(12):
        trio = a_trio_at_rest(core, seed=f"window {seed}")
        trio.isolate("primary")
        stops_s = trio.phase_within("primary", Phase.DEMOTING, T)
        gone_s = stops_s + trio.gone_within("primary", T)
        trio.serves_within("backup", TAKEOVER)

        assert begins_s / (1 + DRIFT) - INTERVAL - 0.1 <= stops_s
        assert gone_s <= ends_s * (1 + DRIFT) + 0.1


def test_a_handover_needs_no_promise_to_run_out(core: Product) -> None:
    for etcd in (False, True):
        trio = a_trio_at_rest(core, etcd=etcd)
        trio.world.terminate("primary", host_is_shutting_down=True)
        trio.serves_within("backup", ONE_BEAT)
        trio.must_go_on("backup", 2 * T)


# --- what binds -----------------------------------------------------------------------------------


def test_an_answer_counts_from_when_its_question_left(core: Product) -> None:
    """H1: each answer of the witness comes 1.8 s late, and then none."""
    for etcd in (False, True):
        trio = a_trio_at_rest(core, etcd=etcd)
        trio.world.disturb(trio.arbiter, "primary", delay_s=(1.8, 1.8))
        trio.world.cut("primary", "backup")
        trio.running_s(T)
        trio.world.cut("primary", trio.arbiter, both_ways=False)
        trio.running_s(STOP_AFTER + 0.3)
        assert trio.phases()[0] is not Phase.ACTIVE

        trio.serves_within("backup", TAKEOVER)
        trio.heal_wires()
        trio.must_go_on("backup", 2 * T)


def test_a_witness_that_restarts_after_its_vote_gives_it_to_nobody_else(core: Product) -> None:
    """V3, V4: what it granted is on disk, and whom it does not name waits."""
    trio = a_trio_at_rest(core)
    trio.isolate("primary")
    trio.serves_within("backup", TAKEOVER)
    trio.isolate("backup")
    trio.restart_witness()
    trio.world.mend("primary", "witness")
    trio.running_s(STOP_AFTER - INTERVAL)
    assert not trio.world.runs("primary")

    trio.serves_within("primary", T + ONE_BEAT)
    trio.heal_wires()
    trio.must_go_on("primary", 2 * T)


def test_a_witness_that_dies_at_its_save_leaves_one_in_the_end(core: Product) -> None:
    for after in (False, True):
        trio = a_trio_at_rest(core)
        trio.world.crash_witness_at_save(after=after)
        trio.world.crash_host("primary")
        trio.running_s(2 * T)
        trio.world.start_witness()

        trio.serves_within("backup", TAKEOVER + T)


def test_a_witness_that_cannot_write_stops_no_running_service(core: Product) -> None:
    """V3: a renewal writes nothing."""
    trio = a_trio_at_rest(core)
    trio.world.crash_host("backup")
    trio.world.break_disk("witness")
    trio.must_go_on("primary", 3 * T)


def test_a_thawed_witness_has_promised_nothing_new(core: Product) -> None:
    """What it was asked while it was frozen it hears too late."""
    for frozen_s in (T / 2, 2 * T):
        trio = a_trio_at_rest(core)
        trio.world.cut("primary", "backup")
        trio.world.freeze_witness()
        trio.running_s(frozen_s)
        trio.world.thaw_witness()
        trio.running_s(2 * T)
        trio.heal_wires()
        trio.somebody_serves_within(STARTUP_GRACE + 2 * T)


def test_a_lease_that_has_ended_is_not_resumed(core: Product) -> None:
    """H6: the agent is back after its lease, and its guard was frozen, so that all still runs."""
    trio = a_trio_at_rest(core)
    trio.isolate("primary")
    trio.world.kill_agent("primary")
    trio.world.kill_guard("primary")
    trio.world.run_until(lambda: trio.world.serves("backup"), TAKEOVER)
    trio.heal_wires()
    trio.world.start_guard("primary")

    trio.serves_within("backup", 2.0)
    trio.must_go_on("backup", 2 * T)


def test_a_witness_recreated_with_an_empty_disk_changes_nothing(core: Product) -> None:
    trio = a_trio_at_rest(core)
    done_since = trio.diary.since()
    trio.restart_witness(empty=True)
    trio.must_go_on("primary", 2 * T)
    assert done_since() == []

    trio.world.crash_host("primary")
    trio.serves_within("backup", TAKEOVER)


def test_an_etcd_made_anew_changes_nothing(core: Product) -> None:
    trio = a_trio_at_rest(core, etcd=True)
    done_since = trio.diary.since()
    trio.world.empty_store()
    trio.must_go_on("primary", 2 * T)
    assert done_since() == []

    trio.world.crash_host("primary")
    trio.serves_within("backup", TAKEOVER)


def test_an_etcd_made_anew_waits_for_what_was_promised(core: Product) -> None:
    """The holder is away, its lease runs, and the register knows of nothing (V4)."""
    trio = a_trio_at_rest(core, etcd=True)
    trio.world.cut("primary", "backup")
    trio.running_s(2 * T)
    trio.world.cut("primary", "etcd")
    trio.world.empty_store()
    trio.running_s(STOP_AFTER - INTERVAL)
    assert trio.world.runs("primary")
    assert not trio.world.runs("backup")

    trio.serves_within("backup", TAKEOVER)


def test_two_that_take_the_register_at_once_are_told_apart(core: Product) -> None:
    """The wire between them is cut, so that only the register stands between the two."""
    for seed in range(8):
        trio = Trio(core, etcd=True, seed=f"at once {seed}", lone_start=LoneStart.START)
        trio.world.cut("primary", "backup")
        trio.world.slow_store(0.3)
        trio.boot_all()
        trio.running_s(2 * T)
        trio.world.recover_store()

        server = trio.somebody_serves_within(STARTUP_GRACE + 2 * T)
        trio.must_go_on(server, T)


def test_a_write_that_was_applied_and_never_answered_is_read_again(core: Product) -> None:
    """Answers of the register are lost on their way back, for a while."""
    trio = a_trio_at_rest(core, etcd=True)
    trio.world.crash_host("primary")
    trio.running_s(T - INTERVAL)
    trio.world.disturb("etcd", "backup", loss=0.5)
    trio.running_s(T)
    trio.heal_wires()

    trio.serves_within("backup", TAKEOVER + T)


# --- holds ----------------------------------------------------------------------------------------


def test_a_hold_is_kept_by_arbiter_and_peer_across_their_restarts(core: Product) -> None:
    for etcd in (False, True):
        trio = a_trio_at_rest(core, etcd=etcd, on_stop=OnStop.LEAVE)
        done_since = trio.diary.since()
        trio.world.terminate("primary")
        trio.running_s(2 * INTERVAL)
        assert trio.phases()[0] is None
        if not etcd:
            trio.restart_witness()
        trio.world.kill_agent("backup")
        trio.world.start_agent("backup")
        trio.running_s(STARTUP_GRACE + 4 * T)
        assert done_since() == []
        assert "held" in alarms(trio.world, "backup")

        trio.world.start_agent("primary")
        trio.running_s(2 * T)
        assert trio.phases() == (Phase.ACTIVE, Phase.STANDBY)
        assert done_since() == []


def test_a_hold_of_the_arbiter_alone_keeps_everybody_else_from_a_majority(core: Product) -> None:
    trio = a_trio_at_rest(core, on_stop=OnStop.LEAVE)
    trio.world.cut("primary", "backup")
    done_since = trio.diary.since()
    trio.world.terminate("primary")
    trio.running_s(4 * T)
    assert trio.phases()[0] is None
    assert done_since() == []

    trio.world.mend("primary", "backup")
    trio.world.crash_host("primary")
    trio.running_s(2 * T)
    assert not trio.world.runs("backup")
    answers = Answers(trio.world)
    trio.world.command("backup", CommandKind.TAKEOVER)
    trio.serves_within("backup", T)
    assert answers.accepted == [True]


def test_a_hold_of_the_arbiter_alone_outlives_its_record_in_whoever_heard_of_it(
    core: Product,
) -> None:
    trio = a_trio_at_rest(core, on_stop=OnStop.LEAVE)
    trio.world.cut("primary", "backup")
    trio.world.terminate("primary")
    trio.running_s(2 * T)
    done_since = trio.diary.since()
    trio.world.kill_witness()
    trio.world.empty_witness()
    trio.world.start_witness()
    trio.running_s(6 * T)
    assert done_since() == []

    trio.world.start_agent("primary")
    trio.running_s(2 * T)
    assert trio.phases() == (Phase.ACTIVE, Phase.STANDBY)
    assert done_since() == []
    trio.world.crash_host("primary")
    trio.serves_within("backup", TAKEOVER + T)


class Answers:
    """What operators were answered."""

    def __init__(self, world: World) -> None:
        self.accepted: list[bool] = []
        world.chronicle.watchers.append(self)

    def see(self, fact: Fact) -> None:
        match fact:
            case Ordered(_, ReplyToOperator(accepted=accepted)):
                self.accepted.append(accepted)
            case _:
                pass


def test_a_takeover_is_no_vote_beside_an_arbiter(core: Product) -> None:
    trio = a_trio_at_rest(core)
    trio.world.cut("primary", "backup")
    trio.running_s(2 * T)
    answers, done_since = Answers(trio.world), trio.diary.since()
    trio.world.command("backup", CommandKind.TAKEOVER)
    trio.running_s(T)
    trio.world.cut("backup", "witness")
    trio.running_s(2 * T)
    trio.world.command("backup", CommandKind.TAKEOVER)
    trio.running_s(T)

    assert answers.accepted == [False, False]
    assert done_since() == []


def test_one_told_to_leave_that_nobody_holds_for_stops_its_containers(core: Product) -> None:
    trio = a_trio_at_rest(core, on_stop=OnStop.LEAVE)
    trio.isolate("primary")
    trio.world.terminate("primary")
    trio.world.run_until(lambda: not trio.world.runs("primary"), T)

    trio.serves_within("backup", TAKEOVER)


# --- boots ----------------------------------------------------------------------------------------


def test_a_general_power_cut_ends_with_one_whatever_comes_back_first(core: Product) -> None:
    for pause_s in (0.0, 1.0, T + 1.0):
        for order in permutations(("primary", "backup", "witness")):
            trio = a_trio_at_rest(core)
            trio.world.crash_host("primary")
            trio.world.crash_host("backup")
            trio.world.crash_witness()
            trio.running_s(2.0)
            for name in order:
                trio.world.boot_witness() if name == "witness" else trio.world.boot(name)
                trio.running_s(pause_s)

            server = trio.somebody_serves_within(STARTUP_GRACE + 3 * T)
            trio.must_go_on(server, 2 * T)


def test_one_node_and_the_arbiter_start_without_the_other(core: Product) -> None:
    for alone in ("primary", "backup"):
        trio = Trio(core, lone_start=LoneStart.START)
        trio.world.boot_witness()
        trio.world.boot(alone)

        trio.serves_within(alone, STARTUP_GRACE + 2 * T)


def test_a_backup_whose_pair_was_led_before_starts_with_the_arbiter_alone(core: Product) -> None:
    trio = a_trio_at_rest(core)
    for host in ("backup", "primary"):
        trio.world.crash_host(host)
    trio.running_s(2 * T)
    trio.world.boot("backup")

    trio.serves_within("backup", STARTUP_GRACE + 2 * T)


def test_a_new_backup_starts_nothing_before_it_has_heard_its_primary(core: Product) -> None:
    """Which may run the service already, and get its agent later."""
    trio = Trio(core)
    trio.world.boot_witness()
    trio.world.boot("backup")
    trio.running_s(3 * STARTUP_GRACE)
    assert not trio.serves("backup")

    trio.world.boot("primary")
    trio.serves_within("primary", STARTUP_GRACE + 2 * T)


def test_two_nodes_start_without_the_arbiter(core: Product) -> None:
    trio = Trio(core)
    trio.world.boot("primary")
    trio.world.boot("backup")

    trio.somebody_serves_within(STARTUP_GRACE + 2 * T)


def test_restart_always_put_back_and_a_reboot_are_stopped_at_once(core: Product) -> None:
    trio = a_trio_at_rest(core)
    trio.world.kill_agent("primary")
    for container in trio.world.hosts["primary"].engine.containers.values():
        container.restart_policy = "always"
    trio.world.crash_host("primary")
    trio.serves_within("backup", TAKEOVER)
    trio.world.boot("primary")

    trio.serves_within("backup", 0.5)
    trio.must_go_on("backup", 2 * T)
