"""Random fault sequences in the simulator's vocabulary, replayed on a real pair, and compared.

    python -m tests.lab.replay --seeds 1-50 [--policy availability | consistency | both]

From each seed comes one sequence of faults. It befalls many simulated pairs, each with a luck of
its own, and then two hosts with real engines. The same judges look at both. What a real pair did
and no simulated one is printed as a difference: a mistake in the product, in the lab, or something
that the simulator does not know yet.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

from failover_agent.core.policy import OnStop, PartitionPolicy, Policy, Role
from failover_agent.simulation import faults
from failover_agent.simulation.faults import Fault
from failover_agent.simulation.reasons import watch
from failover_agent.simulation.run import longest_start_s, settle, who_serves
from failover_agent.simulation.world import World, build_pair
from tests.lab.agent import TIMINGS
from tests.lab.chronicle import HOSTS, Chronicle, Verdict
from tests.lab.journal import passed_since
from tests.lab.lab import Lab, Node
from tests.lab.pair import LIMIT_S, is_redundant, runs_all
from tests.lab.service import Spec
from tests.lab.strokes import KINDS, Strokes, forget
from tests.lab.truth import Run, now_s
from tests.lab.until import LabTimeout, until

SPECS: tuple[str | Spec, ...] = ("db", Spec("web", health=True))
CONTAINERS = ("db", "web")
TIMEOUT_S = TIMINGS["heartbeat_timeout"]
STORM_S = 12.0
FEWEST = 3  # faults
SIMULATED = 12  # pairs for each real one, and once more as many where that one differs
LOOK_S = 0.25
SLOWER_S = 6.0  # a busy machine starts an agent in five seconds
SETTLES_S = 2 * LIMIT_S


@dataclass(frozen=True, slots=True)
class Plight:
    """What befalls a pair, and the settings of that pair. From a seed alone."""

    seed: int
    policy: PartitionPolicy
    on_stop: OnStop
    max_failovers: int
    faults: tuple[Fault, ...]

    @property
    def overrides(self) -> dict[str, Any]:
        """As the file has it."""
        return {
            "partition_policy": self.policy.value,
            "on_stop": self.on_stop.value,
            "max_failovers": self.max_failovers,
        }

    def core_policy(self) -> Policy:
        """As the core has it."""
        return Policy(
            role=Role.PRIMARY,
            containers=CONTAINERS,
            heartbeat_interval_s=TIMINGS["heartbeat_interval"],
            check_heartbeat_interval_s=TIMINGS["check_heartbeat_interval"],
            heartbeat_timeout_s=TIMEOUT_S,
            startup_grace_period_s=TIMINGS["startup_grace_period"],
            restart_grace_period_s=TIMINGS["restart_grace_period"],
            stop_budget_s=TIMEOUT_S / 4,
            kill_budget_s=TIMEOUT_S / 10,
            partition_policy=self.policy,
            on_stop=self.on_stop,
            max_failovers=self.max_failovers,
        )

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"seed {self.seed}: {self.policy}, {self.on_stop}, max {self.max_failovers}"
        for fault in self.faults:
            yield (
                f"  {fault.at_s:6.2f}  {fault.kind} on {fault.host}"
                f" for {fault.lasts_s:.2f} s (luck {fault.luck:.3f})"
            )


def draw(seed: int, policy: PartitionPolicy) -> Plight:
    """A storm of the kinds that have a lever; the first fault comes at once."""
    dice = Random(f"replay {seed}")
    that_hurt = [
        tuple(kind for kind in kinds if kind in KINDS)
        for kinds in (faults.ELECTIONS, faults.HANDOVERS)
    ]
    known = {kind: faults.KINDS[kind] for kind in KINDS}
    storm: list[Fault] = []
    while len(storm) < FEWEST:
        storm = faults.storm(
            dice, tuple(HOSTS.values()), STORM_S, TIMEOUT_S, known=known, that_hurt=that_hurt
        )
    first_s = storm[0].at_s
    return Plight(
        seed=seed,
        policy=policy,
        on_stop=dice.choice(tuple(OnStop)),
        max_failovers=dice.choice((3, 100)),
        faults=tuple(_real(replace(fault, at_s=fault.at_s - first_s)) for fault in storm),
    )


def _real(fault: Fault) -> Fault:
    """With luck that the lab has too: no systemd that restarts, and processes can be seen."""
    match fault.kind:
        case "terminate":
            return replace(fault, luck=0.3 + 0.7 * fault.luck)
        case "hang engine":
            return replace(fault, luck=0.5 * fault.luck)
        case "lose engine":
            return replace(fault, luck=int(fault.luck * 10) / 10 + 0.01)
        case _:
            return fault


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a sequence. `path`: the hosts that served alone, in their order."""

    path: tuple[str, ...]
    passed: frozenset[str]
    settled_s: float
    overlap_s: float
    broken: str = ""

    @property
    def ends(self) -> str:
        """Who serves in the end."""
        return self.path[-1] if self.path else "nobody"


# -- simulated -------------------------------------------------------------------------------------


class _Path:
    """Who served alone, one after the other, and for how long both ran."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.hosts: list[str] = ["primary"]
        self.overlap_s = 0.0
        self._looks()

    def _looks(self) -> None:
        serving = who_serves(self._world)
        note(self.hosts, serving)
        if all(self._world.runs(host) for host in self._world.hosts):
            self.overlap_s += LOOK_S
        self._world.scheduler.after(LOOK_S, self._looks)


def note(path: list[str], serving: Sequence[str]) -> None:
    """Adds the one that serves alone, if it is another than before."""
    if len(serving) == 1 and path[-1:] != list(serving):
        path.append(serving[0])


def simulate(sequence: Plight, number: int) -> tuple[Outcome, str]:
    """On a simulated pair; `number` is its luck. The outcome, and the story."""
    world = build_pair(f"replay {sequence.seed} {number}", sequence.core_policy())
    dice = world.scheduler.dice("machines")
    for host in world.hosts.values():
        host.engine.ends_survivors = True
        for container in host.engine.containers.values():
            container.start_takes_s = dice.uniform(0.2, 1.0)
            container.stop_takes_s = dice.uniform(0.05, 0.5)
            container.has_check = container.name == "web"
            container.healthy_after_s = dice.uniform(0.5, 1.0)
    watch(world, longest_start_s(world))
    for name in world.hosts:
        world.boot(name)
    passed: frozenset[str] = frozenset()
    broken, path, settled_s = "", None, 0.0
    try:
        world.run_until(lambda: who_serves(world) == ["primary"], 60)
        world.run_for(2.0)
        world.agent_starts_s, world.engine_boots_s = (0.5, 2.0), (0.5, 3.0)
        world.network.wants_handshakes = True
        begin_s = world.now_s
        path = _Path(world)
        world.tell("world", "the sequence begins")
        faults.unleash(
            world, [replace(fault, at_s=begin_s + fault.at_s) for fault in sequence.faults]
        )
        world.run_for(STORM_S)
        world.heal()
        healed_s = world.now_s
        settle(world)
        settled_s = world.now_s - healed_s - 3 * TIMEOUT_S
    except AssertionError as error:
        broken = f"{type(error).__name__}: {error}".splitlines()[0]
    tale = world.tale(4000).partition("the sequence begins")[2]
    passed = frozenset(_passed_in(tale))
    hosts, overlap_s = ((), 0.0) if path is None else (tuple(path.hosts), path.overlap_s)
    return Outcome(hosts, passed, settled_s, overlap_s, broken), tale


def _passed_in(tale: str) -> Iterator[str]:
    for line in tale.splitlines():
        _, arrow, rest = line.partition(" -> ")
        if arrow and ", term" in rest:
            yield rest.partition(", term")[0]


# -- real ------------------------------------------------------------------------------------------


class Pair:
    """Two hosts with their engines, for one sequence after the other."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def play(self, sequence: Plight) -> tuple[Outcome, Verdict]:
        """From a cold start to the end of all faults, and until the pair is at rest."""
        self._cold_start(sequence)
        book = Chronicle()
        strokes = Strokes(self.lab, TIMEOUT_S, lambda node: self._start_agent(node, sequence), book)
        settled_s, broken = 0.0, ""
        try:
            self._storm(strokes, sequence, book.began_s)
            strokes.heal()
            healed_s = now_s()
            try:
                self._settle(strokes, book)
                settled_s = now_s() - healed_s - TIMEOUT_S
            except LabTimeout as error:
                broken = f"L2: {error}"
            runs = self.lab.truth.runs()
            verdict = book.judge(sequence.core_policy(), runs, 6.0)
            path, overlap_s = _path_of(runs, book.began_s)
            passed = frozenset(
                step for node in strokes.nodes for step in passed_since(node, book.began_s)
            )
            return Outcome(path, passed, settled_s, overlap_s, broken or verdict.broken), verdict
        finally:
            strokes.heal()
            strokes.close()
            for node in strokes.nodes:
                forget(node)

    def _cold_start(self, sequence: Plight) -> None:
        for node in (self.lab.a, self.lab.b):
            self._start_agent(node, sequence)
        until(lambda: is_redundant(self.lab.a), LIMIT_S, "the pair is at rest")
        until(lambda: runs_all(self.lab, self.lab.a), LIMIT_S, "the primary serves")

    def _start_agent(self, node: Node, sequence: Plight) -> None:
        role: Literal["primary", "backup"] = "primary" if node is self.lab.a else "backup"
        self.lab.start_agent(node, role, sequence.overrides)

    def _storm(self, strokes: Strokes, sequence: Plight, begin_s: float) -> None:
        waiting = list(sequence.faults)

        def is_over() -> bool:
            while waiting and now_s() >= begin_s + waiting[0].at_s:
                strokes.strike(waiting.pop(0))
            strokes.pass_by()
            return now_s() >= begin_s + STORM_S

        until(is_over, STORM_S + LIMIT_S, "the storm is over", poll_s=0.03)

    def _settle(self, strokes: Strokes, book: Chronicle) -> None:
        """Exactly one serves, and goes on to for T."""
        since_s: dict[str, float] = {"at rest": now_s(), "helped": now_s()}
        before: list[Node] = []

        def is_at_rest() -> bool:
            nonlocal before
            strokes.pass_by()
            for node in strokes.nodes:
                strokes.start_agent(node)
            serving = [node for node in strokes.nodes if runs_all(self.lab, node)]
            others = [node for node in strokes.nodes if node not in serving]
            alone = len(serving) == 1 and not self.lab.truth.running_now(others[0].name)
            if not alone or serving != before:
                since_s["at rest"], before = now_s(), serving
            if book.a_record_was_lost and now_s() - since_s["helped"] > LIMIT_S and not serving:
                # A hold for a node that lost its record has no other end than a person's word.
                since_s["helped"] = now_s()
                for node in strokes.nodes:
                    node.agent.cli("takeover", "--peer-is-off")
            return now_s() - since_s["at rest"] >= TIMEOUT_S

        until(is_at_rest, SETTLES_S, "one serves, and goes on to", poll_s=0.1)


def _path_of(runs: Sequence[Run], begin_s: float) -> tuple[tuple[str, ...], float]:
    """Who served alone, one after the other, and for how long both hosts ran something."""
    path = ["primary"]
    overlap_s = 0.0
    moment_s, end_s = begin_s, max((run.last_s for run in runs), default=begin_s)
    while moment_s < end_s:
        there = {
            (HOSTS[run.host], run.name) for run in runs if run.first_s <= moment_s <= run.last_s
        }
        serving = [
            host for host in HOSTS.values() if all((host, name) in there for name in CONTAINERS)
        ]
        note(path, serving)
        if len({host for host, _ in there}) > 1:
            overlap_s += LOOK_S
        moment_s += LOOK_S
    return tuple(path), overlap_s


# -- both ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Comparison:
    """One sequence in both worlds."""

    sequence: Plight
    real: Outcome
    verdict: Verdict
    simulated: tuple[Outcome, ...]

    @property
    def failures(self) -> list[str]:
        """Promises that were broken, here or there."""
        found = [f"simulated: {it.broken}" for it in self.simulated if it.broken]
        return [f"real: {self.real.broken}", *found] if self.real.broken else found

    @property
    def differences(self) -> list[str]:
        """What the real pair did and no simulated one."""
        found = []
        if self.real.path not in {it.path for it in self.simulated}:
            paths = sorted({" ".join(it.path) for it in self.simulated})
            found.append(f"path {' '.join(self.real.path)}; simulated: {' | '.join(paths)}")
        known = frozenset[str]().union(*(it.passed for it in self.simulated))
        found += [f"passed {step}" for step in sorted(self.real.passed - known)]
        longest_s = max(it.settled_s for it in self.simulated)
        if self.real.settled_s > longest_s + SLOWER_S:
            found.append(f"settled after {self.real.settled_s:.1f} s, not {longest_s:.1f}")
        return found

    def line(self) -> str:
        """For people."""
        real, sequence = self.real, self.sequence
        return (
            f"seed {sequence.seed:3} {sequence.policy:12} {len(sequence.faults)} faults:"
            f" {' '.join(host[0] for host in real.path)}, settled {real.settled_s:.1f} s,"
            f" both ran {real.overlap_s:.1f} s (simulated up to"
            f" {max(it.overlap_s for it in self.simulated):.1f})"
        )


def compare(
    sequence: Plight, real: Outcome, verdict: Verdict, simulated: int = SIMULATED
) -> Comparison:
    """What became of the real pair, beside as many simulated ones as it takes to find its like."""
    compared = Comparison(sequence, real, verdict, ())
    for more in (simulated, simulated, 2 * simulated):
        known = compared.simulated
        numbers = range(len(known), len(known) + more)
        more_of_them = tuple(simulate(sequence, number)[0] for number in numbers)
        compared = replace(compared, simulated=known + more_of_them)
        if not compared.differences:
            break
    return compared


@contextmanager
def real_pair() -> Iterator[Pair]:
    """In a lab of its own."""
    with Lab(SPECS) as lab:
        yield Pair(lab)


def run(plights: Iterable[Plight]) -> list[Comparison]:
    """One after the other, each with a line; what is not as it should be in full."""
    found = []
    with real_pair() as pair:
        for plight in plights:
            compared = compare(plight, *pair.play(plight))
            print(compared.line(), flush=True)
            if compared.failures or compared.differences:
                print("\n".join(plight.lines()))
                print("\n".join(f"  BROKEN {failure}" for failure in compared.failures))
                print("\n".join(f"  DIFFERS {it}" for it in compared.differences))
                print("\n".join(f"    {line}" for line in compared.verdict.tale), flush=True)
            found.append(compared)
    return found


def _plights(seeds: Iterable[int], asked: str) -> Iterator[Plight]:
    """Of each seed; in turn: the odd ones under one policy, the even ones under the other."""
    policies = tuple(PartitionPolicy)
    for seed in seeds:
        match asked:
            case "both":
                yield from (draw(seed, policy) for policy in policies)
            case "in turn":
                yield draw(seed, policies[1 - seed % 2])
            case _:
                yield draw(seed, PartitionPolicy(asked))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="1-50", help="FIRST-LAST, or one")
    parser.add_argument(
        "--policy", choices=[*PartitionPolicy, "both", "in turn"], default="in turn"
    )
    asked = parser.parse_args()
    first, _, last = asked.seeds.partition("-")
    plights = _plights(range(int(first), int(last or first) + 1), asked.policy)
    found = run(plights)
    broken = sum(1 for it in found if it.failures)
    differ = sum(1 for it in found if it.differences)
    print(f"replay: {len(found)} sequences; {broken} broke a promise, {differ} differed")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
