"""A pair with an arbiter at rest, and what the directed tests ask of it and do to it."""

from typing import Any

from failover_agent.core.policy import Policy, Role
from failover_agent.simulation.product import SHIPPED, Product
from failover_agent.simulation.reasons import watch
from failover_agent.simulation.world import World, build_trio
from tests.simulation.pairs import RESTART_GRACE, START, STARTUP_GRACE, Diary, Pair, make_policy

T = 4.0
INTERVAL = 0.5
STOP_BUDGET = 1.0
KILL_BUDGET = 0.4
DRIFT = 0.01
STOP_AFTER = T * (1 - DRIFT) - STOP_BUDGET
"""How long after its last renewal left a holder begins to stop."""

TAKEOVER = T * (1 + DRIFT) ** 2 + 2 * INTERVAL + 2 * START + 0.5
"""From a crash until the service runs on the other host."""


def lease_policy(**differing: Any) -> Policy:
    """The settings of these tests, but for `differing`."""
    settings: dict[str, Any] = {
        "arbiter": Role.WITNESS,
        "heartbeat_interval_s": INTERVAL,
        "heartbeat_timeout_s": T,
        "stop_budget_s": STOP_BUDGET,
        "kill_budget_s": KILL_BUDGET,
    }
    return make_policy(**{**settings, **differing})


class Trio(Pair):
    """Both hosts and the witness are off; an etcd is well."""

    def __init__(
        self,
        core: Product = SHIPPED,
        *,
        seed: int | str = "directed",
        etcd: bool = False,
        backup: dict[str, Any] | None = None,
        **differing: Any,
    ) -> None:
        policy = lease_policy(**differing)
        self.settle(build_trio(seed, policy, core=core, etcd=etcd, backup=backup))

    def settle(self, world: World) -> None:
        """Judges, a diary, and how long the containers take."""
        self.world = world
        watch(world, longest_start_s=2 * START + 2.0)
        self.diary = Diary(world)
        self.take(START, 0.3)

    def take(self, start_s: float, stop_s: float) -> None:
        """How long each container takes to start and to stop."""
        for host in self.world.hosts.values():
            for container in host.engine.containers.values():
                container.start_takes_s, container.stop_takes_s = start_s, stop_s

    @property
    def arbiter(self) -> str:
        """The third machine."""
        return self.world.arbiter

    def boot_all(self) -> None:
        """Everything is switched on."""
        if self.world.witness is not None and not self.world.witness.is_on:
            self.world.boot_witness()
        for name, host in self.world.hosts.items():
            if not host.is_on:
                self.world.boot(name)

    def isolate(self, name: str) -> None:
        """Nothing gets there, and nothing leaves."""
        for other in self.world.places:
            if other != name:
                self.world.cut(name, other)

    def heal_wires(self) -> None:
        """All wires are whole."""
        for one in self.world.places:
            for other in self.world.places:
                if one != other:
                    self.world.mend(one, other, both_ways=False)

    def restart_witness(self, *, empty: bool = False) -> None:
        """SIGKILL, and back at once; its disk may be gone."""
        self.world.kill_witness()
        if empty:
            self.world.empty_witness()
        self.world.start_witness()

    def somebody_serves_within(self, within_s: float) -> str:
        """Wait until one of them does; the answer is which."""
        self.world.run_until(lambda: self.serves("primary") or self.serves("backup"), within_s)
        return "primary" if self.serves("primary") else "backup"

    def gone_within(self, host: str, within_s: float) -> float:
        """Wait until no container runs on `host`; the answer is how long it took."""
        return self.world.run_until(lambda: not self.world.runs(host), within_s)

    def must_go_on(self, host: str, seconds: float) -> None:
        """Let time pass; `host` serves all the time."""
        until = self.world.now_s + seconds
        while self.world.now_s < until:
            self.running_s(0.25)
            assert self.serves(host), self.world.tale()


def a_trio_at_rest(core: Product = SHIPPED, *, etcd: bool = False, **differing: Any) -> Trio:
    """The primary serves for a while already; the backup watches; the arbiter is well."""
    trio = Trio(core, etcd=etcd, **differing)
    trio.boot_all()
    longest_s = max(host.policy.heartbeat_timeout_s for host in trio.world.hosts.values())
    trio.serves_within("primary", 3 * STARTUP_GRACE + 3 * longest_s)
    trio.running_s(STARTUP_GRACE + longest_s)
    assert trio.serves("primary"), trio.world.tale()
    return trio


__all__ = [
    "DRIFT",
    "INTERVAL",
    "KILL_BUDGET",
    "RESTART_GRACE",
    "START",
    "STARTUP_GRACE",
    "STOP_AFTER",
    "STOP_BUDGET",
    "TAKEOVER",
    "T",
    "Trio",
    "a_trio_at_rest",
    "lease_policy",
]
