"""All 63 sets of cut directed links among the three, healed before T and long after it."""

from itertools import chain, combinations

import pytest

from failover_agent.simulation.product import Product
from tests.simulation.trios import INTERVAL, STARTUP_GRACE, T, Trio, a_trio_at_rest

pytestmark = pytest.mark.simulation

THREE = ("primary", "backup", "arbiter")
LINKS = tuple((one, other) for one in THREE for other in THREE if one != other)
SETS = tuple(chain.from_iterable(combinations(LINKS, size) for size in range(1, 7)))
IN_ONE_TEST = 9

SHORT = T / 2
LONG = 3 * T + STARTUP_GRACE
SETTLES = STARTUP_GRACE + 3 * T

Links = tuple[tuple[str, str], ...]


def talk(cut: Links, one: str, other: str) -> bool:
    """Do both directions of this wire work?"""
    return (one, other) not in cut and (other, one) not in cut


def cut_all(trio: Trio, links: Links) -> None:
    """`arbiter` is the third machine, whatever it is."""
    for one, other in links:
        names = (trio.arbiter if name == "arbiter" else name for name in (one, other))
        trio.world.cut(*names, both_ways=False)


def suffer(core: Product, links: Links, *, etcd: bool) -> None:
    """The links are cut for a moment, and then for long."""
    trio = a_trio_at_rest(core, etcd=etcd)
    done_since = trio.diary.since()
    cut_all(trio, links)
    trio.running_s(SHORT)
    trio.heal_wires()
    trio.must_go_on("primary", T + INTERVAL)
    assert done_since() == [], f"short: {links}\n{trio.world.tale()}"

    cut_all(trio, links)
    trio.running_s(LONG)
    if talk(links, "primary", "backup") or talk(links, "primary", "arbiter"):
        assert done_since() == [], f"S2: {links}\n{trio.world.tale()}"
    elif talk(links, "backup", "arbiter"):
        assert trio.serves("backup"), f"L1: {links}\n{trio.world.tale()}"
    else:
        assert not trio.world.runs("primary"), f"H3: {links}\n{trio.world.tale()}"
        assert not trio.world.runs("backup"), f"H0: {links}\n{trio.world.tale()}"
    trio.heal_wires()
    server = trio.somebody_serves_within(SETTLES)
    trio.must_go_on(server, 2 * T)


def test_there_are_63_sets() -> None:
    assert len(set(SETS)) == 63


@pytest.mark.parametrize("etcd", [False, True], ids=["witness", "etcd"])
@pytest.mark.parametrize("first", range(0, len(SETS), IN_ONE_TEST))
def test_a_set_of_cut_links_never_makes_two_and_ends_with_one(
    core: Product, first: int, etcd: bool
) -> None:
    for links in SETS[first : first + IN_ONE_TEST]:
        suffer(core, links, etcd=etcd)
