"""A random walk of faults over a pair with an arbiter, from a seed that is printed first.

    python -m tests.lab.nemesis --seed 7 --minutes 10 [--arbiter witness | etcd | "three etcd"]

Up to three faults at a time, each for a while around the lease, and now and then none: then
everything is restored, and exactly one active with both others behind it has to follow within the
bound. After each step the truth is read: nothing ever runs on both hosts, but where guard and agent
of a host were away together, or its engine started containers by itself. That overlap is printed,
and bounded by the absence and what a restart takes.
"""

import argparse
import contextlib
import random
import secrets
import sys
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.lab.faults import Fault, draw
from tests.lab.pair import LIMIT_S, pass_time
from tests.lab.trio import Arbiter, Trio
from tests.lab.truth import Overlap, now_s
from tests.lab.until import until

MOST_AT_ONCE = 3
CALM_AFTER = (3, 8)  # so many faults, then a time without
RESTART_S = 5.0  # guard and agent come back, and stop what must not run; on a busy machine


@dataclass(slots=True)
class Struck:
    """A fault under way, or over."""

    fault: Fault
    context: AbstractContextManager[None]
    begin_s: float
    end_s: float  # planned, and then real


class Nemesis:
    """One walk over one trio that runs and is settled."""

    def __init__(self, trio: Trio, seed: int, timeout_s: float) -> None:
        """`timeout_s` is the trio's heartbeat_timeout."""
        self._trio = trio
        self._seed = seed
        self._step = 0
        self._timeout_s = timeout_s
        self._begin_s = now_s()
        self._under_way: list[Struck] = []
        self._excuses: list[Struck] = []
        self._judged_s = self._begin_s
        self.counts: Counter[str] = Counter()
        self.longest_settling_s = 0.0
        self.longest_overlap_s = 0.0

    def walk(self, minutes: float) -> None:
        """Ends everything that it began, also where it raises AssertionError."""
        over_s = now_s() + minutes * 60
        try:
            while now_s() < over_s:
                for _ in range(self._dice().randint(*CALM_AFTER)):
                    self._strike(self._dice())
                    self._pass(self._dice().uniform(0.1, 1.2) * self._timeout_s)
                self._calm()
        finally:
            self._end_all()

    def _dice(self) -> random.Random:
        """Of this step alone: how fast the machine was before moves no later throw."""
        self._step += 1
        return random.Random(f"{self._seed} {self._step}")

    def _strike(self, dice: random.Random) -> None:
        """One more, if it finds all that it needs."""
        fault = draw(self._trio, dice)
        busy = frozenset().union(*(struck.fault.things for struck in self._under_way))
        if fault.things & busy or len(self._under_way) >= MOST_AT_ONCE:
            return
        seconds = dice.choice([0.2, 0.5, 0.8, 1.3, 2.5]) * self._timeout_s
        self._say(f"{fault.sentence}, for {seconds:.1f} s")
        struck = Struck(fault, fault.hurt(), now_s(), now_s() + seconds)
        struck.context.__enter__()
        self._under_way.append(struck)
        if fault.excused:
            self._excuses.append(struck)
        self.counts[fault.sentence] += 1

    def _pass(self, seconds: float) -> None:
        """Time passes; what is due ends."""
        end_s = now_s() + seconds
        while now_s() < end_s:
            next_s = min([end_s, *(struck.end_s for struck in self._under_way)])
            pass_time(max(0.0, next_s - now_s()))
            for struck in [it for it in self._under_way if it.end_s <= now_s()]:
                self._end(struck)
        self._judge()

    def _end(self, struck: Struck) -> None:
        self._under_way.remove(struck)
        struck.context.__exit__(None, None, None)
        struck.end_s = now_s()
        self._say(f"    over: {struck.fault.sentence}")

    def _end_all(self) -> None:
        for struck in [*self._under_way]:
            self._end(struck)

    def _calm(self) -> None:
        """No fault: exactly one active follows, in time for a start of all of them."""
        self._end_all()
        self._trio.restore()
        since_s = now_s()
        active = until(self._trio.find_well, LIMIT_S, "one is active, with both others behind it")
        settled_s = now_s() - since_s
        self.longest_settling_s = max(self.longest_settling_s, settled_s)
        self._say(f"calm: {active.name} is active and all is well after {settled_s:.1f} s")
        assert settled_s <= self._trio.start_bound_s(since_s, active) + self._timeout_s
        overlap_s = self._judge()
        if overlap_s:
            self._say(f"  excused: both hosts ran for {overlap_s:.2f} s")
        self.longest_overlap_s = max(self.longest_overlap_s, overlap_s)
        self._judged_s = now_s()
        self._excuses.clear()

    def _judge(self) -> float:
        """Reads the truth of what was since the last calm; the longest overlap that is excused.

        Raises AssertionError at any other.
        """
        overlaps = self._trio.lab.truth.overlaps(group=True, since_s=self._judged_s)
        for overlap in overlaps:
            at_s = overlap.start_s - self._begin_s
            assert self._is_excused(overlap), f"two at {at_s:.2f} s: {overlap}"
        return max((overlap.seconds for overlap in overlaps), default=0.0)

    def _is_excused(self, overlap: Overlap) -> bool:
        places = {overlap.one.partition("/")[0], overlap.other.partition("/")[0]}
        return any(
            excuse.fault.excused in places
            and excuse.begin_s <= overlap.start_s
            and overlap.start_s + overlap.seconds <= excuse.end_s + RESTART_S
            for excuse in self._excuses
        )

    def _say(self, text: str) -> None:
        print(f"{now_s() - self._begin_s:8.2f}  {text}", flush=True)


def run(seed: int, minutes: float, arbiter: Arbiter, timeout_s: float = 3.0) -> Nemesis:
    """A lab, a trio, a walk. Raises AssertionError where a promise was broken."""
    print(f"nemesis: seed {seed}, {minutes:g} minutes, {arbiter}", flush=True)
    with contextlib.ExitStack() as stack:
        trio = stack.enter_context(Trio.build(arbiter, heartbeat_timeout=timeout_s))
        nemesis = Nemesis(trio, seed, timeout_s)
        nemesis.walk(minutes)
    faults = sum(nemesis.counts.values())
    print(f"nemesis: {faults} faults of {len(nemesis.counts)} kinds from seed {seed}; never two.")
    print(f"  all well again after {nemesis.longest_settling_s:.1f} s at the longest")
    print(f"  longest excused overlap: {nemesis.longest_overlap_s:.2f} s", flush=True)
    return nemesis


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--minutes", type=float, default=10.0)
    arbiters = ("witness", "etcd", "three etcd")
    parser.add_argument("--arbiter", choices=arbiters, default="witness")
    asked = parser.parse_args()
    run(asked.seed, asked.minutes, asked.arbiter)
    return 0


if __name__ == "__main__":
    sys.exit(main())
