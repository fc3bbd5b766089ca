"""A simulated world, and the words in which faults, operators and recoveries are told.

One `World` is one run. Directed tests and the random schedules of `faults` speak to it in the same
words; everything that happens goes into its story, and its watchers see every fact.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from failover_agent.core.events import CommandKind, CommandReceived, StopRequested
from failover_agent.core.policy import Policy, Role
from failover_agent.simulation.engine import Mode, Process
from failover_agent.simulation.machines import Machines
from failover_agent.simulation.network import QUICK_S, cable
from failover_agent.simulation.node import Host
from failover_agent.simulation.product import SHIPPED, Product
from failover_agent.simulation.weather import Kind


class World(Machines):
    """One run of the simulation."""

    # --- faults: wires ----------------------------------------------------------------------------

    def cut(self, source: str, target: str, *, both_ways: bool = True) -> None:
        """Nothing gets from `source` to `target` (nor back)."""
        for one, other in _ways(source, target, both_ways):
            self.network.link(one, other).is_cut = True
            self.weather.begin(Kind.WIRE, one, f"wire to {other}")
            self.tell(one, f"the wire to {other} is cut")

    def disturb(
        self,
        source: str,
        target: str,
        *,
        loss: float = 0.0,
        doubled: float = 0.0,
        delay_s: tuple[float, float] = QUICK_S,
    ) -> None:
        """The wire from `source` to `target` loses, doubles, delays and reorders."""
        link = self.network.link(source, target)
        link.loss, link.doubled, link.delay_s = loss, doubled, delay_s
        self.weather.begin(Kind.WIRE, source, f"wire to {target}")
        self.tell(source, f"the wire to {target} loses {loss:.0%}, takes {delay_s[1]:.1f} s")

    def mend(self, source: str, target: str, *, both_ways: bool = True) -> None:
        """The wire is clean again."""
        for one, other in _ways(source, target, both_ways):
            if not self.network.link(one, other).is_clean:
                self.tell(one, f"the wire to {other} is whole")
            self.network.mend(one, other)
            self.weather.end(Kind.WIRE, one, f"wire to {other}")

    # --- faults: engine and containers ------------------------------------------------------------

    def lose_engine(
        self, name: str, mode: Mode, *, processes_die: bool = False, visible: bool = True
    ) -> None:
        """The engine hangs or refuses; `visible`: the agent can see the processes without it."""
        ends = ", the containers end" if processes_die else ""
        self.tell(name, f"the engine {mode.value}{ends}")
        self.weather.begin(Kind.ENGINE, name, "engine")
        engine = self.hosts[name].engine
        engine.can_see_processes = visible
        engine.lose(mode, processes_die=processes_die)

    def lose_stream(self, name: str) -> None:
        """The events stream is dead and nobody notices."""
        self.tell(name, "the events stream is dead")
        self.weather.begin(Kind.ENGINE, name, "stream")
        self.hosts[name].engine.has_stream = False

    def recover_engine(self, name: str) -> None:
        """The engine and its stream are well again; one that was gone takes its time to start."""
        host = self.hosts[name]
        if self.weather.is_open(frozenset({Kind.ENGINE}), name):
            self.tell(name, "the engine is well")
        self.weather.end(Kind.ENGINE, name, "engine")
        self.weather.end(Kind.ENGINE, name, "stream")
        if host.engine.mode is not Mode.REFUSES:
            host.engine.recover()
        elif host.is_on:
            self.start_engine(name)

    def kill_container(self, name: str, container: str) -> None:
        """Its process dies; it can be started again."""
        self.weather.strike(Kind.CONTAINER, name)
        self.hosts[name].engine.kill(container)

    def break_container(self, name: str, container: str) -> None:
        """Its process dies and it cannot be started again."""
        self.forbid_start(name, container)
        self.hosts[name].engine.kill(container)

    def forbid_start(self, name: str, container: str) -> None:
        """The next start will fail; a running process goes on."""
        self.tell(name, f"{container} cannot be started any more")
        self.weather.begin(Kind.CONTAINER, name, f"{container} is broken")
        self.hosts[name].engine.containers[container].can_start = False

    def allow_start(self, name: str, container: str) -> None:
        """It can be started again."""
        self.tell(name, f"{container} can be started again")
        self.weather.end(Kind.CONTAINER, name, f"{container} is broken")
        self.hosts[name].engine.containers[container].can_start = True

    def pause_container(self, name: str, container: str) -> None:
        """`docker pause`."""
        self.weather.begin(Kind.CONTAINER, name, f"{container} is paused")
        self.hosts[name].engine.pause(container)

    def unpause_container(self, name: str, container: str) -> None:
        """`docker unpause`."""
        self.weather.end(Kind.CONTAINER, name, f"{container} is paused")
        self.hosts[name].engine.unpause(container)

    def sicken_container(self, name: str, container: str) -> None:
        """Its health check says unhealthy."""
        self.weather.begin(Kind.CONTAINER, name, f"{container} is unhealthy")
        self.hosts[name].engine.sicken(container)

    def cure_container(self, name: str, container: str) -> None:
        """Its health check is content."""
        self.weather.end(Kind.CONTAINER, name, f"{container} is unhealthy")
        self.hosts[name].engine.cure(container)

    def remove_container(self, name: str, container: str) -> None:
        """`docker rm -f`."""
        self.weather.begin(Kind.CONTAINER, name, f"{container} is removed")
        self.hosts[name].engine.remove(container)

    def recreate_container(self, name: str, container: str) -> None:
        """`docker create`, under the same name."""
        self.weather.end(Kind.CONTAINER, name, f"{container} is removed")
        self.hosts[name].engine.recreate(container)

    def run_by_hand(self, name: str, container: str) -> None:
        """`docker start` by a person."""
        self.weather.strike(Kind.CONTAINER, name)
        self.hosts[name].engine.launch(container, by_us=False)

    # --- the operator -----------------------------------------------------------------------------

    def command(self, name: str, command: CommandKind) -> None:
        """An order over the control socket."""
        self.commands += 1
        self.tell(name, f"operator: {command}")
        agent, event = self.agent(name), CommandReceived(self.commands, command)
        agent.call(lambda: agent.post(event))

    def terminate(
        self, name: str, *, restarting: bool = False, host_is_shutting_down: bool = False
    ) -> None:
        """SIGTERM to the agent."""
        self.tell(name, "SIGTERM")
        agent = self.agent(name)
        event = StopRequested(restarting, host_is_shutting_down)
        agent.call(lambda: agent.post(event))

    # --- the end of all faults --------------------------------------------------------------------

    def heal(self) -> None:
        """Everything is well and every agent runs; what was broken can be started again."""
        self.tell("world", f"heals everything; was: {self.weather.words()}")
        self.is_healed = True
        cables = max(host.cables for host in self.hosts.values())
        for source in self.places:
            for target in self.places:
                if source != target:
                    for number in range(cables):
                        self.mend(source, cable(target, number), both_ways=False)
        self.heal_arbiter()
        for name, host in self.hosts.items():
            self.mend_disk(name)
            self.recover_engine(name)
            self._heal_containers(name, host)
            self.heal_host(name)

    def _heal_containers(self, name: str, host: Host) -> None:
        for container in host.engine.containers.values():
            container.gets_healthy, container.lives_for_s = True, None
            if not container.exists:
                self.recreate_container(name, container.name)
            if not container.can_start:
                self.allow_start(name, container.name)
            if container.process is Process.PAUSED:
                self.unpause_container(name, container.name)
            self.cure_container(name, container.name)
            for what in ("paused", "removed", "unhealthy", "broken"):
                self.weather.end(Kind.CONTAINER, name, f"{container.name} is {what}")


def _ways(source: str, target: str, both_ways: bool) -> Iterable[tuple[str, str]]:
    return ((source, target), (target, source)) if both_ways else ((source, target),)


def build_pair(
    seed: int | str,
    policy: Policy,
    *,
    core: Product = SHIPPED,
    backup: dict[str, Any] | None = None,
) -> World:
    """Two hosts, `primary` and `backup`, both off. `backup` are settings that differ there."""
    world = World(seed, core)
    endpoints = {Role.PRIMARY: "primary", Role.BACKUP: "backup"}
    world.add_host("primary", replace(policy, role=Role.PRIMARY), endpoints)
    world.add_host("backup", replace(policy, **{"role": Role.BACKUP, **(backup or {})}), endpoints)
    return world


def build_trio(
    seed: int | str,
    policy: Policy,
    *,
    core: Product = SHIPPED,
    etcd: bool = False,
    backup: dict[str, Any] | None = None,
) -> World:
    """A pair as above, and its arbiter: a `witness` that is off, or an `etcd` that is well."""
    world = build_pair(seed, policy, core=core, backup=backup)
    if etcd:
        world.add_etcd()
    else:
        world.add_witness(policy.heartbeat_timeout_s, policy.clock_drift)
    for host in world.hosts.values():
        host.endpoints = {**host.endpoints, Role.WITNESS: world.arbiter}
    return world
