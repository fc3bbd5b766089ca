"""Two cables between the hosts: whichever is lost moves nothing, and both are as the one was."""

import pytest

from failover_agent.core.policy import OnStop
from failover_agent.core.state import Phase
from failover_agent.simulation.network import QUICK_S, cable
from failover_agent.simulation.product import Product
from failover_agent.simulation.world import World
from tests.simulation.pairs import INTERVAL, STARTUP_GRACE, Pair, T
from tests.simulation.trios import Trio

pytestmark = pytest.mark.simulation

HOSTS = ("primary", "backup")
BOTH_WAYS = (("primary", "backup"), ("backup", "primary"))


def wired(pair: Pair) -> Pair:
    """Two cables from each host to every other; the primary serves, the backup watches."""
    for host in pair.world.hosts.values():
        host.cables = 2
    for name in HOSTS:
        pair.world.boot(name)
    pair.serves_within("primary", 3 * STARTUP_GRACE + 2 * T)
    pair.running_s(2 * STARTUP_GRACE)
    assert pair.serves("primary"), pair.world.tale()
    return pair


def cut(world: World, number: int, *ways: tuple[str, str]) -> None:
    """Nothing gets through. The weather knows nothing of it, so no judge excuses anything by it."""
    for source, target in ways:
        world.network.link(source, cable(target, number)).is_cut = True


def mend(world: World, number: int) -> None:
    for source, target in BOTH_WAYS:
        world.network.mend(source, cable(target, number))


def codes(world: World, host: str) -> set[str]:
    return {alarm.code for alarm in world.agent(host).state.alarms.values()}


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("ways", [BOTH_WAYS, BOTH_WAYS[:1], BOTH_WAYS[1:]])
def test_one_of_two_cables_is_lost_and_nothing_moves(
    core: Product, number: int, ways: tuple[tuple[str, str], ...]
) -> None:
    pair = wired(Pair(core))
    done_since = pair.diary.since()
    cut(pair.world, number, *ways)

    pair.running_s(3 * T)

    assert codes(pair.world, "primary") == codes(pair.world, "backup") == {"path_lost"}
    mend(pair.world, number)
    pair.running_s(3 * T)
    assert codes(pair.world, "primary") == codes(pair.world, "backup") == set()
    assert done_since() == []
    assert pair.phases() == (Phase.ACTIVE, Phase.STANDBY)


def test_both_cables_are_lost_one_after_the_other_and_the_backup_takes_over(core: Product) -> None:
    pair = wired(Pair(core))
    cut(pair.world, 1, *BOTH_WAYS)
    pair.running_s(5 * T)
    assert pair.serves("primary")

    pair.world.cut(*HOSTS)
    pair.phase_within("backup", Phase.ACTIVE, 2 * T)
    assert "path_lost" not in codes(pair.world, "backup")

    pair.world.mend(*HOSTS)
    pair.serves_within("backup", 2 * T)
    pair.running_s(2 * T)
    assert codes(pair.world, "backup") == {"path_lost"}


def test_a_dead_host_is_missed_as_soon_as_over_one_cable(core: Product) -> None:
    pair = wired(Pair(core))

    pair.world.crash_host("primary")

    pair.serves_within("backup", T + 2 * INTERVAL)


@pytest.mark.parametrize("number", [0, 1])
def test_a_slow_cable_beside_a_quick_one_moves_nothing(core: Product, number: int) -> None:
    """Copies come three beats late, twice or never: none undoes a renewal, a release or a vote."""
    pair = wired(Pair(core))
    done_since = pair.diary.since()
    for source, target in BOTH_WAYS:
        link = pair.world.network.link(source, cable(target, number))
        link.loss, link.doubled, link.delay_s = 0.2, 0.3, (0.0, 3.5 * INTERVAL)

    pair.running_s(20 * T)

    assert done_since() == []
    pair.world.terminate("primary")
    pair.serves_within("backup", 2 * T)
    pair.running_s(5 * T)
    assert pair.serves("backup")


def test_the_late_copy_of_a_candidacy_does_not_end_the_hold_of_the_one_that_won(
    core: Product,
) -> None:
    """V8: it is told to leave right after it has won, and the copy is still on its way."""
    trio = Trio(core, on_stop=OnStop.LEAVE)
    for host in trio.world.hosts.values():
        host.cables = 2
    trio.boot_all()
    trio.serves_within("primary", 3 * STARTUP_GRACE + 3 * T)
    trio.running_s(STARTUP_GRACE + T)
    slow = trio.world.network.link("backup", cable("witness", 1))
    slow.delay_s = (3.0, 3.0)
    trio.world.crash_host("primary")
    trio.phase_within("backup", Phase.ACTIVE, 3 * T)
    slow.delay_s = QUICK_S
    trio.world.terminate("backup")
    trio.running_s(5.0)
    assert trio.world.phase("backup") is None, trio.world.tale()
    assert trio.world.serves("backup")

    trio.world.boot("primary")
    trio.running_s(4 * T)

    assert not trio.world.runs("primary"), trio.world.tale()
