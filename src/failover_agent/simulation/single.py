"""One failure at a time, on a pair at rest: S2 and L1 to the letter.

Each case says what befalls the pair and what must come of it: nothing may be touched, or the
service runs again within a bound that is computed from the settings, as `check` prints it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, unique
from random import Random

from failover_agent.core import bounds
from failover_agent.core.policy import OnStop, PartitionPolicy, Policy
from failover_agent.simulation.checkers import MARGIN_S, Broken
from failover_agent.simulation.engine import Mode
from failover_agent.simulation.facts import Ended, Fact, Started
from failover_agent.simulation.fence import TIMEOUT_S
from failover_agent.simulation.scheduler import Call
from failover_agent.simulation.world import World

MEASURED = bounds.Measured(rtt_s=0.06, fsync_s=0.03, wake_s=0.05, kill_s=0.05)
"""Of this world, when it is well."""


@unique
class Outcome(Enum):
    """What one failure may lead to."""

    UNTOUCHED = "no agent starts or stops a container"
    REPAIRED = "the container runs again where it was, and nothing else is touched"
    MOVES = "the service runs on the other host within the bound"
    WAITS = "nothing is touched while it lasts; then the service runs again"
    RETURNS = "the service runs on one of the two within the bound"


@dataclass(frozen=True, slots=True)
class Scene:
    """A pair at rest: who serves, who watches, and the dice for the details."""

    world: World
    active: str
    standby: str
    dice: Random

    @property
    def policy(self) -> Policy:
        """The settings of the one that serves."""
        return self.world.hosts[self.active].policy

    def container(self) -> str:
        """One of the containers."""
        return self.dice.choice(self.policy.containers)

    def short_s(self) -> float:
        """Too short for anybody to notice, the start of a run included."""
        return 0.9 * bounds.absence_s(self.policy) * self.dice.random()

    def long_s(self) -> float:
        """Long enough for everybody to notice."""
        return self.policy.heartbeat_timeout_s * self.dice.uniform(1.5, 4.0)

    def after(self, seconds: float, call: Call) -> None:
        """Do it later."""
        self.world.scheduler.after(seconds, call)


@dataclass(frozen=True, slots=True)
class Case:
    """`strike` answers how long, in seconds, the failure lasts (0: it stays until healed)."""

    outcome: Outcome
    strike: Callable[[Scene], float]


# --- of the standby, of the path ------------------------------------------------------------------


def _standby_host_crashes(scene: Scene) -> float:
    lasts_s = scene.long_s()
    scene.world.crash_host(scene.standby)
    scene.after(lasts_s, lambda: scene.world.boot(scene.standby))
    return lasts_s


def _agent_killed(scene: Scene, host: str, lasts_s: float) -> float:
    scene.world.kill_agent(host)
    scene.after(lasts_s, lambda: scene.world.start_agent(host))
    return lasts_s


def _agent_frozen(scene: Scene, host: str, lasts_s: float) -> float:
    scene.world.freeze(host)
    scene.after(lasts_s, lambda: scene.world.thaw(host))
    return lasts_s


def _engine_lost(scene: Scene, host: str) -> float:
    mode = scene.dice.choice((Mode.HANGS, Mode.REFUSES))
    lasts_s = scene.long_s() + 2 * scene.policy.restart_grace_period_s
    scene.world.lose_engine(host, mode, visible=scene.dice.random() < 0.5)
    scene.after(lasts_s, lambda: scene.world.recover_engine(host))
    return lasts_s


def _stream_lost(scene: Scene, host: str) -> float:
    lasts_s = scene.long_s()
    scene.world.lose_stream(host)
    scene.after(lasts_s, lambda: scene.world.recover_engine(host))
    return lasts_s


def _disk_breaks(scene: Scene, host: str) -> float:
    lasts_s = scene.long_s()
    scene.world.break_disk(host)
    scene.after(lasts_s, lambda: scene.world.mend_disk(host))
    return lasts_s


def _standby_cannot_start(scene: Scene) -> float:
    lasts_s, name = scene.long_s(), scene.container()
    scene.world.forbid_start(scene.standby, name)
    scene.after(lasts_s, lambda: scene.world.allow_start(scene.standby, name))
    return lasts_s


def _standby_lacks_container(scene: Scene) -> float:
    lasts_s, name = scene.long_s(), scene.container()
    scene.world.remove_container(scene.standby, name)
    scene.after(lasts_s, lambda: scene.world.recreate_container(scene.standby, name))
    return lasts_s


def _standby_terminated(scene: Scene) -> float:
    lasts_s = scene.long_s()
    scene.world.terminate(scene.standby)
    scene.after(lasts_s, lambda: _start_if_gone(scene.world, scene.standby))
    return lasts_s


def _start_if_gone(world: World, host: str) -> None:
    if world.hosts[host].agent is None:
        world.start_agent(host)


def _short_cut(scene: Scene) -> float:
    lasts_s = scene.short_s()
    one, other = scene.dice.sample((scene.active, scene.standby), 2)
    scene.world.cut(one, other, both_ways=scene.dice.random() < 0.5)
    scene.after(lasts_s, lambda: scene.world.mend(one, other))
    return lasts_s


def _long_cut(scene: Scene) -> float:
    lasts_s = scene.long_s()
    one, other = scene.dice.sample((scene.active, scene.standby), 2)
    scene.world.cut(one, other, both_ways=scene.dice.random() < 0.5)
    scene.after(lasts_s, lambda: scene.world.mend(one, other))
    return lasts_s


# --- of the active side ---------------------------------------------------------------------------


def _host_crashes(scene: Scene) -> float:
    scene.world.crash_host(scene.active)
    return 0.0


def _host_crashes_and_boots(scene: Scene) -> float:
    lasts_s = scene.long_s()
    scene.world.crash_host(scene.active)
    scene.after(lasts_s, lambda: scene.world.boot(scene.active))
    return lasts_s


def _container_breaks(scene: Scene) -> float:
    scene.world.break_container(scene.active, scene.container())
    return 0.0


def _container_is_paused(scene: Scene) -> float:
    scene.world.pause_container(scene.active, scene.container())
    return 0.0


def _container_is_sick(scene: Scene) -> float:
    scene.world.sicken_container(scene.active, scene.container())
    return 0.0


def _container_is_removed(scene: Scene) -> float:
    scene.world.remove_container(scene.active, scene.container())
    return 0.0


def _container_dies(scene: Scene) -> float:
    scene.world.kill_container(scene.active, scene.container())
    return 0.0


def _compose_recreates(scene: Scene) -> float:
    name, world, host = scene.container(), scene.world, scene.active
    world.remove_container(host, name)
    scene.after(0.2, lambda: world.recreate_container(host, name))
    scene.after(0.4, lambda: world.hosts[host].engine.launch(name, by_us=False))
    return 0.4


def _engine_dies_with_all(scene: Scene) -> float:
    scene.world.lose_engine(scene.active, Mode.REFUSES, processes_die=True, visible=True)
    return 0.0


def _terminated(scene: Scene) -> float:
    lasts_s = scene.long_s()
    scene.world.terminate(scene.active)
    scene.after(lasts_s, lambda: _start_if_gone(scene.world, scene.active))
    return lasts_s


def _restarted(scene: Scene) -> float:
    lasts_s = scene.long_s()
    scene.world.terminate(scene.active, restarting=True)
    scene.after(lasts_s, lambda: _start_if_gone(scene.world, scene.active))
    return lasts_s


def _shut_down(scene: Scene) -> float:
    scene.world.terminate(scene.active, host_is_shutting_down=True)
    return 0.0


CASES: Mapping[str, Case] = {
    "the standby's host crashes": Case(Outcome.UNTOUCHED, _standby_host_crashes),
    "the standby's agent is killed": Case(
        Outcome.UNTOUCHED, lambda scene: _agent_killed(scene, scene.standby, scene.long_s())
    ),
    "the standby's agent is frozen": Case(
        Outcome.UNTOUCHED, lambda scene: _agent_frozen(scene, scene.standby, scene.long_s())
    ),
    "the standby's engine is lost": Case(
        Outcome.UNTOUCHED, lambda scene: _engine_lost(scene, scene.standby)
    ),
    "the standby's record cannot be written": Case(
        Outcome.UNTOUCHED, lambda scene: _disk_breaks(scene, scene.standby)
    ),
    "the standby cannot start": Case(Outcome.UNTOUCHED, _standby_cannot_start),
    "the standby lacks a container": Case(Outcome.UNTOUCHED, _standby_lacks_container),
    "the standby is terminated": Case(Outcome.UNTOUCHED, _standby_terminated),
    "the wire is cut for a moment": Case(Outcome.UNTOUCHED, _short_cut),
    "the active's agent is killed and soon back": Case(
        Outcome.UNTOUCHED, lambda scene: _agent_killed(scene, scene.active, scene.short_s())
    ),
    "the active's agent is frozen for a moment": Case(
        Outcome.UNTOUCHED, lambda scene: _agent_frozen(scene, scene.active, scene.short_s())
    ),
    "the active's engine is lost, its containers live": Case(
        Outcome.UNTOUCHED, lambda scene: _engine_lost(scene, scene.active)
    ),
    "the active's stream is lost": Case(
        Outcome.UNTOUCHED, lambda scene: _stream_lost(scene, scene.active)
    ),
    "the active's record cannot be written": Case(
        Outcome.UNTOUCHED, lambda scene: _disk_breaks(scene, scene.active)
    ),
    "the active's agent is restarted by systemd": Case(Outcome.UNTOUCHED, _restarted),
    "a compose recreate": Case(Outcome.UNTOUCHED, _compose_recreates),
    "a container dies": Case(Outcome.REPAIRED, _container_dies),
    "a container is beyond repair": Case(Outcome.MOVES, _container_breaks),
    "a container is paused": Case(Outcome.MOVES, _container_is_paused),
    "a container is unhealthy": Case(Outcome.MOVES, _container_is_sick),
    "a container is removed": Case(Outcome.MOVES, _container_is_removed),
    "the active's engine ends with its containers": Case(Outcome.MOVES, _engine_dies_with_all),
    "the active's host is shut down": Case(Outcome.MOVES, _shut_down),
}
"""What holds under both partition policies."""

CASES_OF: Mapping[PartitionPolicy, Mapping[str, Case]] = {
    PartitionPolicy.AVAILABILITY: {
        **CASES,
        "the active's host crashes": Case(Outcome.MOVES, _host_crashes),
    },
    PartitionPolicy.CONSISTENCY: {
        **CASES,
        "the active's host crashes and boots": Case(Outcome.WAITS, _host_crashes_and_boots),
        "the wire is cut for long": Case(Outcome.UNTOUCHED, _long_cut),
        "the active's agent is killed for long": Case(
            Outcome.UNTOUCHED, lambda scene: _agent_killed(scene, scene.active, scene.long_s())
        ),
        "the active's agent is frozen for long": Case(
            Outcome.UNTOUCHED, lambda scene: _agent_frozen(scene, scene.active, scene.long_s())
        ),
    },
}

CASES_BY_ON_STOP: Mapping[OnStop, Mapping[str, Case]] = {
    OnStop.HANDOVER: {"the active is terminated": Case(Outcome.MOVES, _terminated)},
    OnStop.LEAVE: {"the active is terminated": Case(Outcome.UNTOUCHED, _terminated)},
}


class Touches:
    """What agents did to containers since the strike, by the engines' word."""

    def __init__(self, world: World) -> None:
        """Nothing yet."""
        self.started: list[tuple[str, str]] = []
        self.stopped: list[tuple[str, str]] = []
        world.chronicle.watchers.append(self)

    def see(self, fact: Fact) -> None:
        """Only what agents do."""
        match fact:
            case Started(host, container) if container.by_us:
                self.started.append((host, container.name))
            case Ended(host, container, by_agent=True):
                self.stopped.append((host, container.name))
            case _:
                pass


def moves_within_s(scene: Scene, longest_start_s: float) -> float:
    """L1: the longest outage after one failure of the active side."""
    policy = scene.policy
    engines = [host.engine for host in scene.world.hosts.values()]
    stop_s = max(sum(c.stop_takes_s for c in engine.containers.values()) for engine in engines)
    silence_s = policy.heartbeat_timeout_s * (1 + policy.clock_drift) ** 2
    if policy.requires_lease:
        patient = max((host.policy for host in scene.world.hosts.values()), key=_timeout_s)
        silence_s = bounds.takeover_s(
            patient, MEASURED, fence_timeout_s=TIMEOUT_S, is_register=True
        )
    down_s = (1 + policy.clock_drift) * (
        policy.restart_grace_period_s + policy.startup_grace_period_s
    )
    asked_s = 2 * policy.heartbeat_interval_s
    return max(silence_s, down_s + asked_s + stop_s) + longest_start_s + 2 * MARGIN_S


def _timeout_s(policy: Policy) -> float:
    return policy.heartbeat_timeout_s


def play(scene: Scene, case: Case, longest_start_s: float) -> None:
    """Strike, let it last, and hold the pair to the outcome."""
    world, touches = scene.world, Touches(scene.world)
    began_s = world.now_s
    lasts_s = case.strike(scene)
    if case.outcome in (Outcome.MOVES, Outcome.RETURNS):
        hosts = [scene.standby]
        if case.outcome is Outcome.RETURNS:
            world.run_until(lambda: not world.serves(scene.active), scene.policy.lease_s)
            hosts.append(scene.active)
        _must_move(scene, hosts, began_s + moves_within_s(scene, longest_start_s))
        return
    if case.outcome is Outcome.WAITS:
        world.run_for(lasts_s)
        _must_be(not touches.started, "L1", f"{touches.started} started while it lasted")
        limit_s = scene.policy.startup_grace_period_s + scene.policy.heartbeat_timeout_s
        world.run_for((1 + scene.policy.clock_drift) ** 2 * limit_s + longest_start_s + MARGIN_S)
        serving = [name for name in world.hosts if world.serves(name)]
        _must_be(len(serving) == 1, "L1", f"{serving} serve after the boot")
        return
    world.run_for(lasts_s + moves_within_s(scene, longest_start_s))
    _must_be(world.serves(scene.active), "S2", f"{scene.active} serves no more")
    _must_be(not touches.stopped, "S2", f"agents stopped {touches.stopped}")
    repaired = 1 if case.outcome is Outcome.REPAIRED else 0
    _must_be(len(touches.started) == repaired, "S2", f"agents started {touches.started}")


def _must_move(scene: Scene, hosts: list[str], until_s: float) -> None:
    world = scene.world
    while not any(world.serves(host) for host in hosts):
        if world.now_s > until_s:
            raise Broken("L1", f"{' nor '.join(hosts)} does not serve after {scene.active} failed")
        world.run_for(0.1)


def _must_be(kept: bool, rule: str, sentence: str) -> None:
    if not kept:
        raise Broken(rule, sentence)
