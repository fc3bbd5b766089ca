"""One failure at a time, on a pair with an arbiter at rest: S2 and L1 to the letter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from failover_agent.simulation.single import CASES, Case, Outcome, Scene

Strike = Callable[[Scene], float]


def _stays(strike: Strike) -> Case:
    return Case(Outcome.UNTOUCHED, strike)


# --- wires ----------------------------------------------------------------------------------------


def _cut(scene: Scene, one: str, other: str) -> float:
    """One wire, one way or both."""
    world, lasts_s = scene.world, scene.long_s()
    first, second = scene.dice.sample((one, other), 2)
    world.cut(first, second, both_ways=scene.dice.random() < 0.5)
    scene.after(lasts_s, lambda: world.mend(one, other))
    return lasts_s


def _isolate(scene: Scene, name: str, lasts_s: float) -> float:
    world = scene.world
    others = [place for place in world.places if place != name]
    for other in others:
        world.cut(name, other)

    def heal() -> None:
        for other in others:
            world.mend(name, other)

    scene.after(lasts_s, heal)
    return lasts_s


def _nodes_cut(scene: Scene) -> float:
    return _cut(scene, scene.active, scene.standby)


def _active_arbiter_cut(scene: Scene) -> float:
    return _cut(scene, scene.active, scene.world.arbiter)


def _standby_arbiter_cut(scene: Scene) -> float:
    return _cut(scene, scene.standby, scene.world.arbiter)


def _standby_isolated(scene: Scene) -> float:
    return _isolate(scene, scene.standby, scene.long_s())


def _arbiter_isolated(scene: Scene) -> float:
    return _isolate(scene, scene.world.arbiter, scene.long_s())


def _active_isolated_shortly(scene: Scene) -> float:
    policy = scene.policy
    budget_s = policy.lease_s - policy.stop_budget_s - policy.heartbeat_interval_s
    return _isolate(scene, scene.active, 0.8 * budget_s * scene.dice.random())


def _active_isolated(scene: Scene) -> float:
    return _isolate(scene, scene.active, 3 * scene.world.longest_timeout_s())


# --- the arbiter ----------------------------------------------------------------------------------


def _witness_crashes(scene: Scene) -> float:
    lasts_s = scene.long_s()
    scene.world.crash_witness()
    scene.after(lasts_s, scene.world.boot_witness)
    return lasts_s


def _witness_killed(scene: Scene, *, empty: bool) -> float:
    lasts_s = scene.dice.choice((0.1, scene.long_s()))
    scene.world.kill_witness()
    if empty:
        scene.world.empty_witness()
    scene.after(lasts_s, scene.world.start_witness)
    return lasts_s


def _witness_frozen(scene: Scene) -> float:
    lasts_s = scene.long_s()
    scene.world.freeze_witness()
    scene.after(lasts_s, scene.world.thaw_witness)
    return lasts_s


def _witness_disk_breaks(scene: Scene) -> float:
    lasts_s = scene.long_s()
    scene.world.break_disk("witness")
    scene.after(lasts_s, lambda: scene.world.mend_disk("witness"))
    return lasts_s


def _quorum_lost(scene: Scene) -> float:
    lasts_s = scene.long_s()
    scene.world.lose_quorum()
    scene.after(lasts_s, scene.world.recover_store)
    return lasts_s


def _store_slow(scene: Scene) -> float:
    lasts_s = scene.long_s()
    scene.world.slow_store(scene.policy.heartbeat_timeout_s)
    scene.after(lasts_s, scene.world.recover_store)
    return lasts_s


def _store_emptied(scene: Scene) -> float:
    scene.world.empty_store()
    return 0.0


# --- guard and agent ------------------------------------------------------------------------------


def _guard_killed(scene: Scene, *, of_active: bool) -> float:
    scene.world.kill_guard(scene.active if of_active else scene.standby)
    return 0.0


def _guard_frozen(scene: Scene) -> float:
    lasts_s, host = scene.long_s(), scene.active
    scene.world.freeze_guard(host)
    scene.after(lasts_s, lambda: scene.world.thaw_guard(host))
    return lasts_s


def _agent_killed(scene: Scene) -> float:
    scene.world.kill_agent(scene.active)
    return 0.0


def _agent_frozen(scene: Scene) -> float:
    """Or it spins: nothing thaws it but its guard."""
    scene.world.freeze(scene.active)
    return 0.0


def _both_killed(scene: Scene) -> float:
    scene.world.kill_agent(scene.active)
    scene.world.kill_guard(scene.active, supervisor_s=2 * scene.world.longest_timeout_s())
    return 0.0


def _both_frozen(scene: Scene) -> float:
    world, host = scene.world, scene.active
    world.freeze(host)
    world.freeze_guard(host)
    scene.after(2 * world.longest_timeout_s(), lambda: world.thaw_guard(host))
    return 0.0


def _host_crashes(scene: Scene) -> float:
    scene.world.crash_host(scene.active)
    return 0.0


WITH_ARBITER: Mapping[str, Case] = {
    **CASES,
    "the wire between the nodes is cut": _stays(_nodes_cut),
    "the active's wire to the arbiter is cut": _stays(_active_arbiter_cut),
    "the standby's wire to the arbiter is cut": _stays(_standby_arbiter_cut),
    "the standby is isolated": _stays(_standby_isolated),
    "the arbiter is isolated": _stays(_arbiter_isolated),
    "the active is isolated for a moment": _stays(_active_isolated_shortly),
    "the active's guard is killed": _stays(partial(_guard_killed, of_active=True)),
    "the standby's guard is killed": _stays(partial(_guard_killed, of_active=False)),
    "the active's guard is frozen": _stays(_guard_frozen),
    "the active is isolated": Case(Outcome.MOVES, _active_isolated),
    "the active's host crashes": Case(Outcome.MOVES, _host_crashes),
    "the active's agent is killed for long": Case(Outcome.MOVES, _agent_killed),
    "the active's agent is frozen for long": Case(Outcome.RETURNS, _agent_frozen),
    "the active's agent and guard are killed": Case(Outcome.MOVES, _both_killed),
    "the active's agent and guard are frozen": Case(Outcome.MOVES, _both_frozen),
}

WITH_WITNESS: Mapping[str, Case] = {
    **WITH_ARBITER,
    "the witness crashes": _stays(_witness_crashes),
    "the witness is killed": _stays(partial(_witness_killed, empty=False)),
    "the witness is recreated with an empty disk": _stays(partial(_witness_killed, empty=True)),
    "the witness is frozen": _stays(_witness_frozen),
    "the witness cannot write": _stays(_witness_disk_breaks),
}

WITH_ETCD: Mapping[str, Case] = {
    **WITH_ARBITER,
    "etcd loses its quorum": _stays(_quorum_lost),
    "etcd is slow": _stays(_store_slow),
    "etcd is made anew": _stays(_store_emptied),
}
