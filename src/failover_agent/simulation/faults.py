"""Random faults from a seed: what goes wrong, where, when, and for how long.

A storm draws a handful of kinds first and throws only those (swarm testing): a run in which
everything breaks all the time finds less than one in which two things break together. Every other
storm throws what is known to hurt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from failover_agent.core.events import CommandKind
from failover_agent.simulation.engine import Mode
from failover_agent.simulation.world import World

Undo = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of a schedule. `luck` decides its details, so that the entry stands for itself."""

    at_s: float
    lasts_s: float
    kind: str
    host: str
    luck: float


def _other(world: World, host: str) -> str:
    return next(name for name in world.hosts if name != host)


def _container(world: World, fault: Fault) -> str:
    names = tuple(world.hosts[fault.host].engine.containers)
    return names[int(fault.luck * 7919) % len(names)]


def _timeout_s(world: World, host: str) -> float:
    return world.hosts[host].policy.heartbeat_timeout_s


# --- wires ----------------------------------------------------------------------------------------


def _cut(world: World, fault: Fault) -> Undo:
    other = _other(world, fault.host)
    world.cut(fault.host, other)
    return lambda: world.mend(fault.host, other)


def _cut_one_way(world: World, fault: Fault) -> Undo:
    other = _other(world, fault.host)
    world.cut(fault.host, other, both_ways=False)
    return lambda: world.mend(fault.host, other, both_ways=False)


def _lossy(world: World, fault: Fault) -> Undo:
    other = _other(world, fault.host)
    world.disturb(fault.host, other, loss=0.1 + 0.7 * fault.luck, doubled=0.2)
    return lambda: world.mend(fault.host, other, both_ways=False)


def _slow(world: World, fault: Fault) -> Undo:
    other = _other(world, fault.host)
    longest_s = 3 * _timeout_s(world, fault.host) * fault.luck
    world.disturb(fault.host, other, delay_s=(0.001, longest_s), doubled=0.1)
    return lambda: world.mend(fault.host, other, both_ways=False)


# --- agents and hosts -----------------------------------------------------------------------------


def _start_again(world: World, host: str) -> Undo:
    def undo() -> None:
        if world.hosts[host].is_on and world.hosts[host].agent is None:
            world.start_agent(host)

    return undo


def _kill_agent(world: World, fault: Fault) -> Undo:
    if world.hosts[fault.host].agent is not None:
        world.kill_agent(fault.host)
    return _start_again(world, fault.host)


def _crash_in_plan(world: World, fault: Fault) -> Undo:
    if world.hosts[fault.host].agent is not None:
        world.crash_agent_after(fault.host, int(fault.luck * 30))
    return _start_again(world, fault.host)


def _crash_at_save(world: World, fault: Fault) -> Undo:
    if world.hosts[fault.host].agent is not None:
        world.crash_agent_at_save(fault.host, after=fault.luck < 0.5)
    return _start_again(world, fault.host)


def _freeze(world: World, fault: Fault) -> Undo:
    agent = world.hosts[fault.host].agent
    if agent is None or agent.is_frozen:
        return lambda: None
    world.freeze(fault.host)

    def undo() -> None:
        if not agent.is_dead and agent.is_frozen:
            world.thaw(fault.host)

    return undo


def _crash_host(world: World, fault: Fault) -> Undo:
    if world.hosts[fault.host].is_on:
        world.crash_host(fault.host)

    def undo() -> None:
        if not world.hosts[fault.host].is_on:
            world.boot(fault.host)

    return undo


def _power_cut(world: World, fault: Fault) -> Undo:
    other = _other(world, fault.host)
    one = _crash_host(world, fault)
    two = _crash_host(world, Fault(fault.at_s, fault.lasts_s, fault.kind, other, fault.luck))

    def undo() -> None:
        one()
        world.scheduler.after(2 * _timeout_s(world, other) * fault.luck, two)

    return undo


def _lose_record(world: World, fault: Fault) -> Undo:
    if world.hosts[fault.host].agent is not None:
        world.kill_agent(fault.host)
    world.lose_record(fault.host)
    return _start_again(world, fault.host)


def _break_disk(world: World, fault: Fault) -> Undo:
    world.break_disk(fault.host)
    return lambda: world.mend_disk(fault.host)


def _slow_disk(world: World, fault: Fault) -> Undo:
    world.slow_disk(fault.host, 2.0 * fault.luck)
    return lambda: world.mend_disk(fault.host)


def _terminate(world: World, fault: Fault) -> Undo:
    if world.hosts[fault.host].agent is not None:
        world.terminate(fault.host, restarting=fault.luck < 0.3)
    return _start_again(world, fault.host)


def _shut_down(world: World, fault: Fault) -> Undo:
    if world.hosts[fault.host].agent is not None:
        world.terminate(fault.host, host_is_shutting_down=True)
    off = _crash_host

    def later() -> None:
        undo = off(world, fault)
        world.scheduler.after(fault.lasts_s, undo)

    return later


def _takeover(world: World, fault: Fault) -> Undo:
    if world.hosts[fault.host].agent is not None:
        world.command(fault.host, CommandKind.TAKEOVER)
    return lambda: None


def _resume(world: World, fault: Fault) -> Undo:
    if world.hosts[fault.host].agent is not None:
        world.command(fault.host, CommandKind.RESUME)
    return lambda: None


# --- engines and containers -----------------------------------------------------------------------


def _hang_engine(world: World, fault: Fault) -> Undo:
    world.lose_engine(fault.host, Mode.HANGS, visible=fault.luck < 0.5)
    return lambda: world.recover_engine(fault.host)


def _lose_engine(world: World, fault: Fault) -> Undo:
    world.lose_engine(
        fault.host,
        Mode.REFUSES,
        processes_die=fault.luck < 0.4,
        visible=(fault.luck * 10) % 1 < 0.5,
    )
    return lambda: world.recover_engine(fault.host)


def _lose_stream(world: World, fault: Fault) -> Undo:
    world.lose_stream(fault.host)
    return lambda: world.recover_engine(fault.host)


def _kill_container(world: World, fault: Fault) -> Undo:
    world.kill_container(fault.host, _container(world, fault))
    return lambda: None


def _break_container(world: World, fault: Fault) -> Undo:
    name = _container(world, fault)
    world.break_container(fault.host, name)
    return lambda: world.allow_start(fault.host, name)


def _forbid_start(world: World, fault: Fault) -> Undo:
    name = _container(world, fault)
    world.forbid_start(fault.host, name)
    return lambda: world.allow_start(fault.host, name)


def _pause_container(world: World, fault: Fault) -> Undo:
    name = _container(world, fault)
    world.pause_container(fault.host, name)
    return lambda: world.unpause_container(fault.host, name)


def _sicken_container(world: World, fault: Fault) -> Undo:
    """What makes it ill is not mended by a restart."""
    container = world.hosts[fault.host].engine.containers[_container(world, fault)]
    container.gets_healthy = False
    world.sicken_container(fault.host, container.name)

    def undo() -> None:
        container.gets_healthy = True
        world.cure_container(fault.host, container.name)

    return undo


def _remove_container(world: World, fault: Fault) -> Undo:
    name = _container(world, fault)
    world.remove_container(fault.host, name)

    def undo() -> None:
        if not world.hosts[fault.host].engine.containers[name].exists:
            world.recreate_container(fault.host, name)

    return undo


def _crash_loop(world: World, fault: Fault) -> Undo:
    container = world.hosts[fault.host].engine.containers[_container(world, fault)]
    container.lives_for_s = 0.3 + 4 * fault.luck
    world.kill_container(fault.host, container.name)

    def undo() -> None:
        container.lives_for_s = None

    return undo


def _run_by_hand(world: World, fault: Fault) -> Undo:
    name = _container(world, fault)
    host = world.hosts[fault.host]
    if host.is_on and host.engine.containers[name].exists:
        world.run_by_hand(fault.host, name)
    return lambda: None


Kinds = Mapping[str, Callable[[World, Fault], Undo]]

KINDS: Kinds = {
    "cut": _cut,
    "cut one way": _cut_one_way,
    "lossy": _lossy,
    "slow": _slow,
    "kill agent": _kill_agent,
    "crash in plan": _crash_in_plan,
    "crash at save": _crash_at_save,
    "freeze": _freeze,
    "crash host": _crash_host,
    "power cut": _power_cut,
    "lose record": _lose_record,
    "break disk": _break_disk,
    "slow disk": _slow_disk,
    "terminate": _terminate,
    "shut down": _shut_down,
    "takeover": _takeover,
    "resume": _resume,
    "hang engine": _hang_engine,
    "lose engine": _lose_engine,
    "lose stream": _lose_stream,
    "kill container": _kill_container,
    "break container": _break_container,
    "forbid start": _forbid_start,
    "pause container": _pause_container,
    "sicken container": _sicken_container,
    "remove container": _remove_container,
    "crash loop": _crash_loop,
    "run by hand": _run_by_hand,
}

ELECTIONS = (
    "cut one way",
    "lossy",
    "slow",
    "slow",
    "kill agent",
    "crash at save",
    "crash in plan",
    "power cut",
    "shut down",
    "slow disk",
    "terminate",
)
"""What makes the two ask for leave again and again, over wires that deliver late."""

HANDOVERS = (
    "break container",
    "break container",
    "pause container",
    "forbid start",
    "crash loop",
    "terminate",
    "shut down",
    "hang engine",
    "lose engine",
    "break disk",
    "crash in plan",
    "crash at save",
    "cut",
    "lossy",
    "slow",
)
"""What makes them give the service to each other, and what can come between."""

FEWEST_KINDS, MOST_KINDS = 1, 7


def storm(
    dice: Random,
    hosts: tuple[str, ...],
    lasts_s: float,
    timeout_s: float,
    *,
    kinds: Sequence[str] = (),
    known: Kinds = KINDS,
    that_hurt: Sequence[Sequence[str]] = (ELECTIONS, HANDOVERS),
) -> list[Fault]:
    """A schedule of `lasts_s` seconds for a pair whose T is `timeout_s`, of `kinds` if given."""
    swarm = dice.sample(sorted(known), dice.randint(FEWEST_KINDS, MOST_KINDS))
    kinds = kinds or dice.choice((swarm, swarm, *that_hurt))
    pause_s = dice.choice((0.5, 1.0, 2.0)) * timeout_s
    faults: list[Fault] = []
    at_s = dice.uniform(0.0, 3 * timeout_s)
    while at_s < lasts_s:
        length_s = dice.choice((0.3, 1.0, 3.0)) * timeout_s * dice.uniform(0.2, 1.5)
        faults.append(Fault(at_s, length_s, dice.choice(kinds), dice.choice(hosts), dice.random()))
        at_s += dice.expovariate(1 / pause_s)
    return faults


def unleash(world: World, faults: list[Fault], known: Kinds = KINDS) -> None:
    """Plan every fault and its end."""
    for fault in faults:
        world.scheduler.at(fault.at_s, _stroke(world, fault, known))


def _stroke(world: World, fault: Fault, known: Kinds) -> Undo:
    def strike() -> None:
        if world.is_healed:
            return
        undo = known[fault.kind](world, fault)
        world.scheduler.after(fault.lasts_s, lambda: None if world.is_healed else undo())

    return strike
