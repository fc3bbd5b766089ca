"""Faults of a pair with an arbiter: of its wires, of the arbiter itself, and of the guards.

Everything that befalls a plain pair befalls this one too; but no two voters lose their record in
one storm, which nothing promises to survive where T differs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from failover_agent.simulation.faults import KINDS, Fault, Kinds, Undo
from failover_agent.simulation.fence import Outcome
from failover_agent.simulation.world import World


def _nothing() -> None:
    """What there is to undo after a stroke."""


def _timeout_s(world: World) -> float:
    return world.longest_timeout_s()


# --- wires ----------------------------------------------------------------------------------------


def _ends(world: World, fault: Fault) -> tuple[str, str]:
    """One of the wires at this host, or the one between the others."""
    places = [name for name in world.places if name != fault.host]
    ends = [(fault.host, places[0]), (fault.host, places[1]), (places[0], places[1])]
    return ends[int(fault.luck * 7919) % 3]


def _cut_any(world: World, fault: Fault) -> Undo:
    one, other = _ends(world, fault)
    world.cut(one, other)
    return lambda: world.mend(one, other)


def _cut_any_one_way(world: World, fault: Fault) -> Undo:
    one, other = Random(fault.luck).sample(_ends(world, fault), 2)
    world.cut(one, other, both_ways=False)
    return lambda: world.mend(one, other, both_ways=False)


def _isolate(world: World, fault: Fault) -> Undo:
    name = world.places[int(fault.luck * 7919) % 3]
    others = [place for place in world.places if place != name]
    for other in others:
        world.cut(name, other)

    def undo() -> None:
        for other in others:
            world.mend(name, other)

    return undo


def _slow_to_arbiter(world: World, fault: Fault) -> Undo:
    one, other = Random(fault.luck).sample((fault.host, world.arbiter), 2)
    longest_s = 3 * _timeout_s(world) * fault.luck
    world.disturb(one, other, delay_s=(0.001, longest_s), loss=0.2, doubled=0.1)
    return lambda: world.mend(one, other, both_ways=False)


# --- guards ---------------------------------------------------------------------------------------


def _kill_guard(world: World, fault: Fault) -> Undo:
    world.kill_guard(fault.host, supervisor_s=0.1 + fault.luck)
    return _nothing


def _freeze_guard(world: World, fault: Fault) -> Undo:
    guard = world.hosts[fault.host].guard
    if guard is not None and not guard.is_frozen:
        world.freeze_guard(fault.host)
    return lambda: world.thaw_guard(fault.host)


def _freeze_both(world: World, fault: Fault) -> Undo:
    """Thawed in either order, a moment apart."""
    guard = _freeze_guard(world, fault)
    agent = KINDS["freeze"](world, fault)
    first, second = Random(fault.luck).sample((guard, agent), 2)

    def undo() -> None:
        first()
        world.scheduler.after(0.3 * fault.luck, second)

    return undo


def _kill_both(world: World, fault: Fault) -> Undo:
    undo = KINDS["kill agent"](world, fault)
    world.kill_guard(fault.host)
    return undo


# --- the witness ----------------------------------------------------------------------------------


def _kill_witness(world: World, _: Fault) -> Undo:
    world.kill_witness()
    return world.start_witness


def _crash_witness(world: World, _: Fault) -> Undo:
    assert world.witness is not None
    if world.witness.is_on:
        world.crash_witness()
    return partial(_boot_witness, world)


def _boot_witness(world: World) -> None:
    assert world.witness is not None
    if not world.witness.is_on:
        world.boot_witness()


def _empty_witness(world: World, _: Fault) -> Undo:
    world.kill_witness()
    world.empty_witness()
    return world.start_witness


def _freeze_witness(world: World, _: Fault) -> Undo:
    assert world.witness is not None
    if world.witness.run is not None and not world.witness.run.is_frozen:
        world.freeze_witness()
    return world.thaw_witness


def _crash_witness_at_save(world: World, fault: Fault) -> Undo:
    assert world.witness is not None
    if world.witness.run is not None:
        world.crash_witness_at_save(after=fault.luck < 0.5)
    return world.start_witness


def _break_witness_disk(world: World, _: Fault) -> Undo:
    world.break_disk("witness")
    return lambda: world.mend_disk("witness")


def _slow_witness_disk(world: World, fault: Fault) -> Undo:
    world.slow_disk("witness", 2.0 * fault.luck)
    return lambda: world.mend_disk("witness")


# --- etcd -----------------------------------------------------------------------------------------


def _lose_quorum(world: World, _: Fault) -> Undo:
    world.lose_quorum()
    return world.recover_store


def _slow_store(world: World, fault: Fault) -> Undo:
    world.slow_store(2 * _timeout_s(world) * fault.luck)
    return world.recover_store


def _empty_store(world: World, _: Fault) -> Undo:
    world.empty_store()
    return _nothing


# --- fence ----------------------------------------------------------------------------------------


def _bad_fence(world: World, fault: Fault) -> Undo:
    fence = world.hosts[fault.host].fence
    fence.outcome = Random(fault.luck).choice((Outcome.FAILS, Outcome.LATE, Outcome.HANGS))

    def undo() -> None:
        fence.outcome = Outcome.SUCCEEDS

    return undo


OF_ALL: Kinds = {
    **KINDS,
    "cut any": _cut_any,
    "cut any one way": _cut_any_one_way,
    "isolate": _isolate,
    "slow to arbiter": _slow_to_arbiter,
    "kill guard": _kill_guard,
    "freeze guard": _freeze_guard,
    "freeze both": _freeze_both,
    "kill both": _kill_both,
    "bad fence": _bad_fence,
}

OF_WITNESS: Kinds = {
    **OF_ALL,
    "kill witness": _kill_witness,
    "crash witness": _crash_witness,
    "empty witness": _empty_witness,
    "freeze witness": _freeze_witness,
    "crash witness at save": _crash_witness_at_save,
    "break witness disk": _break_witness_disk,
    "slow witness disk": _slow_witness_disk,
}

OF_ETCD: Kinds = {
    **OF_ALL,
    "lose quorum": _lose_quorum,
    "slow store": _slow_store,
    "empty store": _empty_store,
}

FORGET = frozenset({"lose record", "empty witness", "empty store"})
"""A voter forgets what it promised."""

LEASES = (
    "cut any",
    "cut any one way",
    "cut any one way",
    "isolate",
    "slow to arbiter",
    "slow",
    "freeze",
    "kill agent",
    "freeze both",
    "kill both",
    "kill guard",
    "crash in plan",
    "crash host",
    "terminate",
)
"""What ends leases, and moves the service."""

VOTERS = (
    "cut any",
    "isolate",
    "kill agent",
    "crash at save",
    "power cut",
    "slow disk",
    "terminate",
)

WITNESS_VOTES = (*VOTERS, "empty witness", "kill witness", "crash witness at save")
ETCD_VOTES = (*VOTERS, "lose quorum", "slow store", "slow to arbiter")
"""What makes a voter forget, hesitate, or come back."""


def with_one_forgetful(dice: Random, kinds: Kinds) -> dict[str, Callable[[World, Fault], Undo]]:
    """`kinds` with one way to lose a record at most."""
    keeps = dice.choice(sorted(FORGET & kinds.keys()))
    return {name: strike for name, strike in kinds.items() if name == keeps or name not in FORGET}
