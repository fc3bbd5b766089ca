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
from failover_agent.simulation.facts import AgentBegan, AgentEnded
from failover_agent.simulation.ground import Ground
from failover_agent.simulation.network import QUICK_S
from failover_agent.simulation.node import SAVE_S, Host
from failover_agent.simulation.product import SHIPPED, Product
from failover_agent.simulation.weather import Kind


class World(Ground):
    """One run of the simulation."""

    def add_host(self, name: str, policy: Policy, endpoints: dict[Role, str]) -> Host:
        """A machine that is off. Its agent is absent until it is started."""
        host = Host(self, name, policy, endpoints)
        self.hosts[name] = host
        self.weather.begin(Kind.HOST, name, "is off")
        self.weather.begin(Kind.AGENT, name, "no agent")
        return host

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

    # --- faults: hosts and agents -----------------------------------------------------------------

    def boot(self, name: str, *, agent: bool = True) -> None:
        """Switch the host on; its agent starts with it unless told otherwise."""
        self.tell(name, "the host boots")
        self.hosts[name].power_on()
        self.weather.end(Kind.HOST, name, "is off")
        if agent:
            self.start_agent(name)

    def crash_host(self, name: str) -> None:
        """Power cut."""
        self.tell(name, "the host crashes")
        self.weather.begin(Kind.HOST, name, "is off")
        self._agent_is_gone(name)
        self.hosts[name].power_off()

    def start_agent(self, name: str) -> None:
        """Start the agent, as systemd would."""
        self.chronicle.happened(AgentBegan(name))
        self.hosts[name].start_agent()
        self.weather.end(Kind.AGENT, name, "no agent")

    def kill_agent(self, name: str, how: str = "by SIGKILL") -> None:
        """The agent dies; the containers do not."""
        self.tell(name, f"the agent dies {how}")
        self._agent_is_gone(name)
        self.hosts[name].kill_agent()

    def crash_agent_after(self, name: str, items: int) -> None:
        """The agent dies when it has carried out `items` more items of its plans."""
        self.agent(name).crash_after_items = items

    def crash_agent_at_save(self, name: str, *, after: bool) -> None:
        """The agent dies right before, or right after, its next save."""
        self.agent(name).crash_at_save = "after" if after else "before"

    def agent_left(self, name: str) -> None:
        """The agent ended by itself."""
        self._agent_is_gone(name)
        self.hosts[name].kill_agent()
        if self.is_healed:
            self.scheduler.after(0.5, lambda: self.start_agent(name))

    def _agent_is_gone(self, name: str) -> None:
        if self.hosts[name].agent is None:
            return
        self.weather.end(Kind.AGENT, name, "frozen")
        self.weather.begin(Kind.AGENT, name, "no agent")
        self.chronicle.happened(AgentEnded(name))

    def freeze(self, name: str) -> None:
        """SIGSTOP to the agent."""
        self.tell(name, "the agent is frozen")
        self.weather.begin(Kind.AGENT, name, "frozen")
        self.agent(name).freeze()

    def thaw(self, name: str) -> None:
        """SIGCONT to the agent."""
        self.tell(name, "the agent is thawed")
        self.weather.end(Kind.AGENT, name, "frozen")
        self.agent(name).thaw()

    def lose_record(self, name: str) -> None:
        """The record is gone from the disk; the next agent makes a new one."""
        assert self.hosts[name].agent is None, "an agent that runs does not read its record again"
        self.tell(name, "the record is lost")
        self.hosts[name].record = None
        self.a_record_was_lost = True

    def break_disk(self, name: str) -> None:
        """The record cannot be written."""
        self.tell(name, "the record cannot be written")
        self.weather.begin(Kind.DISK, name, "record")
        self.hosts[name].record_fails = True

    def slow_disk(self, name: str, longest_s: float) -> None:
        """A save takes up to `longest_s`; the agent does nothing else meanwhile."""
        self.tell(name, f"a save takes up to {longest_s:.1f} s")
        self.weather.begin(Kind.DISK, name, "record")
        self.hosts[name].save_s = (0.0, longest_s)

    def mend_disk(self, name: str) -> None:
        """It can again."""
        if self.hosts[name].record_fails:
            self.tell(name, "the record can be written")
        self.weather.end(Kind.DISK, name, "record")
        self.hosts[name].record_fails = False
        self.hosts[name].save_s = SAVE_S

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
        """The engine and its stream are well again."""
        if self.weather.is_open(frozenset({Kind.ENGINE}), name):
            self.tell(name, "the engine is well")
        self.weather.end(Kind.ENGINE, name, "engine")
        self.weather.end(Kind.ENGINE, name, "stream")
        self.hosts[name].engine.recover()

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
        for source in self.hosts:
            for target in self.hosts:
                if source != target:
                    self.mend(source, target, both_ways=False)
        for name, host in self.hosts.items():
            self.mend_disk(name)
            self.recover_engine(name)
            self._heal_containers(name, host)
            if not host.is_on:
                self.boot(name)
            elif host.agent is None:
                self.start_agent(name)
            elif host.agent.is_frozen:
                self.thaw(name)
            if host.agent is not None:
                host.agent.crash_after_items, host.agent.crash_at_save = None, ""

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
