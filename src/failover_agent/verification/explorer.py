"""Every history within the bounds: level by level, first without a fault, then with one, with two.

A state is looked at once, at the least number of faults that lead to it: whatever can come of it
was followed from there. Between two faults a history is deterministic, so a level is the states of
the one before, each with one more fault at every moment where that could make a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from random import Random

from failover_agent.core.policy import Policy, Role
from failover_agent.simulation.product import SHIPPED, Product
from failover_agent.verification import faults, rules
from failover_agent.verification.canonical import Canon
from failover_agent.verification.machines import Pace
from failover_agent.verification.tale import Broken, Line, lines
from failover_agent.verification.world import World

Clocks = tuple[int, int, int]
"""Primary, backup, witness: 1 runs fast by the drift, -1 slow, 0 true."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A state as the way to it: after so many events, this one of the faults that were possible.

    Small, where a world is large; a history is deterministic, so it can be lived again.
    """

    clocks: Clocks
    path: tuple[tuple[int, int], ...]
    events: int


Frontier = list[Recipe]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is explored. `most_faults`: at most so many in one history; `seconds`: stop after that.

    `kinds`: what the adversary has. `quantum_s`: states whose times differ by less are one; None:
    half an interval. `clocks`: how those of primary, backup and witness run, each tried in turn.
    """

    most_faults: int = 2
    seconds: float = 90.0
    kinds: frozenset[faults.Kind] = faults.ALL
    quantum_s: float | None = None
    clocks: tuple[Clocks, ...] = ((0, 0, 0), (-1, 1, 1), (1, -1, -1))
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True, slots=True)
class Level:
    """Histories with so many faults: how much of it was covered, and what it took."""

    faults: int
    histories: int
    states: int
    share: float


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A property that does not hold, and the story that shows it."""

    rule: str
    sentence: str
    faults: tuple[str, ...]
    clocks: Clocks
    story: tuple[Line, ...]


@dataclass(slots=True)
class Report:
    """What came of it. `is_complete`: everything within the bounds was explored."""

    levels: list[Level] = field(default_factory=list)
    measures: rules.Measures = field(default_factory=rules.Measures)
    counterexample: Counterexample | None = None
    is_complete: bool = True
    states: int = 0
    took_s: float = 0.0


class _OutOfTime(Exception):  # noqa: N818 - not an error
    pass


class _Refuted(Exception):  # noqa: N818 - not an error
    pass


def explore(
    policy: Policy, bounds: Bounds, core: Product = SHIPPED, *, clock: Callable[[], float]
) -> Report:
    """Everything within `bounds`, or until the first counterexample, or until time is up.

    `clock`: seconds, for the limit alone.
    """
    return _Explorer(policy, bounds, core, clock).explore()


class _Explorer:
    def __init__(
        self, policy: Policy, bounds: Bounds, core: Product, clock: Callable[[], float]
    ) -> None:
        # One container stands for all: they start and stop together here.
        self._policy = replace(policy, containers=policy.containers[:1])
        self._bounds = bounds
        self._core = core
        self._clock = clock
        self._began_s = clock()
        self._report = Report()
        self._histories = 0
        self._visited: set[tuple[tuple[int, ...], Hashable]] = set()
        quantum_s = bounds.quantum_s or policy.heartbeat_interval_s / 2
        self._canon = Canon(quantum_s, policy.heartbeat_timeout_s, policy.startup_grace_period_s)

    def explore(self) -> Report:
        report = self._report
        try:
            frontier = self._level(0, self._beginnings(), 1)
            for number in range(1, self._bounds.most_faults + 1):
                # In any order, so that a level that is broken off is a fair sample of it.
                Random(number).shuffle(frontier)  # noqa: S311 - the same each time, on purpose
                frontier = self._level(number, self._with_one_more(frontier), len(frontier))
        except _OutOfTime:
            report.is_complete = False
        except _Refuted:
            pass
        report.states = len(self._visited)
        report.took_s = self._clock() - self._began_s
        return report

    def _level(self, faults: int, worlds: Iterable[tuple[Recipe, World]], of: int) -> Frontier:
        """Follow each of `worlds`; the states it led to that were not seen before."""
        before = len(self._visited)
        self._histories, self._expanded = 0, 0
        found: Frontier = []
        is_last = faults == self._bounds.most_faults
        try:
            for recipe, world in worlds:
                self._histories += 1
                for events in self._follow(recipe.clocks, world):
                    if not is_last:
                        found.append(replace(recipe, events=events))
        finally:
            share = 1.0 if faults == 0 else self._expanded / max(of, 1)
            states = len(self._visited) - before
            self._report.levels.append(Level(faults, self._histories, states, share))
        return found

    def _beginnings(self) -> Iterator[tuple[Recipe, World]]:
        for clocks in self._bounds.clocks:
            yield Recipe(clocks, (), 0), self._begin(clocks)

    def _begin(self, clocks: Clocks) -> World:
        """Both hosts boot for the first time, the backup a little later."""
        policy = self._policy
        primary, backup, third = (self._rate(fast) for fast in clocks)
        world = World(self._core, self._bounds.pace, self._report.measures)
        if policy.arbiter is not None:
            world.add_witness(third, policy.heartbeat_timeout_s)
        world.add_host(replace(policy, role=Role.PRIMARY), primary)
        world.add_host(replace(policy, role=Role.BACKUP), backup)
        world.boot(Role.PRIMARY)
        world.after(0.3 * policy.heartbeat_interval_s, World.boot, Role.BACKUP)
        return world

    def _rate(self, fast: int) -> float:
        return float((1 + self._policy.clock_drift) ** fast)

    def _live_again(self, recipe: Recipe) -> World:
        world = self._begin(recipe.clocks)
        for events, choice in recipe.path:
            while world.events < events:
                world.advance()
            faults.apply(world, list(faults.options(world, self._bounds.kinds))[choice])
        while world.events < recipe.events:
            world.advance()
        return world

    def _with_one_more(self, states: Frontier) -> Iterator[tuple[Recipe, World]]:
        """Each of `states` with one fault, at each moment until its next checkpoint."""
        for recipe in states:
            world = self._live_again(recipe)
            while True:
                for choice, fault in enumerate(faults.options(world, self._bounds.kinds)):
                    other = world.fork()
                    faults.apply(other, fault)
                    path = (*recipe.path, (world.events, choice))
                    yield replace(recipe, path=path), other
                world.advance()
                if world.is_checkpoint:
                    break
            self._expanded += 1

    def _follow(self, clocks: Clocks, world: World) -> Iterator[int]:
        """Let it unfold without a fault until it comes to a state that is known.

        At each new state: after how many events.
        """
        try:
            while True:
                world.advance()
                if not world.is_checkpoint:
                    continue
                if self._clock() - self._began_s > self._bounds.seconds:
                    raise _OutOfTime
                rules.look(world, self._policy)
                state = (clocks, self._canon.key(world))
                if state in self._visited:
                    return
                self._visited.add(state)
                yield world.events
        except Broken as broken:
            self._refute(clocks, world, broken.rule, broken.sentence)
        except AssertionError as error:
            self._refute(clocks, world, "what the core itself asserts", str(error))

    def _refute(self, clocks: Clocks, world: World, rule: str, sentence: str) -> None:
        story = tuple(lines(world.tale))
        self._report.counterexample = Counterexample(rule, sentence, world.spent, clocks, story)
        raise _Refuted
