"""What befell a real pair, by the clock, told again to the judges of the simulator.

The judges watch a simulated world; so here is one in which nobody acts: its containers live and die
as those of the lab did, by their own word (truth.py), and its weather is what the lab did to the
pair. Who could hear whom is told from the weather, as no agent is asked.
"""

from collections.abc import Callable, Iterable

from failover_agent.core.events import CommandKind, CommandReceived
from failover_agent.core.policy import Policy
from failover_agent.simulation.checkers import Broken, Hearing, NeverTwo, OperatorsWord
from failover_agent.simulation.facts import AgentBegan, AgentEnded, Fact, Glanced, Saw
from failover_agent.simulation.weather import Kind
from failover_agent.simulation.world import World, build_pair
from tests.lab.truth import Run, now_s

AGENT_STARTS_S = 2.0  # from its process to its first word, on a busy machine
BY_HAND_S = 4.0  # from a person's `docker start` to the first tick
MUTE = frozenset({Kind.AGENT, Kind.HOST, Kind.DISK})
HOSTS = {"host-a": "primary", "host-b": "backup"}

Telling = Callable[[World], object]


class Chronicle:
    """Written while the faults come; `judge` tells it again. Hosts are named as simulated ones."""

    def __init__(self) -> None:
        self.began_s = now_s()
        self.a_record_was_lost = False
        self._entries: list[tuple[float, Telling]] = []
        self._by_hand: list[tuple[str, str, float]] = []
        self._has_agent = dict.fromkeys(HOSTS.values(), True)

    # -- writing --------------------------------------------------------------------------------

    def begin(self, kind: str, host: str, what: str) -> None:
        """A fault begins: `kind` as in the weather."""
        self._tell(lambda world: world.weather.begin(Kind(kind), host, what))

    def end(self, kind: str, host: str, what: str) -> None:
        """It is over, if it was one."""
        self._tell(lambda world: world.weather.end(Kind(kind), host, what))

    def strike(self, kind: str, host: str) -> None:
        """A fault without a length."""
        self._tell(lambda world: world.weather.strike(Kind(kind), host))

    def note_agent(self, host: str, *, is_there: bool) -> None:
        """Its process is there, or not; said again and again."""
        if is_there == self._has_agent[host]:
            return
        self._has_agent[host] = is_there
        if is_there:
            self._tell(lambda world: world.chronicle.happened(AgentBegan(host)))
            self._tell(
                lambda world: world.weather.end(Kind.AGENT, host, "no agent"), AGENT_STARTS_S
            )
        else:
            self._tell(lambda world: world.weather.begin(Kind.AGENT, host, "no agent"))
            self._tell(lambda world: world.chronicle.happened(AgentEnded(host)))

    def note_word(self, host: str) -> None:
        """An operator says "takeover" there."""
        said = CommandReceived(0, CommandKind.TAKEOVER)
        self._tell(lambda world: world.chronicle.happened(Saw(host, said)))

    def note_by_hand(self, host: str, name: str) -> None:
        """A person starts the container `name` of the lab's `host` now."""
        self._by_hand.append((HOSTS[host], name, now_s()))

    def _tell(self, telling: Telling, later_s: float = 0.0) -> None:
        self._entries.append((now_s() + later_s, telling))

    # -- judging --------------------------------------------------------------------------------

    def judge(self, policy: Policy, runs: Iterable[Run], longest_start_s: float) -> "Verdict":
        """Never raises: what is broken is in the verdict."""
        world = build_pair("retold", policy)
        hearing, word = _Hearing(world), OperatorsWord(world, longest_start_s)
        NeverTwo(world, hearing, word, longest_start_s)
        for host in HOSTS.values():
            world.chronicle.happened(AgentBegan(host))
            for name in ("is off", "no agent"):
                for kind in (Kind.HOST, Kind.AGENT):
                    world.weather.end(kind, host, name)
        entries = [*self._entries, *self._lives(runs)]
        broken = ""
        try:
            for at_s, telling in sorted(entries, key=lambda entry: entry[0]):
                world.run_for(max(0.0, at_s - self.began_s - world.now_s))
                telling(world)
            world.run_for(1.0)
        except Broken as error:
            broken = str(error)
        return Verdict(broken, tuple(line for line in world.tale(1000).splitlines()))

    def _lives(self, runs: Iterable[Run]) -> Iterable[tuple[float, Telling]]:
        for run in runs:
            host, name = HOSTS[run.host], run.name
            by_us = not self._is_by_hand(host, name, run)
            begins_s = max(run.first_s, self.began_s)
            if run.last_s > self.began_s:
                yield begins_s, _launch(host, name, by_us=by_us)
                yield run.last_s, _end(host, name)

    def _is_by_hand(self, host: str, name: str, run: Run) -> bool:
        return run.has_started and any(
            (host, name) == (where, what) and 0 <= run.first_s - at_s < BY_HAND_S
            for where, what, at_s in self._by_hand
        )


class Verdict:
    """What the judges say: `broken` is empty where every rule was kept."""

    def __init__(self, broken: str, tale: tuple[str, ...]) -> None:
        self.broken = broken
        self.tale = tale
        self.overlaps = [line for line in tale if "OVERLAP" in line]


class _Hearing(Hearing):
    """Who hears is who could: agents and wires by the weather, looked at again and again."""

    def see(self, fact: Fact) -> None:
        if isinstance(fact, Glanced):
            for host in self._world.hosts:
                if host in self._heard_at_s and self._could_hear(host):
                    self._note_silence(host)
                    self._heard_at_s[host] = self._world.now_s
        else:
            super().see(fact)

    def _could_hear(self, host: str) -> bool:
        other = next(name for name in self._world.hosts if name != host)
        weather = self._world.weather
        is_mute = weather.is_open(MUTE, host) or weather.is_open(MUTE, other)
        return not is_mute and not weather.is_open(frozenset({Kind.WIRE}))


def _launch(host: str, name: str, *, by_us: bool) -> Telling:
    return lambda world: world.hosts[host].engine.launch(name, by_us=by_us)


def _end(host: str, name: str) -> Telling:
    return lambda world: world.hosts[host].engine.kill(name, "its last tick")
