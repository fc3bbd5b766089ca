"""The world itself: repeatable, fair, and judges that do see what they are there for."""

from random import Random

import pytest

from failover_agent.core.events import ContainersStopped, HeartbeatFailed
from failover_agent.core.policy import PartitionPolicy
from failover_agent.simulation.checkers import Broken
from failover_agent.simulation.facts import Fact, Saw
from failover_agent.simulation.faults import KINDS, storm, unleash
from failover_agent.simulation.run import Arbiter, Options, build, main, weather_a_storm
from failover_agent.simulation.scheduler import RunsInCircles, Scheduler, Signal, either
from failover_agent.simulation.trio_faults import OF_ETCD, OF_WITNESS
from tests.simulation.pairs import INTERVAL, Pair, T, a_pair_at_rest
from tests.simulation.trios import a_trio_at_rest

pytestmark = pytest.mark.simulation


def test_the_same_seed_is_the_same_history_to_the_last_line() -> None:
    for policy in PartitionPolicy:
        first = weather_a_storm(Options(7, policy))
        again = weather_a_storm(Options(7, policy))

        assert first.tale(10_000) == again.tale(10_000)
    for arbiter in (Arbiter.WITNESS, Arbiter.ETCD):
        first = weather_a_storm(Options(7, arbiter=arbiter))
        again = weather_a_storm(Options(7, arbiter=arbiter))

        assert first.tale(10_000) == again.tale(10_000)


def test_moments_come_in_order_and_equal_ones_as_planned() -> None:
    scheduler, seen = Scheduler(1), list[str]()
    scheduler.at(2.0, lambda: seen.append("two"))
    scheduler.at(1.0, lambda: seen.append("one"))
    scheduler.at(2.0, lambda: seen.append("two too"))
    scheduler.after(0.5, lambda: seen.append("never")).cancel()
    scheduler.run_until(3.0)

    assert seen == ["one", "two", "two too"]
    assert scheduler.now_s == 3.0


def test_a_world_that_runs_in_circles_says_so() -> None:
    scheduler = Scheduler(1)

    def again() -> None:
        scheduler.after(0.0, again)

    again()
    with pytest.raises(RunsInCircles):
        scheduler.run_until(1.0)


def test_either_fires_with_the_first_signal() -> None:
    one, other = Signal[str](), Signal[str]()
    first = either(one, other)
    assert not first.fired

    other.fire("now")
    assert first.fired


def test_each_host_has_a_clock_of_its_own_that_begins_anew_with_a_boot() -> None:
    pair = a_pair_at_rest()
    primary, backup = (pair.world.hosts[name] for name in ("primary", "backup"))
    before = primary.clock(), backup.clock()
    pair.running_s(100)

    assert primary.clock() - before[0] == pytest.approx(100, abs=1)
    assert primary.clock() - before[0] != backup.clock() - before[1]
    pair.world.crash_host("primary")
    pair.world.boot("primary")
    assert primary.boot == 2


class Events:
    """What the agent of the primary took from its inbox."""

    def __init__(self, pair: Pair) -> None:
        self.seen: list[object] = []
        pair.world.chronicle.watchers.append(self)

    def see(self, fact: Fact) -> None:
        match fact:
            case Saw("primary", event):
                self.seen.append(event)
            case _:
                pass


def test_a_frozen_agent_takes_nothing_and_gets_everything_when_thawed() -> None:
    pair = a_pair_at_rest()
    events = Events(pair)
    pair.world.freeze("primary")
    pair.running_s(2 * INTERVAL)
    assert events.seen == []

    pair.world.thaw("primary")
    assert len(events.seen) > 2


def test_a_beat_into_a_cut_wire_fails_after_its_deadline() -> None:
    pair = a_pair_at_rest()
    events = Events(pair)
    pair.world.cut("primary", "backup")
    pair.running_s(3 * T)

    assert any(isinstance(event, HeartbeatFailed) for event in events.seen)


def test_each_stop_is_answered_once() -> None:
    pair = a_pair_at_rest()
    events = Events(pair)
    pair.world.terminate("primary")
    pair.serves_within("backup", T)

    assert [type(event) for event in events.seen].count(ContainersStopped) == 1


def test_two_at_once_without_an_excuse_are_seen() -> None:
    pair = a_pair_at_rest()
    pair.world.hosts["backup"].engine.launch("db", by_us=False)
    with pytest.raises(Broken, match="S1"):
        pair.world.hosts["backup"].engine.launch("web", by_us=True)


def test_every_fault_can_befall_a_pair_and_end() -> None:
    for kind in KINDS:
        options = Options(3, PartitionPolicy.AVAILABILITY, storm_s=40.0)
        world = build(options)
        faults = storm(Random(kind), tuple(world.hosts), options.storm_s, 4.0, kinds=[kind])
        unleash(world, faults)
        world.run_for(options.storm_s)

        assert faults
        world.heal()
        world.run_for(30)


def test_every_fault_can_befall_a_pair_with_an_arbiter_and_end() -> None:
    for arbiter, known in ((Arbiter.WITNESS, OF_WITNESS), (Arbiter.ETCD, OF_ETCD)):
        for kind in known.keys() - KINDS.keys():
            options = Options(3, arbiter=arbiter, storm_s=40.0)
            world = build(options)
            faults = storm(Random(kind), tuple(world.hosts), 40.0, 4.0, kinds=[kind], known=known)
            unleash(world, faults, known)
            world.run_for(options.storm_s)

            assert faults
            world.heal()
            world.run_for(30)


def test_the_command_line_runs_a_seed_and_tells_its_story(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--seed", "5", "--policy", "consistency", "--storm", "20"]) == 0

    printed = capsys.readouterr().out
    assert "primary   the host boots" in printed
    assert "1 histories, 0 broke a rule" in printed


def test_the_command_line_runs_a_seed_with_an_arbiter(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for arbiter in ("witness", "etcd"):
        assert main(["--seed", "5", "--arbiter", arbiter, "--storm", "20"]) == 0
        assert main(["--seeds", "2", "--arbiter", arbiter, "--single"]) == 0

    assert "2 histories, 0 broke a rule" in capsys.readouterr().out


def test_two_at_once_with_an_arbiter_have_no_excuse_while_anybody_watches() -> None:
    trio = a_trio_at_rest()
    trio.world.cut("primary", "backup")
    with pytest.raises(Broken, match="S1"):
        trio.world.hosts["backup"].engine.launch("web", by_us=True)


def test_two_at_once_that_nobody_watches_may_last_until_somebody_is_back() -> None:
    trio = a_trio_at_rest()
    trio.world.kill_agent("primary")
    trio.world.kill_guard("primary")
    trio.world.hosts["backup"].engine.launch("web", by_us=True)
    trio.running_s(T)

    assert "OVERLAP: neither guard nor agent of primary were there" in trio.world.tale()
