"""With a witness: each wire cut, each way; each host isolated; every wire cut. Before and after T.

Whatever is cut, the containers never run on both hosts. They move where the active one has lost
both others, and else not at all.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.lab.lab import Node
from tests.lab.pair import LIMIT_S, alarms, pass_time
from tests.lab.trio import Trio
from tests.lab.truth import now_s
from tests.lab.until import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

TIMEOUT_S = 3.0
BEFORE_S = 0.35 * TIMEOUT_S
GRAVE_S = 0.2 * TIMEOUT_S  # time to renew is left before the stop, T/4 and an interval ahead of T
AFTER_S = 1.3 * TIMEOUT_S
WATCH_S = 0.2 * TIMEOUT_S


@pytest.fixture(scope="module")
def shared() -> Iterator[Trio]:
    with Trio.build("witness", heartbeat_timeout=TIMEOUT_S, restart_grace_period=30.0) as trio:
        yield trio


@dataclass(frozen=True)
class Ends:
    """Who is who at the begin of a test."""

    active: Node
    standby: Node
    witness: Node


def ends(trio: Trio) -> Ends:
    return Ends(*trio.ends(), trio.lab.c)


Cut = Callable[[Trio, Ends], None]


def one_way(source: str, target: str) -> Cut:
    return lambda trio, ends: trio.lab.network.cut(getattr(ends, source), getattr(ends, target))


def both_ways(one: str, other: str) -> Cut:
    return lambda trio, ends: trio.lab.network.cut_both(getattr(ends, one), getattr(ends, other))


def isolate(who: str) -> Cut:
    return lambda trio, ends: trio.lab.network.isolate(getattr(ends, who))


HARMLESS: dict[str, Cut] = {
    "active to standby": one_way("active", "standby"),
    "standby to active": one_way("standby", "active"),
    "active to witness": one_way("active", "witness"),
    "witness to active": one_way("witness", "active"),
    "standby to witness": one_way("standby", "witness"),
    "witness to standby": one_way("witness", "standby"),
    "between the nodes": both_ways("active", "standby"),
    "between active and witness": both_ways("active", "witness"),
    "between standby and witness": both_ways("standby", "witness"),
    "all of the standby": isolate("standby"),
    "all of the witness": isolate("witness"),
}
GRAVE: dict[str, Cut] = {
    "all of the active": isolate("active"),
    "every wire": lambda trio, _ends: trio.lab.network.cut_all(),
}


@pytest.mark.parametrize("wires", [*HARMLESS, *GRAVE])
def test_a_cut_that_is_healed_before_the_timeout_moves_nothing(trio: Trio, wires: str) -> None:
    here = ends(trio)
    since_s = now_s()
    (HARMLESS | GRAVE)[wires](trio, here)
    pass_time(BEFORE_S if wires in HARMLESS else GRAVE_S)
    trio.lab.network.heal()
    trio.watch_unmoved(here.active, WATCH_S, since_s)


@pytest.mark.parametrize("wires", HARMLESS)
def test_a_cut_that_leaves_the_active_a_majority_moves_nothing_and_is_an_alarm(
    trio: Trio, wires: str
) -> None:
    here = ends(trio)
    since_s = now_s()
    HARMLESS[wires](trio, here)
    pass_time(AFTER_S)
    nodes = (here.active, here.standby)
    until(lambda: any("redundancy_lost" in alarms(it) for it in nodes), LIMIT_S, "the alarm")
    trio.lab.network.heal()
    assert trio.settle() is here.active
    trio.watch_unmoved(here.active, WATCH_S, since_s)
    until(lambda: "redundancy_lost" not in alarms(here.active), LIMIT_S, "the alarm ends")


def test_an_active_that_is_isolated_stops_and_the_other_takes_over_in_time(trio: Trio) -> None:
    here = ends(trio)
    since_s = now_s()
    trio.lab.network.isolate(here.active)
    trio.wait_back(since_s, "the active isolated", here.standby)
    trio.lab.network.heal()
    assert trio.settle() is here.standby, "and it stays there"


def test_with_every_wire_cut_nothing_runs_and_one_does_in_time_when_they_are_whole(
    trio: Trio,
) -> None:
    here = ends(trio)
    trio.lab.network.cut_all()
    until(lambda: not trio.lab.truth.running_now(), LIMIT_S, "the active stops")
    pass_time(TIMEOUT_S)
    assert not trio.lab.truth.running_now(), "and nobody else starts"
    healed_s = now_s()
    trio.lab.network.heal()
    trio.wait_back(healed_s, "every wire whole again")
    assert trio.settle() in (here.active, here.standby)
