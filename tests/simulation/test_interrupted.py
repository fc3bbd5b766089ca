"""Handover and promotion, interrupted at every step, on either side, by a crash, a cut, a freeze.

A step is an item of a plan: each order that an agent hands out, and each save. First it is counted
how many there are; then each of them is where it ends, in a world of its own.
"""

from collections.abc import Callable, Iterator

import pytest

from failover_agent.core.effects import MoveDeadline, Reply, SendHeartbeat
from failover_agent.simulation.facts import Fact, Ordered, Saved
from failover_agent.simulation.product import Product
from tests.simulation.trios import (
    INTERVAL,
    STARTUP_GRACE,
    T,
    Trio,
    a_trio_at_rest,
)

pytestmark = pytest.mark.simulation

HOSTS = ("primary", "backup")
LASTS = T + 1.0
SETTLES = 2 * STARTUP_GRACE + 4 * T

Befall = Callable[[Trio, str], None]


class Steps:
    """Calls when a host has handed out so many orders that are not part of its daily round."""

    def __init__(self, trio: Trio, host: str, wanted: int, befall: Befall) -> None:
        self.count = 0
        self._trio, self._host = trio, host
        self._wanted, self._befall = wanted, befall
        trio.world.chronicle.watchers.append(self)

    def see(self, fact: Fact) -> None:
        match fact:
            case Ordered(host, effect) if host == self._host:
                if not isinstance(effect, SendHeartbeat | Reply | MoveDeadline):
                    self._step()
            case Saved(host) if host == self._host:
                self._step()
            case _:
                pass

    def _step(self) -> None:
        self.count += 1
        if self.count == self._wanted:
            self._befall(self._trio, self._host)


def agent_dies(trio: Trio, host: str) -> None:
    """Between this item and the next; it is back before its lease ends."""
    trio.world.crash_agent_after(host, 0)
    trio.world.scheduler.after(1.0, lambda: start_again(trio, host))


def start_again(trio: Trio, host: str) -> None:
    """Unless it is there."""
    if trio.world.hosts[host].is_on and trio.world.hosts[host].agent is None:
        trio.world.start_agent(host)


def agent_freezes(trio: Trio, host: str) -> None:
    """For longer than its lease."""
    agent = trio.world.agent(host)
    trio.world.freeze(host)
    trio.world.scheduler.after(LASTS, lambda: None if agent.is_dead else trio.world.thaw(host))


def both_freeze(trio: Trio, host: str) -> None:
    """Agent and guard; the agent is thawed first."""
    agent_freezes(trio, host)
    trio.world.freeze_guard(host)
    trio.world.scheduler.after(LASTS + 0.05, lambda: trio.world.thaw_guard(host))


def host_dies(trio: Trio, host: str) -> None:
    """And boots later."""
    trio.world.scheduler.after(0.0, lambda: trio.world.crash_host(host))
    trio.world.scheduler.after(LASTS, lambda: trio.world.boot(host))


def is_cut_off(trio: Trio, host: str) -> None:
    """From both others."""
    trio.isolate(host)
    trio.world.scheduler.after(LASTS, trio.heal_wires)


def is_cut_from_the_arbiter(trio: Trio, host: str) -> None:
    """From the arbiter alone."""
    trio.world.cut(host, trio.arbiter)
    trio.world.scheduler.after(LASTS, trio.heal_wires)


def peers_are_cut(trio: Trio, _: str) -> None:
    """The wire between the nodes."""
    trio.world.cut("primary", "backup")
    trio.world.scheduler.after(LASTS, trio.heal_wires)


def nothing(_trio: Trio, _host: str) -> None:
    """Only count."""


BEFALLS: tuple[Befall, ...] = (
    agent_dies,
    agent_freezes,
    both_freeze,
    host_dies,
    is_cut_off,
    is_cut_from_the_arbiter,
    peers_are_cut,
)


ALSO_WITH_ETCD = (agent_dies, is_cut_from_the_arbiter)


def a_handover(core: Product, *, etcd: bool) -> Trio:
    """The primary is about to hand over, because its host shuts down."""
    trio = a_trio_at_rest(core, etcd=etcd)
    trio.world.scheduler.after(
        0.01, lambda: trio.world.terminate("primary", host_is_shutting_down=True)
    )
    return trio


def a_takeover(core: Product, *, etcd: bool) -> Trio:
    """The primary is cut off, and the backup is about to take over."""
    trio = a_trio_at_rest(core, etcd=etcd)
    trio.isolate("primary")
    trio.world.scheduler.after(T + 2 * INTERVAL, trio.heal_wires)
    return trio


def steps_of(core: Product, begin: Callable[..., Trio], host: str, *, etcd: bool) -> int:
    """How many there are when nothing comes between."""
    trio = begin(core, etcd=etcd)
    steps = Steps(trio, host, 0, nothing)
    trio.running_s(T + 3.0)
    return steps.count


def interruptions(core: Product, begin: Callable[..., Trio], befall: Befall) -> Iterator[str]:
    """Each step of either host, interrupted: the answer is where, for people."""
    for etcd in (False, True) if befall in ALSO_WITH_ETCD else (False,):
        for host in HOSTS:
            for step in range(1, steps_of(core, begin, host, etcd=etcd) + 1):
                trio = begin(core, etcd=etcd)
                Steps(trio, host, step, befall)
                trio.running_s(T + 3.0 + LASTS + 0.5)
                end_of_faults(trio)
                server = trio.somebody_serves_within(SETTLES)
                trio.must_go_on(server, T)
                yield f"{befall.__name__} of {host} at step {step}"


def end_of_faults(trio: Trio) -> None:
    """What was told to leave is started again."""
    trio.heal_wires()
    for host in HOSTS:
        start_again(trio, host)
        trio.world.agent(host).crash_after_items = None


@pytest.mark.parametrize("befall", BEFALLS, ids=lambda befall: befall.__name__)
@pytest.mark.parametrize("begin", [a_handover, a_takeover], ids=lambda begin: begin.__name__)
def test_wherever_it_is_interrupted_there_are_never_two_and_one_at_the_end(
    core: Product, begin: Callable[..., Trio], befall: Befall
) -> None:
    places = list(interruptions(core, begin, befall))

    assert len(places) >= 15
