"""Cold starts of a pair, both hosts at once or nearly so: exactly one active, never two.

    python -m tests.lab.cold --starts 20 [--seed 1]

They go through both partition policies, a witness and none, records kept over a power cut and none
at all; who starts first, and by how much, is drawn from the seed.
"""

import argparse
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.lab.agent import PORT, TIMINGS, Role
from tests.lab.lab import Lab, Node
from tests.lab.metronome import Metronome
from tests.lab.pair import LIMIT_S, assert_never_two, is_redundant, pass_time, runs_all, status
from tests.lab.strokes import RECORDS
from tests.lab.truth import now_s
from tests.lab.until import until

APART_S = 1.5  # at most, between the first and the last
SET_UPS = ("availability", "consistency", "witness")
AGENT_STARTS_S = 2.0  # from its process to its first word, where nobody else wants a processor
CONTAINERS_START_S = 2.0


@dataclass(frozen=True, slots=True)
class Start:
    """One cold start. `offsets_s`: when each machine comes, by the letter of its host."""

    number: int
    set_up: str
    keeps_records: bool
    offsets_s: dict[str, float]

    @property
    def has_witness(self) -> bool:
        return self.set_up == "witness"

    def words(self) -> str:
        records = "records kept" if self.keeps_records else "no records"
        order = ", ".join(f"{letter} {at_s:.2f}" for letter, at_s in self.offsets_s.items())
        return f"{self.number:3} {self.set_up:12} {records:12} {order}"


def draw(starts: int, seed: int) -> list[Start]:
    """Each set-up begins without records; a later start in it keeps them, or does not."""
    dice = Random(f"cold {seed}")
    drawn: list[Start] = []
    for number in range(starts):
        set_up = SET_UPS[number * len(SET_UPS) // starts]
        is_first = not drawn or drawn[-1].set_up != set_up
        offsets_s = {letter: dice.choice((0.0, dice.uniform(0, APART_S))) for letter in "abc"}
        drawn.append(Start(number + 1, set_up, not is_first and dice.random() < 0.6, offsets_s))
    return drawn


class ColdPair:
    """Two hosts and a third, on which nothing has been started yet."""

    def __init__(self, lab: Lab, metronome: Metronome) -> None:
        self.lab = lab
        self._metronome = metronome
        self.longest_s = 0.0

    def play(self, start: Start) -> float:
        """From the last machine that comes until one is active; raises where it must not be so."""
        self._power_off(start)
        since_s = now_s()
        self._power_on(start)
        came_s = now_s()
        nodes = (self.lab.a, self.lab.b)
        answered_s: dict[str, float] = {}  # when its engine was first seen to answer

        def find() -> Node | None:
            for node in nodes:
                if node.name not in answered_s and node.engine.is_up():
                    answered_s[node.name] = now_s()
            return self._find_settled()

        active = until(find, LIMIT_S, f"{start.words()}: one active, one standby")
        able_s = max(came_s, answered_s.get(active.name, came_s))  # before, nobody could start it
        decided_s = now_s() - able_s
        until(lambda: is_redundant(active), LIMIT_S, f"{active.name} is active and its peer ready")
        until(lambda: runs_all(self.lab, active), LIMIT_S, f"all containers run on {active.name}")
        hosts = {host for host, _ in self.lab.truth.starts(since_s)}
        assert hosts == {active.name}, f"{start.words()}: containers were started on {hosts}"
        assert_never_two(self.lab, since_s)
        late_s = self._metronome.late_s(able_s)
        limit_s = self._limit_s(start) + late_s
        print(
            f"{start.words()}: {active.name} after {decided_s:.2f} s"
            f" of at most {limit_s:.2f} s ({late_s:.2f} s of it the machine's)",
            flush=True,
        )
        assert decided_s <= limit_s
        until(lambda: self._find_settled() is active, LIMIT_S, f"{active.name} alone is active")
        self.longest_s = max(self.longest_s, decided_s)
        return decided_s

    def _limit_s(self, start: Start) -> float:
        """The last holder or the primary asks at once; a voter that comes back waits out T (V4)."""
        waits_s = TIMINGS["startup_grace_period"] + 1.01 * TIMINGS["heartbeat_timeout"]
        asks_s = 4 * TIMINGS["heartbeat_interval"]
        asks_s += TIMINGS["heartbeat_timeout"] if start.has_witness else 0.0
        return waits_s + asks_s + AGENT_STARTS_S + CONTAINERS_START_S

    def _find_settled(self) -> Node | None:
        phases = {node.name: status(node).get("phase") for node in (self.lab.a, self.lab.b)}
        if set(phases.values()) != {"active", "standby"}:
            return None
        return self.lab.a if phases[self.lab.a.name] == "active" else self.lab.b

    def _power_off(self, start: Start) -> None:
        """All three; without `keeps_records` their disks are empty afterwards."""
        for node in (self.lab.a, self.lab.b, self.lab.c):
            if not start.keeps_records:
                if node.has_agent:
                    node.agent.end()
                shutil.rmtree(node.host.path(RECORDS), ignore_errors=True)
            node.crash()

    def _power_on(self, start: Start) -> None:
        """Each at its moment; its agent starts beside its engine, as at any boot."""
        begin_s = now_s()
        for letter, at_s in sorted(start.offsets_s.items(), key=lambda item: item[1]):
            pass_time(max(0.0, begin_s + at_s - now_s()))
            _SWITCHES[letter](self, start)

    def _boot(self, node: Node, role: Role, start: Start) -> None:
        node.host.boot()
        node.engine.begin_start()
        self.lab.start_agent(node, role, self._settings(start))

    def _boot_c(self, start: Start) -> None:
        self.lab.c.host.boot()
        if start.has_witness:
            self.lab.start_agent(self.lab.c, "witness", self._settings(start))

    def _settings(self, start: Start) -> dict[str, Any]:
        if not start.has_witness:
            return {"partition_policy": start.set_up}
        endpoint = f"http://{self.lab.c.address}:{PORT}"
        return {
            "arbiter": {"kind": "witness", "endpoint": endpoint},
            "witness": {"port": PORT},
        }


_SWITCHES: dict[str, Callable[[ColdPair, Start], None]] = {
    "a": lambda it, start: it._boot(it.lab.a, "primary", start),
    "b": lambda it, start: it._boot(it.lab.b, "backup", start),
    "c": ColdPair._boot_c,
}


def run(starts: int, seed: int) -> Iterator[float]:
    """How long each took, in a lab of its own. Raises AssertionError where one went wrong."""
    with Lab(["db", "web"], third_host=True) as lab, Metronome() as metronome:
        pair = ColdPair(lab, metronome)
        for start in draw(starts, seed):
            yield pair.play(start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    took_s = sorted(run(asked.starts, asked.seed))
    middle_s = took_s[len(took_s) // 2]
    print(f"{len(took_s)} cold starts: one active each, never two; decided after {middle_s:.2f} s")
    print(f"  in the middle, {took_s[0]:.2f} to {took_s[-1]:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
