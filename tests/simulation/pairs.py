"""A pair at rest, and the few questions that the directed tests ask of it."""

from collections.abc import Callable
from typing import Any

from failover_agent.core.policy import Policy, Role
from failover_agent.core.state import Phase
from failover_agent.simulation.facts import Ended, Fact, Started
from failover_agent.simulation.product import SHIPPED, Product
from failover_agent.simulation.reasons import watch
from failover_agent.simulation.world import World, build_pair

T = 4.0
INTERVAL = 1.0
STARTUP_GRACE = 5.0
RESTART_GRACE = 6.0
START = 0.3
STOP = 0.3
NAMES = ("db", "web")
FINGERPRINT = "alike"


def make_policy(**differing: Any) -> Policy:
    """The settings of these tests, but for `differing`."""
    settings: dict[str, Any] = {
        "role": Role.PRIMARY,
        "containers": NAMES,
        "heartbeat_interval_s": INTERVAL,
        "heartbeat_timeout_s": T,
        "startup_grace_period_s": STARTUP_GRACE,
        "restart_grace_period_s": RESTART_GRACE,
        "stop_budget_s": 1.0,
        "kill_budget_s": 0.4,
        "fingerprint": FINGERPRINT,
    }
    return Policy(**{**settings, **differing})


class Diary:
    """What was done to containers, in order: ("+", host, name) started, ("-", host, name) ended."""

    def __init__(self, world: World) -> None:
        self.lines: list[tuple[str, str, str]] = []
        world.chronicle.watchers.append(self)

    def see(self, fact: Fact) -> None:
        match fact:
            case Started(host, container):
                self.lines.append(("+", host, container.name))
            case Ended(host, container):
                self.lines.append(("-", host, container.name))
            case _:
                pass

    def since(self) -> Callable[[], list[tuple[str, str, str]]]:
        """Asked later, the answer is what was done since now."""
        began = len(self.lines)
        return lambda: self.lines[began:]


class Pair:
    """A world with its judges and a diary; both hosts off."""

    def __init__(
        self,
        core: Product = SHIPPED,
        *,
        seed: int | str = "directed",
        backup: dict[str, Any] | None = None,
        **differing: Any,
    ) -> None:
        self.world = build_pair(seed, make_policy(**differing), core=core, backup=backup)
        watch(self.world, longest_start_s=2 * START + 2.0)
        self.diary = Diary(self.world)
        for host in self.world.hosts.values():
            for container in host.engine.containers.values():
                container.start_takes_s, container.stop_takes_s = START, STOP

    def serves(self, host: str) -> bool:
        """Every container is up there, and none runs on the other host."""
        others = [name for name in self.world.hosts if name != host]
        return self.world.serves(host) and not any(self.world.runs(name) for name in others)

    def serves_within(self, host: str, within_s: float) -> float:
        """Wait for it; the answer is how long it took."""
        return self.world.run_until(lambda: self.serves(host), within_s)

    def phase_within(self, host: str, phase: Phase, within_s: float) -> float:
        """Wait until the agent of `host` says that it is there; the answer is how long it took."""
        return self.world.run_until(lambda: self.world.phase(host) is phase, within_s)

    def phases(self) -> tuple[Phase | None, Phase | None]:
        """Of primary and backup, as their agents say."""
        return self.world.phase("primary"), self.world.phase("backup")

    def running_s(self, seconds: float) -> None:
        """Let time pass."""
        self.world.run_for(seconds)


def a_pair_at_rest(core: Product = SHIPPED, **differing: Any) -> Pair:
    """The primary serves for a while already; the backup watches."""
    pair = Pair(core, **differing)
    pair.world.boot("primary")
    pair.world.boot("backup")
    pair.serves_within("primary", 3 * STARTUP_GRACE + 2 * T)
    pair.world.run_for(2 * STARTUP_GRACE)
    assert pair.serves("primary"), pair.world.tale()
    return pair
