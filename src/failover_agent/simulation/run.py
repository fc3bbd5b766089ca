"""Whole histories from a seed: a storm, then everything is healed, then the pair must settle.

`python -m failover_agent.simulation --seeds 0..999` runs them; a history that breaks a rule is
printed with its seed, its options and its last events, and can be run again with `--seed`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from functools import partial
from random import Random
from typing import Any

from failover_agent.core.events import CommandKind
from failover_agent.core.policy import OnStop, PartitionPolicy, Policy, Role
from failover_agent.core.state import FOREVER
from failover_agent.simulation import faults, single, single_trio, trio_faults
from failover_agent.simulation.checkers import Broken
from failover_agent.simulation.engine import Container
from failover_agent.simulation.ground import GLANCE_S
from failover_agent.simulation.lane import HEALTHY_WITHIN_S, SETTLED_S
from failover_agent.simulation.network import QUICK_S, cable
from failover_agent.simulation.product import SHIPPED, Product
from failover_agent.simulation.reasons import watch
from failover_agent.simulation.scheduler import Scheduler
from failover_agent.simulation.world import World, build_pair, build_trio

STORM_S = 90.0
LINES = 60

Kinds = Sequence[Sequence[str]]


@unique
class Arbiter(StrEnum):
    """The third voter of a history."""

    NONE = "none"
    WITNESS = "witness"
    ETCD = "etcd"


class Failure(AssertionError):  # noqa: N818 - the failure of a history, not of this program
    """A history broke a rule. Its text is everything a person needs to look into it."""


@dataclass(frozen=True, slots=True)
class Options:
    """What, with the core, decides a history completely. `kinds`: only these faults, if any.
    `cables`: so many ways from each machine to each other; what befalls wires spares the second.
    """

    seed: int
    policy: PartitionPolicy = PartitionPolicy.AVAILABILITY
    storm_s: float = STORM_S
    kinds: tuple[str, ...] = ()
    arbiter: Arbiter = Arbiter.NONE
    cables: int = 1

    def words(self) -> str:
        """How to run it again."""
        only = f" --only {','.join(self.kinds)!r}" if self.kinds else ""
        third = f"--policy {self.policy}"
        if self.arbiter is not Arbiter.NONE:
            third = f"--arbiter {self.arbiter}"
        cables = f" --cables {self.cables}" if self.cables > 1 else ""
        return f"--seed {self.seed} {third} --storm {self.storm_s:g}{only}{cables}"


def draw_policy(dice: Random, options: Options, *, may_fence: bool) -> Policy:
    """Settings that a config file could hold, small enough that much happens in a minute."""
    timeout_s = dice.choice((2.5, 4.0, 6.0))
    partition_policy, has_lease = options.policy, options.arbiter is not Arbiter.NONE
    return Policy(
        role=Role.PRIMARY,
        arbiter=Role.WITNESS if has_lease else None,
        fingerprint=f"{partition_policy} {options.arbiter}",
        has_fence=dice.random() < 0.2 and may_fence,
        containers=dice.choice((("db",), ("db", "web"), ("db", "cache", "web"))),
        heartbeat_interval_s=0.5 if has_lease and timeout_s < 6 else dice.choice((0.5, 1.0)),
        heartbeat_timeout_s=timeout_s,
        startup_grace_period_s=dice.uniform(1.0, 8.0),
        restart_grace_period_s=dice.uniform(2.0, 8.0),
        stop_budget_s=max(0.5, timeout_s / 4),
        kill_budget_s=max(0.25, timeout_s / 10),
        partition_policy=partition_policy,
        restart_attempts=dice.randint(1, 3),
        max_failovers=dice.choice((3, 100)),
        failover_window_s=dice.choice((20.0, 60.0, 3600.0)),
        on_stop=dice.choice(tuple(OnStop)),
    )


def draw_backup(dice: Random, policy: Policy) -> dict[str, Any]:
    """What differs on the backup: with a lease now and then T, and so its budgets (history 1)."""
    if not policy.requires_lease or dice.random() > 0.15:
        return {}
    timeout_s = dice.choice((2.5, 4.0, 6.0))
    return {
        "heartbeat_timeout_s": timeout_s,
        "heartbeat_interval_s": 0.5,
        "stop_budget_s": max(0.5, timeout_s / 4),
        "kill_budget_s": max(0.25, timeout_s / 10),
    }


def draw_container(dice: Random, container: Container, longest_start_s: float) -> None:
    """How slow it starts and stops, and whether it has a health check.

    With a lease a start takes no longer than the rest of the lease: nothing else is promised.
    """
    container.start_takes_s = min(dice.choice((0.1, 0.3, 2.0)), longest_start_s)
    container.stop_takes_s = dice.choice((0.05, 0.3, 2.0))
    container.has_check = dice.random() < 0.3
    container.healthy_after_s = dice.uniform(0.1, 2.0)
    container.restart_policy = "always" if dice.random() < 0.1 else "no"


def draw_manners(world: World) -> None:
    """In every other world agents and engines take their time to start, and messages need a
    connection, as real ones do.
    """
    dice = world.scheduler.dice("manners")
    if dice.random() < 0.5:
        return
    world.agent_starts_s, world.engine_boots_s = (0.2, 1.8), (0.2, 3.0)
    world.network.wants_handshakes = True
    for host in world.hosts.values():
        host.engine.ends_survivors = dice.random() < 0.5


def draw_cables(world: World, options: Options) -> None:
    """Each further cable has a weather of its own, of which no judge is told: cut, lossy, slow by
    beats, or whole, and another again in a while. So whatever a cable does excuses nothing.
    """
    dice = world.scheduler.dice("cables")
    for host in world.hosts.values():
        host.cables = options.cables

    def change() -> None:
        if world.is_healed:
            return
        for one, other in itertools.permutations(world.places, 2):
            for number in range(1, options.cables):
                link = world.network.link(one, cable(other, number))
                link.is_cut = dice.random() < 0.3
                link.loss, link.doubled = dice.choice((0.0, 0.3)), dice.choice((0.0, 0.3))
                link.delay_s = dice.choice((QUICK_S, (0.0, 1.0), (0.0, 6.0)))
        world.scheduler.after(dice.uniform(1.0, 15.0), change)

    change()


def longest_start_s(world: World) -> float:
    """From the first question of a candidacy to the last start call."""
    per_host = (
        sum(c.start_takes_s + (HEALTHY_WITHIN_S if c.has_check else 0.1) for c in containers)
        for containers in (tuple(host.engine.containers.values()) for host in world.hosts.values())
    )
    return max(per_host) + SETTLED_S + 2.0


def settles_within_s(world: World) -> float:
    """How long after the end of all faults exactly one host serves, and all is at rest."""
    policy = next(iter(world.hosts.values())).policy
    stop_s = max(
        sum(c.stop_takes_s for c in host.engine.containers.values())
        for host in world.hosts.values()
    )
    return (
        2 * policy.startup_grace_period_s
        + 2 * policy.restart_grace_period_s
        + 4 * policy.heartbeat_timeout_s
        + 3 * longest_start_s(world)
        + 2 * stop_s
        + 10.0
    )


def who_serves(world: World) -> list[str]:
    """The hosts on which every container is up."""
    return [name for name in world.hosts if world.serves(name)]


def is_settled(world: World) -> bool:
    """Exactly one host serves, and nothing runs on the other."""
    serving = who_serves(world)
    return len(serving) == 1 and all(
        not world.runs(name) for name in world.hosts if name not in serving
    )


def build(options: Options, core: Product = SHIPPED, *, may_fence: bool = True) -> World:
    """The pair of a history, switched on, with its judges."""
    dice = Scheduler(options.seed).dice("options")
    policy = draw_policy(dice, options, may_fence=may_fence)
    backup = draw_backup(dice, policy)
    if options.arbiter is Arbiter.NONE:
        world = build_pair(options.seed, policy, core=core)
    else:
        is_etcd = options.arbiter is Arbiter.ETCD
        world = build_trio(options.seed, policy, core=core, etcd=is_etcd, backup=backup)
    for host in world.hosts.values():
        limit_s = 0.8 * host.policy.stop_budget_s if host.policy.requires_lease else FOREVER
        for container in host.engine.containers.values():
            draw_container(dice, container, limit_s)
    watch(world, longest_start_s(world))
    if world.witness is not None:
        world.scheduler.after(dice.uniform(0.0, 3.0), world.boot_witness)
    for name in world.hosts:
        world.scheduler.after(dice.uniform(0.0, 3.0), partial(_boot, world, name))
    return world


def _boot(world: World, name: str) -> None:
    if not world.hosts[name].is_on:
        world.boot(name)


def weather_a_storm(options: Options, core: Product = SHIPPED) -> World:
    """Safety phase, heal, liveness phase. Raises Failure with the story when a rule is broken."""
    world = build(options, core)
    draw_manners(world)
    if options.cables > 1:
        draw_cables(world, options)
    timeout_s = world.hosts["primary"].policy.heartbeat_timeout_s
    dice = world.scheduler.dice("storm")
    hosts = tuple(world.hosts)
    known, that_hurt = _what_may_happen(dice, options)
    schedule = faults.storm(
        dice,
        hosts,
        options.storm_s,
        timeout_s,
        kinds=options.kinds,
        known=known,
        that_hurt=that_hurt,
    )
    faults.unleash(world, schedule, known)
    try:
        world.run_for(options.storm_s)
        world.heal()
        settle(world)
    except AssertionError as error:
        raise Failure(story(world, options, error)) from error
    return world


def _what_may_happen(dice: Random, options: Options) -> tuple[faults.Kinds, Kinds]:
    """The faults that this world knows, and the sets of them that are known to hurt."""
    usual = (faults.ELECTIONS, faults.HANDOVERS)
    if options.arbiter is Arbiter.NONE:
        return faults.KINDS, usual
    if options.arbiter is Arbiter.WITNESS:
        known, votes = trio_faults.OF_WITNESS, trio_faults.WITNESS_VOTES
    else:
        known, votes = trio_faults.OF_ETCD, trio_faults.ETCD_VOTES
    known = known if options.kinds else trio_faults.with_one_forgetful(dice, known)
    sets = (*usual, trio_faults.LEASES, trio_faults.LEASES, votes)
    return known, tuple(tuple(kind for kind in kinds if kind in known) for kinds in sets)


def _cases_of(options: Options) -> Mapping[str, single.Case]:
    match options.arbiter:
        case Arbiter.NONE:
            return single.CASES_OF[options.policy]
        case Arbiter.WITNESS:
            return single_trio.WITH_WITNESS
        case Arbiter.ETCD:
            return single_trio.WITH_ETCD


def suffer_one_failure(options: Options, core: Product = SHIPPED, name: str = "") -> World:
    """A pair at rest, one failure (`name`, or a drawn one), what must come of it, heal, settle.

    In a plain pair a fence changes what silence leads to: that is for the directed tests.
    """
    world = build(options, core, may_fence=options.arbiter is not Arbiter.NONE)
    dice = world.scheduler.dice("single")
    policy = world.hosts["primary"].policy
    cases = {**_cases_of(options), **single.CASES_BY_ON_STOP[policy.on_stop]}
    name = name or dice.choice(sorted(cases))
    try:
        settle(world)
        world.run_for(dice.uniform(0.0, 2 * policy.startup_grace_period_s))
        world.tell("world", f"one failure: {name}; {cases[name].outcome.value}")
        (active,) = who_serves(world)
        (standby,) = (other for other in world.hosts if other != active)
        scene = single.Scene(world, active, standby, dice)
        single.play(scene, cases[name], longest_start_s(world))
        world.heal()
        settle(world)
    except AssertionError as error:
        raise Failure(story(world, options, error)) from error
    return world


def settle(world: World) -> None:
    """Liveness: within the bound exactly one serves, and goes on to."""
    timeout_s = world.longest_timeout_s()
    at_rest_s, until_s = 0.0, world.now_s + settles_within_s(world)
    operator_may_help = world.a_record_was_lost
    serving: list[str] = []
    while at_rest_s < 3 * timeout_s:
        if world.now_s - at_rest_s > until_s:
            if not operator_may_help or serving:
                who = ", ".join(serving) or "nobody"
                raise Broken("L2", f"long after the last fault {who} serves")
            # A hold for a node that lost its record has no other end than a person's word.
            operator_may_help = False
            until_s += settles_within_s(world)
            for name, host in world.hosts.items():
                if host.agent is not None:
                    world.command(name, CommandKind.TAKEOVER)
        world.run_for(GLANCE_S)
        before, serving = serving, who_serves(world)
        at_rest_s = at_rest_s + GLANCE_S if is_settled(world) and serving == before else 0.0


def story(world: World, options: Options, error: BaseException) -> str:
    """Everything a person needs: what broke, how to see it again, and how it came to it."""
    policy = world.hosts["primary"].policy
    settings = (
        f"T {policy.heartbeat_timeout_s:g}, interval {policy.heartbeat_interval_s:g}, on_stop"
        f" {policy.on_stop}; graces: startup {policy.startup_grace_period_s:.1f}, restart"
        f" {policy.restart_grace_period_s:.1f} ({policy.restart_attempts} attempts); at most"
        f" {policy.max_failovers} failovers in {policy.failover_window_s:g} s"
    )
    lines = [
        f"{type(error).__name__}: {error}",
        f"again: python -m failover_agent.simulation {options.words()}",
        settings,
        f"now {world.now_s:.3f} s; weather: {world.weather.words()}",
        world.tale(LINES),
    ]
    ends = [f"in the end {name}: {words}" for name, words in world.last_words()]
    return "\n".join(lines + ends)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 when every history kept the rules, else 1."""
    parser = argparse.ArgumentParser(prog="python -m failover_agent.simulation")
    parser.add_argument("--seed", type=int, help="one history, with its story")
    parser.add_argument("--seeds", default="0..99", help="FIRST..LAST, or a number of them")
    parser.add_argument("--policy", choices=[*PartitionPolicy, "both"], default="both")
    parser.add_argument("--arbiter", choices=tuple(Arbiter), default=Arbiter.NONE)
    parser.add_argument("--storm", type=float, default=STORM_S, help="seconds of faults")
    parser.add_argument("--only", default="", help="kinds of faults, separated by commas")
    parser.add_argument("--cables", type=int, default=1, help="ways from each machine to another")
    parser.add_argument("--single", action="store_true", help="one failure on a pair at rest")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at a failure")
    asked = parser.parse_args(arguments)
    policies = (
        tuple(PartitionPolicy) if asked.policy == "both" else (PartitionPolicy(asked.policy),)
    )
    arbiter = Arbiter(asked.arbiter)
    if arbiter is not Arbiter.NONE:
        policies = (PartitionPolicy.AVAILABILITY,)
    seeds = range(asked.seed, asked.seed + 1) if asked.seed is not None else _range(asked.seeds)
    kinds = tuple(filter(None, asked.only.split(",")))
    play = suffer_one_failure if asked.single else weather_a_storm
    failures = 0
    for seed in seeds:
        for policy in policies:
            try:
                world = play(Options(seed, policy, asked.storm, kinds, arbiter, asked.cables))
            except Failure as failure:
                failures += 1
                sys.stdout.write(f"{failure}\n\n")
                if not asked.keep_going:
                    return 1
            else:
                if asked.seed is not None:
                    sys.stdout.write(f"{world.tale(LINES)}\n")
    sys.stdout.write(f"{len(seeds) * len(policies)} histories, {failures} broke a rule\n")
    return 1 if failures else 0


def _range(words: str) -> range:
    first, dots, last = words.partition("..")
    return range(int(first), int(last) + 1) if dots else range(int(first))
