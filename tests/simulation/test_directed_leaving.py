"""People: SIGTERM, shutting down, takeover, and two that were set up alike."""

import pytest

from failover_agent.core.effects import ReplyToOperator, SendHeartbeat
from failover_agent.core.events import CommandKind
from failover_agent.core.policy import OnStop, PartitionPolicy, Role
from failover_agent.core.state import Phase
from failover_agent.simulation.facts import Fact, Ordered
from failover_agent.simulation.product import Product
from failover_agent.simulation.world import World
from tests.simulation.pairs import INTERVAL, STARTUP_GRACE, Pair, T, a_pair_at_rest

pytestmark = pytest.mark.simulation

CONSISTENCY = PartitionPolicy.CONSISTENCY


def alarms(world: World, host: str) -> set[str]:
    """The codes of the open alarms of an agent."""
    return set(world.agent(host).state.alarms)


def test_sigterm_hands_over_and_ends_the_agent(core: Product) -> None:
    for policy in PartitionPolicy:
        pair = a_pair_at_rest(core, partition_policy=policy)
        pair.world.terminate("primary")

        pair.serves_within("backup", 2 * INTERVAL + 3)
        pair.running_s(T)
        assert pair.phases() == (None, Phase.ACTIVE)


def test_sigterm_with_leave_moves_nothing_for_three_t(core: Product) -> None:
    for policy in PartitionPolicy:
        pair = a_pair_at_rest(core, partition_policy=policy, on_stop=OnStop.LEAVE)
        done_since = pair.diary.since()
        pair.world.terminate("primary")
        pair.running_s(INTERVAL)
        assert pair.phases() == (None, Phase.STANDBY)
        pair.running_s(3 * T)

        assert done_since() == []
        assert alarms(pair.world, "backup")
        pair.world.start_agent("primary")
        pair.running_s(STARTUP_GRACE + 2 * T)
        assert pair.phases() == (Phase.ACTIVE, Phase.STANDBY)
        assert done_since() == []


def test_an_agent_leaves_only_once_the_hold_is_confirmed(core: Product) -> None:
    pair = a_pair_at_rest(core, on_stop=OnStop.LEAVE)
    done_since = pair.diary.since()
    pair.world.disturb("backup", "primary", delay_s=(0.4, 0.4))
    pair.running_s(2 * INTERVAL)
    beats = Beats(pair.world)
    pair.world.run_until(lambda: beats.said > 0, 2 * INTERVAL)
    # The answer to that beat is under way; the first one that asks for a hold is lost.
    pair.running_s(0.1)
    pair.world.cut("primary", "backup", both_ways=False)
    pair.world.terminate("primary")
    pair.running_s(0.7)
    pair.world.mend("primary", "backup")
    pair.running_s(4 * T)

    assert done_since() == []
    assert pair.phases() == (None, Phase.STANDBY)


class Beats:
    """How many beats the primary has sent."""

    def __init__(self, world: World) -> None:
        self.said = 0
        world.chronicle.watchers.append(self)

    def see(self, fact: Fact) -> None:
        match fact:
            case Ordered("primary", SendHeartbeat()):
                self.said += 1
            case _:
                pass


def test_a_hold_outlives_the_agent_that_promised_it(core: Product) -> None:
    pair = a_pair_at_rest(core, on_stop=OnStop.LEAVE)
    done_since = pair.diary.since()
    pair.world.terminate("primary")
    pair.running_s(INTERVAL)
    pair.world.kill_agent("backup")
    pair.world.start_agent("backup")
    pair.running_s(STARTUP_GRACE + 3 * T)

    assert done_since() == []


def test_a_hold_ends_when_the_one_that_asked_for_it_is_back(core: Product) -> None:
    pair = a_pair_at_rest(core, on_stop=OnStop.LEAVE)
    pair.world.terminate("primary")
    pair.running_s(2 * T)
    pair.world.start_agent("primary")
    pair.running_s(2 * T)
    pair.world.crash_host("primary")

    pair.serves_within("backup", 2 * T)


def test_a_hold_ends_by_the_operators_takeover(core: Product) -> None:
    pair = a_pair_at_rest(core, on_stop=OnStop.LEAVE)
    pair.world.terminate("primary")
    pair.running_s(2 * T)
    pair.world.crash_host("primary")
    pair.running_s(2 * T)
    assert not pair.world.runs("backup")

    pair.world.command("backup", CommandKind.TAKEOVER)
    pair.serves_within("backup", T)


def test_a_hold_for_a_lost_record_ends_by_the_operators_word(core: Product) -> None:
    pair = a_pair_at_rest(core, on_stop=OnStop.LEAVE)
    pair.world.terminate("primary")
    pair.running_s(2 * T)
    pair.world.lose_record("primary")
    pair.world.start_agent("primary")
    pair.running_s(STARTUP_GRACE + 3 * T)
    done_since = pair.diary.since()
    pair.world.command("primary", CommandKind.TAKEOVER)
    pair.running_s(2 * T)

    assert pair.phases() == (Phase.ACTIVE, Phase.STANDBY)
    assert done_since() == []


def test_sigterm_without_a_ready_peer_leaves_the_containers_running(core: Product) -> None:
    pair = a_pair_at_rest(core)
    pair.world.remove_container("backup", "db")
    pair.running_s(2 * INTERVAL)
    done_since = pair.diary.since()
    pair.world.terminate("primary")
    pair.running_s(3 * T)

    assert done_since() == []
    assert pair.phases() == (None, Phase.STANDBY)


def test_sigterm_without_any_peer_leaves_the_containers_running_and_ends(core: Product) -> None:
    pair = a_pair_at_rest(core)
    pair.world.crash_host("backup")
    done_since = pair.diary.since()
    pair.world.terminate("primary")
    pair.running_s(2 * T)

    assert done_since() == []
    assert pair.phases() == (None, None)


def test_sigterm_on_the_standby_touches_nothing(core: Product) -> None:
    pair = a_pair_at_rest(core)
    done_since = pair.diary.since()
    pair.world.terminate("backup")
    pair.running_s(2 * T)

    assert done_since() == []
    assert pair.phases() == (Phase.ACTIVE, None)


def test_a_host_that_shuts_down_hands_over_whatever_on_stop_says(core: Product) -> None:
    pair = a_pair_at_rest(core, on_stop=OnStop.LEAVE)
    pair.world.terminate("primary", host_is_shutting_down=True)

    pair.serves_within("backup", 2 * INTERVAL + 3)


def test_a_takeover_is_the_operators_word_that_the_other_is_off(core: Product) -> None:
    pair = a_pair_at_rest(core, partition_policy=CONSISTENCY)
    pair.world.crash_host("primary")
    pair.running_s(2 * T)
    pair.world.command("backup", CommandKind.TAKEOVER)
    pair.serves_within("backup", T)

    pair.world.boot("primary")
    pair.running_s(STARTUP_GRACE + 3 * T)
    assert pair.serves("backup")


def test_a_takeover_is_refused_while_the_other_answers(core: Product) -> None:
    pair = a_pair_at_rest(core)
    done_since = pair.diary.since()
    answers = Answers(pair.world)
    pair.world.command("backup", CommandKind.TAKEOVER)
    pair.running_s(2 * T)

    assert answers.accepted == [False]
    assert done_since() == []


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


def test_a_takeover_from_one_that_runs_after_all_is_settled_at_first_contact(
    core: Product,
) -> None:
    pair = a_pair_at_rest(core, partition_policy=CONSISTENCY)
    pair.world.cut("primary", "backup")
    pair.running_s(2 * T)
    pair.world.command("backup", CommandKind.TAKEOVER)
    pair.running_s(T)
    assert pair.world.serves("backup")

    pair.world.mend("primary", "backup")
    pair.serves_within("backup", INTERVAL + 2)


def test_both_nodes_set_up_as_primary_alarm_and_one_is_active(core: Product) -> None:
    pair = Pair(core, backup={"role": Role.PRIMARY})
    pair.world.hosts["primary"].endpoints = {Role.BACKUP: "backup"}
    pair.world.hosts["backup"].endpoints = {Role.BACKUP: "primary"}
    pair.world.boot("primary")
    pair.world.boot("backup")
    pair.running_s(3 * STARTUP_GRACE + 3 * T)

    assert pair.serves("primary") != pair.serves("backup")
    assert alarms(pair.world, "primary")
    assert alarms(pair.world, "backup")


def test_an_endpoint_that_points_to_itself_is_an_alarm_and_the_other_serves(
    core: Product,
) -> None:
    pair = Pair(core)
    pair.world.hosts["backup"].endpoints = {Role.PRIMARY: "backup", Role.BACKUP: "backup"}
    pair.world.boot("primary")
    pair.world.boot("backup")
    pair.running_s(3 * STARTUP_GRACE + 3 * T)

    assert pair.serves("primary")
    assert alarms(pair.world, "backup")
