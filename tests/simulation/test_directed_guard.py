"""Guard and agent killed and frozen, alone and together: who stops what, and when (G1-G3)."""

from collections.abc import Callable

import pytest

from failover_agent.core.effects import ArmGuard, DisarmGuard, StartContainers
from failover_agent.core.events import ContainersStopped, GuardArmed
from failover_agent.core.state import Phase
from failover_agent.simulation.engine import Mode
from failover_agent.simulation.facts import Ended, Fact, Ordered, Saw, Started
from failover_agent.simulation.product import Product
from failover_agent.simulation.world import World
from tests.simulation.trios import (
    DRIFT,
    INTERVAL,
    KILL_BUDGET,
    START,
    STOP_AFTER,
    STOP_BUDGET,
    TAKEOVER,
    T,
    Trio,
    a_trio_at_rest,
)

pytestmark = pytest.mark.simulation

SHORT = T * (1 - DRIFT) - INTERVAL - KILL_BUDGET - 0.1
"""An absence of an agent that stops nothing (S2), with a moment for it to begin and be answered."""


class Orders:
    """What the agent of a host ordered and heard, by the names of these types."""

    def __init__(self, world: World, host: str, *kinds: type) -> None:
        self.words: list[str] = []
        self._host, self._kinds = host, kinds
        world.chronicle.watchers.append(self)

    def see(self, fact: Fact) -> None:
        match fact:
            case Ordered(host, word) | Saw(host, word) if host == self._host:
                if isinstance(word, self._kinds):
                    self.words.append(type(word).__name__)
            case _:
                pass


class Overlap:
    """For how long containers of ours ran on both hosts, in all."""

    def __init__(self, world: World) -> None:
        self.lasted_s = 0.0
        self._world, self._since_s = world, 0.0
        world.chronicle.watchers.append(self)

    def see(self, fact: Fact) -> None:
        if not isinstance(fact, Started | Ended):
            return
        both = all(self._world.runs_by_us(name) for name in self._world.hosts)
        if both and not self._since_s:
            self._since_s = self._world.now_s
        elif not both and self._since_s:
            self.lasted_s += self._world.now_s - self._since_s
            self._since_s = 0.0


# --- the agent alone ------------------------------------------------------------------------------


def test_an_agent_killed_or_frozen_for_less_than_its_lease_changes_nothing(core: Product) -> None:
    for etcd in (False, True):
        for absent, back in (
            (World.kill_agent, World.start_agent),
            (World.freeze, World.thaw),
        ):
            trio = a_trio_at_rest(core, etcd=etcd)
            done_since = trio.diary.since()
            absent(trio.world, "primary")
            trio.running_s(SHORT)
            back(trio.world, "primary")
            trio.must_go_on("primary", 3 * T)
            assert done_since() == []


def test_an_agent_killed_for_a_moment_changes_nothing_while_its_peer_is_off(
    core: Product,
) -> None:
    """H6, G3: nobody says that nobody leads, so only the lease keeps the containers running."""
    trio = a_trio_at_rest(core)
    trio.world.crash_host("backup")
    trio.running_s(T)
    done_since = trio.diary.since()
    trio.world.kill_agent("primary")
    trio.running_s(SHORT)
    trio.world.start_agent("primary")
    trio.must_go_on("primary", 3 * T)

    assert done_since() == []


def test_one_that_is_thawed_late_repairs_nothing_before_it_has_renewed(core: Product) -> None:
    """H4: its lease is not over yet, but the time to stop has come."""
    trio = a_trio_at_rest(core)
    trio.world.kill_container("primary", "web")
    trio.running_s(0.3)
    trio.world.freeze("primary")
    trio.running_s(T * (1 - DRIFT) - STOP_BUDGET + 0.05)
    trio.world.thaw("primary")

    trio.serves_within("primary", 3.0)
    trio.must_go_on("primary", 2 * T)


def test_an_agent_killed_for_long_has_its_containers_killed_by_its_guard(core: Product) -> None:
    trio = a_trio_at_rest(core)
    trio.world.kill_agent("primary")
    trio.world.run_until(lambda: not trio.world.runs("primary"), T - KILL_BUDGET + 0.2)
    trio.serves_within("backup", TAKEOVER)
    trio.world.start_agent("primary")

    trio.must_go_on("backup", 3 * T)


def test_a_frozen_agent_is_killed_and_its_successor_lets_the_other_host_go_first(
    core: Product,
) -> None:
    """One that spins is no different: it takes no event, and says nothing.

    Its successor would otherwise have the service back before the other host may ask, however often
    the agents there hang: an outage every T, and a ready standby that never gets a turn.
    """
    for etcd in (False, True):
        trio = a_trio_at_rest(core, etcd=etcd)
        frozen = trio.world.agent("primary")
        trio.world.freeze("primary")
        trio.gone_within("primary", T - KILL_BUDGET + 0.2)
        assert frozen.is_dead

        trio.serves_within("backup", KILL_BUDGET + 2 * INTERVAL + 2 * START + 1.0)
        trio.must_go_on("backup", 3 * T)


def test_the_other_host_goes_first_though_it_does_not_reach_the_arbiter(core: Product) -> None:
    """It has the vote of the successor at once."""
    for etcd in (False, True):
        trio = a_trio_at_rest(core, etcd=etcd)
        trio.world.cut("backup", trio.arbiter)
        trio.world.freeze("primary")
        trio.gone_within("primary", T - KILL_BUDGET + 0.2)

        trio.serves_within("backup", KILL_BUDGET + 2 * INTERVAL + 2 * START + 1.0)
        trio.must_go_on("backup", 3 * T)


def test_the_other_host_goes_first_though_the_arbiter_is_gone_and_the_successors_die(
    core: Product,
) -> None:
    trio = a_trio_at_rest(core)
    trio.world.crash_witness()
    trio.world.freeze("primary")
    trio.gone_within("primary", T - KILL_BUDGET + 0.2)
    trio.serves_within("backup", KILL_BUDGET + 2 * INTERVAL + 2 * START + 1.0)

    for _ in range(5):
        trio.must_go_on("backup", 0.8 * T)
        trio.world.kill_agent("primary")
        trio.world.start_agent("primary")
    trio.must_go_on("backup", 3 * T)


def test_an_agent_that_hangs_is_succeeded_on_its_host_where_the_other_is_off(core: Product) -> None:
    trio = a_trio_at_rest(core)
    trio.world.crash_host("backup")
    trio.running_s(2 * T)
    trio.world.freeze("primary")
    trio.gone_within("primary", T - KILL_BUDGET + 0.2)

    trio.serves_within("primary", TAKEOVER)
    trio.must_go_on("primary", 3 * T)


def test_the_agent_stops_its_containers_before_the_guard_has_to(core: Product) -> None:
    """H3: stopped at stop_budget, in time for those that stop quickly."""
    trio = a_trio_at_rest(core)
    living = trio.world.agent("primary")
    trio.isolate("primary")
    took_s = trio.world.run_until(lambda: not trio.world.runs("primary"), STOP_AFTER + 0.6)

    assert took_s > STOP_AFTER - INTERVAL
    trio.running_s(KILL_BUDGET)
    assert not living.is_dead


def test_a_container_that_does_not_stop_is_killed_before_the_lease_ends(core: Product) -> None:
    trio = a_trio_at_rest(core)
    trio.take(START, 8.0)
    trio.isolate("primary")
    trio.world.run_until(lambda: not trio.world.runs("primary"), T * (1 - DRIFT))

    trio.serves_within("backup", TAKEOVER)


def test_a_kill_overtakes_a_stop_that_takes_its_time(core: Product) -> None:
    trio = a_trio_at_rest(core)
    trio.take(START, 8.0)
    trio.world.terminate("primary")
    trio.phase_within("primary", Phase.DEMOTING, 2 * INTERVAL)
    trio.isolate("primary")
    trio.world.run_until(lambda: not trio.world.runs("primary"), T * (1 - DRIFT))


def test_an_engine_that_hangs_keeps_no_container_alive_beyond_the_lease(core: Product) -> None:
    for visible in (True, False):
        trio = a_trio_at_rest(core)
        trio.world.lose_engine("primary", Mode.HANGS, visible=visible)
        trio.isolate("primary")

        trio.serves_within("backup", TAKEOVER)
        trio.world.recover_engine("primary")
        trio.heal_wires()
        trio.must_go_on("backup", 3 * T)


# --- the guard alone ------------------------------------------------------------------------------


def test_a_guard_killed_alone_is_replaced_by_its_agent_and_nothing_is_touched(
    core: Product,
) -> None:
    trio = a_trio_at_rest(core)
    done_since = trio.diary.since()
    trio.world.kill_guard("primary")
    trio.must_go_on("primary", 3 * T)
    assert done_since() == []

    trio.world.freeze("primary")
    trio.somebody_serves_within(TAKEOVER)


def test_a_frozen_guard_stops_nothing_and_hears_all_of_it_when_thawed(core: Product) -> None:
    trio = a_trio_at_rest(core)
    done_since = trio.diary.since()
    trio.world.freeze_guard("primary")
    trio.must_go_on("primary", 3 * T)
    trio.world.thaw_guard("primary")
    trio.must_go_on("primary", 2 * T)

    assert done_since() == []


def test_without_a_living_guard_the_agent_stops_in_time_by_itself(core: Product) -> None:
    trio = a_trio_at_rest(core)
    trio.take(START, 8.0)
    trio.world.freeze_guard("primary")
    trio.isolate("primary")

    trio.serves_within("backup", TAKEOVER)


def test_a_polite_stop_is_overtaken_without_a_guard_too(core: Product) -> None:
    trio = a_trio_at_rest(core)
    trio.take(START, 8.0)
    trio.world.freeze_guard("primary")
    trio.world.terminate("primary")
    trio.phase_within("primary", Phase.DEMOTING, 2 * INTERVAL)
    trio.isolate("primary")

    trio.serves_within("backup", TAKEOVER)


def test_a_guard_killed_while_the_agent_is_frozen_is_replaced_by_its_supervisor(
    core: Product,
) -> None:
    trio = a_trio_at_rest(core)
    frozen = trio.world.agent("primary")
    trio.world.freeze("primary")
    trio.world.kill_guard("primary", supervisor_s=0.1)
    trio.must_go_on("primary", 3 * T)

    assert frozen.is_dead


# --- both together --------------------------------------------------------------------------------


def killed(trio: Trio, absent_s: float) -> None:
    """SIGKILL to both; a supervisor starts them again."""
    trio.world.kill_agent("primary")
    trio.world.kill_guard("primary", supervisor_s=absent_s)


def frozen(trio: Trio, absent_s: float) -> None:
    """SIGSTOP to both; the guard is thawed first."""
    trio.world.freeze("primary")
    trio.world.freeze_guard("primary")
    trio.world.scheduler.after(absent_s, lambda: trio.world.thaw_guard("primary"))
    trio.world.scheduler.after(absent_s + 0.1, lambda: thaw_if_there(trio.world))


def frozen_agent_first(trio: Trio, absent_s: float) -> None:
    """SIGSTOP to both; the agent is thawed first."""
    trio.world.freeze("primary")
    trio.world.freeze_guard("primary")
    trio.world.scheduler.after(absent_s, lambda: thaw_if_there(trio.world))
    trio.world.scheduler.after(absent_s + 0.1, lambda: trio.world.thaw_guard("primary"))


def thaw_if_there(world: World) -> None:
    """SIGCONT, unless the guard was faster."""
    agent = world.hosts["primary"].agent
    if agent is not None and agent.is_frozen:
        world.thaw("primary")


TOGETHER: tuple[Callable[[Trio, float], None], ...] = (killed, frozen, frozen_agent_first)


def test_both_absent_for_a_moment_change_nothing(core: Product) -> None:
    for befall in TOGETHER:
        trio = a_trio_at_rest(core)
        done_since = trio.diary.since()
        befall(trio, SHORT - 0.7)
        trio.must_go_on("primary", 3 * T)
        assert done_since() == []


def test_both_absent_at_the_end_of_the_lease_overlap_no_longer_than_their_absence(
    core: Product,
) -> None:
    """Not covered in software, and measured: from the end of the promises until they are back."""
    for befall in TOGETHER:
        for absent_s in (T + 1.0, 2 * T):
            trio = a_trio_at_rest(core)
            overlap = Overlap(trio.world)
            befall(trio, absent_s)
            trio.serves_within("backup", absent_s + TAKEOVER)
            trio.must_go_on("backup", 3 * T)

            earliest_s = T - INTERVAL
            assert overlap.lasted_s <= absent_s - earliest_s + 0.3


def test_a_new_guard_kills_what_the_one_before_it_could_not(core: Product) -> None:
    """G3: the file tells it, before there is an agent, and even without the network."""
    trio = a_trio_at_rest(core)
    trio.isolate("primary")
    trio.world.kill_agent("primary")
    trio.world.kill_guard("primary")
    trio.running_s(2 * T)
    assert trio.world.runs("primary")

    trio.world.start_guard("primary")
    trio.world.run_until(lambda: not trio.world.runs("primary"), 0.2)
    trio.running_s(T)
    assert not trio.world.runs("primary")


def test_a_reboot_leaves_no_lease_behind(core: Product) -> None:
    trio = a_trio_at_rest(core)
    trio.isolate("primary")
    trio.world.crash_host("primary")
    for name in ("db", "web"):
        trio.world.hosts["primary"].engine.containers[name].restart_policy = "always"
    trio.world.boot("primary")

    trio.world.run_until(lambda: not trio.world.runs("primary"), 1.0)
    trio.serves_within("backup", TAKEOVER)


# --- armed before the first start, disarmed after the last stop -----------------------------------


def test_nothing_is_started_before_the_guard_has_said_that_it_watches(core: Product) -> None:
    trio = Trio(core)
    orders = Orders(trio.world, "primary", ArmGuard, GuardArmed, StartContainers)
    trio.boot_all()
    trio.serves_within("primary", 4 * T)

    assert orders.words[:3] == ["ArmGuard", "GuardArmed", "StartContainers"]


def test_without_a_guard_that_answers_nothing_is_started(core: Product) -> None:
    trio = a_trio_at_rest(core)
    trio.world.freeze_guard("backup")
    trio.world.crash_host("primary")
    trio.running_s(3 * T)
    assert not trio.world.runs("backup")
    assert "guard_lost" in trio.world.agent("backup").state.alarms

    trio.world.thaw_guard("backup")
    trio.serves_within("backup", TAKEOVER + T)


def test_the_guard_is_disarmed_only_after_everything_is_seen_stopped(core: Product) -> None:
    trio = a_trio_at_rest(core)
    orders = Orders(trio.world, "primary", ContainersStopped, DisarmGuard)
    trio.world.terminate("primary")
    trio.serves_within("backup", 3.0)

    assert orders.words == ["ContainersStopped", "DisarmGuard"]
    assert trio.world.hosts["primary"].lease_file is None


def test_a_late_start_call_is_killed_as_often_as_it_takes(core: Product) -> None:
    """G2: a start that the engine still had comes up after the containers were killed."""
    trio = a_trio_at_rest(core)
    trio.world.kill_container("primary", "web")
    trio.world.hosts["primary"].engine.containers["web"].start_takes_s = STOP_BUDGET
    trio.running_s(1.2)
    trio.isolate("primary")
    trio.world.freeze("primary")
    trio.world.lose_engine("primary", Mode.HANGS)
    trio.world.run_until(lambda: not trio.world.runs("primary"), T)
    trio.world.recover_engine("primary")
    trio.running_s(1.0)

    assert not trio.world.runs("primary")


def test_a_start_call_that_outlives_its_agent_is_killed_though_its_successor_hangs_too(
    core: Product,
) -> None:
    """G2: the guard goes on after the first look of the next agent, which saw nothing that runs."""
    trio = a_trio_at_rest(core)
    overlap = Overlap(trio.world)
    trio.world.hosts["primary"].engine.containers["web"].start_takes_s = 1.5 * T
    trio.world.kill_container("primary", "web")
    first = trio.world.agent("primary")
    trio.world.run_until(lambda: bool(first.state.repairing), 2 * T)
    trio.running_s(0.05)
    trio.world.freeze("primary")
    trio.world.run_until(lambda: first.is_dead, T)
    trio.world.run_until(lambda: trio.world.hosts["primary"].agent is not None, T)
    second = trio.world.agent("primary")
    trio.world.run_until(lambda: second.state.phase is Phase.STANDBY, T)
    trio.world.freeze("primary")

    trio.serves_within("backup", TAKEOVER)
    trio.running_s(3 * T)
    assert trio.serves("backup")
    assert 0 < overlap.lasted_s < 2 * KILL_BUDGET, "it came up, and not for long"
