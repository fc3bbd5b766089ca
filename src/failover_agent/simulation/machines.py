"""Machines and processes, and what befalls them: hosts, agents, guards, disks, the arbiter.

Part of the words of a `World`.
"""

from __future__ import annotations

from failover_agent.core.policy import Policy, Role
from failover_agent.simulation.etcd import Store
from failover_agent.simulation.facts import AgentBegan, AgentEnded, Booted
from failover_agent.simulation.ground import AT_ONCE_S, Ground
from failover_agent.simulation.guard import SAY_S, STARTS_AGENT_S, Guard
from failover_agent.simulation.machine import SAVE_S, Machine
from failover_agent.simulation.node import Agent, Host
from failover_agent.simulation.weather import Kind
from failover_agent.simulation.witness import Witness

NO_GUARD, NO_AGENT = "no guard", "no agent"

STARTS_GUARD_S = 0.08
"""From an exec to a guard that watches."""


class Machines(Ground):
    """Faults of what is not a wire, an engine or a container."""

    def add_host(self, name: str, policy: Policy, endpoints: dict[Role, str]) -> Host:
        """A machine that is off. Its agent is absent until it is started."""
        host = Host(self, name, policy, endpoints)
        self.hosts[name] = host
        self.weather.begin(Kind.HOST, name, "is off")
        self.weather.begin(Kind.AGENT, name, NO_AGENT)
        if policy.requires_lease:
            self.weather.begin(Kind.GUARD, name, NO_GUARD)
        return host

    def boot(self, name: str, *, agent: bool = True) -> None:
        """Switch the host on; its agent starts with it unless told otherwise."""
        self.tell(name, "the host boots")
        self.hosts[name].power_on()
        self.chronicle.happened(Booted(name))
        self.start_engine(name)
        self.weather.end(Kind.HOST, name, "is off")
        if agent:
            self.start_agent(name)

    def start_engine(self, name: str) -> None:
        """It takes `engine_boots_s`; then it starts what has a restart policy, and answers.

        What the engine before it left running it may have ended some time before that.
        """
        host = self.hosts[name]
        if self.engine_boots_s == AT_ONCE_S:
            host.engine.start_up()
            return
        age, wait_s = host.engine.age, host.dice.uniform(*self.engine_boots_s)
        self.weather.begin(Kind.ENGINE, name, "boots")

        def clear() -> None:
            if host.is_on and host.engine.age == age:
                host.engine.end_survivors()

        self.scheduler.after(wait_s * host.dice.random(), clear)

        def answer() -> None:
            if host.is_on and host.engine.age == age:
                self.tell(name, "the engine is up")
                self.weather.end(Kind.ENGINE, name, "boots")
                host.engine.start_up()

        self.scheduler.after(wait_s, answer)

    def crash_host(self, name: str) -> None:
        """Power cut."""
        self.tell(name, "the host crashes")
        self.weather.end(Kind.ENGINE, name, "boots")
        self.weather.begin(Kind.HOST, name, "is off")
        self._agent_is_gone(name)
        self._guard_is_gone(name)
        self.hosts[name].power_off()

    # --- agents -----------------------------------------------------------------------------------

    def start_agent(self, name: str) -> None:
        """Start the agent, as systemd would: with its guard, or by the guard that is there.

        It takes `agent_starts_s` to be there.
        """
        host = self.hosts[name]
        if self.agent_starts_s == AT_ONCE_S:
            self._start_agent_now(name)
        elif host.agent_comes_at_s <= self.now_s:
            host.agent_comes_at_s = self.now_s + host.dice.uniform(*self.agent_starts_s)
            boot = host.boot
            self.scheduler.at(host.agent_comes_at_s, lambda: self._agent_comes(name, boot))

    def _agent_comes(self, name: str, boot: int) -> None:
        host = self.hosts[name]
        if host.is_on and host.boot == boot and host.agent is None:
            self._start_agent_now(name)

    def _start_agent_now(self, name: str) -> None:
        guard = self.hosts[name].guard
        if guard is not None and guard.is_frozen:
            guard.call(lambda: self._start_if_gone(name))
            return
        self.chronicle.happened(AgentBegan(name))
        self.hosts[name].start_agent()
        self.weather.end(Kind.AGENT, name, NO_AGENT)
        self.weather.end(Kind.GUARD, name, NO_GUARD)

    def _start_if_gone(self, name: str) -> None:
        if self.hosts[name].is_on and self.hosts[name].agent is None:
            self.start_agent(name)

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
        """The agent ended by itself, and its guard with it if it may."""
        host = self.hosts[name]
        self._agent_is_gone(name)
        host.kill_agent()
        if host.guard is not None and host.guard.may_be_left():
            self._guard_is_gone(name)
            host.kill_guard()
        if self.is_healed:
            self.scheduler.after(0.5, lambda: self._start_if_gone(name))

    def _agent_is_gone(self, name: str) -> None:
        if self.hosts[name].agent is None:
            return
        self.weather.end(Kind.AGENT, name, "frozen")
        self.weather.begin(Kind.AGENT, name, NO_AGENT)
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

    # --- guards -----------------------------------------------------------------------------------

    def kill_guard(self, name: str, *, supervisor_s: float | None = None) -> None:
        """The guard dies; its agent hears that, and becomes guard and agent anew (G3).

        A frozen agent does so when it is thawed, and one that is gone never: then both are there
        again in `supervisor_s`, if a supervisor looks after them.
        """
        host, agent = self.hosts[name], self.hosts[name].agent
        if host.guard is None:
            return
        self.tell(name, "the guard dies by SIGKILL")
        self._guard_is_gone(name)
        host.kill_guard()
        if agent is not None:
            self.scheduler.after(
                SAY_S, lambda: agent.call(lambda: self._becomes_guard(name, agent))
            )
        if supervisor_s is not None:
            boot = host.boot
            self.scheduler.after(supervisor_s, lambda: self._supervise(name, boot))

    def start_guard(self, name: str) -> None:
        """It takes up what the one before it left, and starts an agent where there is none."""
        host = self.hosts[name]
        if host.guard is not None or not host.is_on:
            return
        self.tell(name, "a guard starts")
        host.guard = Guard(host)
        self.weather.end(Kind.GUARD, name, NO_GUARD)
        self._start_agent_soon(name)

    def freeze_guard(self, name: str) -> None:
        """SIGSTOP to the guard."""
        guard = self.hosts[name].guard
        assert guard is not None, f"{name} has no guard"
        self.tell(name, "the guard is frozen")
        self.weather.begin(Kind.GUARD, name, "frozen")
        guard.freeze()

    def thaw_guard(self, name: str) -> None:
        """SIGCONT to the guard, if it is still there."""
        guard = self.hosts[name].guard
        if guard is None or not guard.is_frozen:
            return
        self.tell(name, "the guard is thawed")
        self.weather.end(Kind.GUARD, name, "frozen")
        guard.thaw()

    def guard_kills_agent(self, name: str) -> None:
        """The end of a lease: SIGKILL, and another agent (G2)."""
        if self.hosts[name].agent is None:
            return
        self._agent_is_gone(name)
        self.hosts[name].kill_agent()
        self._start_agent_soon(name)

    def _start_agent_soon(self, name: str) -> None:
        boot = self.hosts[name].boot

        def start() -> None:
            if self.hosts[name].boot == boot:
                self._start_if_gone(name)

        self.scheduler.after(self.hosts[name].dice.uniform(*STARTS_AGENT_S), start)

    def _becomes_guard(self, name: str, agent: Agent) -> None:
        if agent.is_dead or self.hosts[name].guard is not None:
            return
        self.tell(name, "the agent becomes guard and agent anew")
        self._agent_is_gone(name)
        self.hosts[name].kill_agent()
        self.scheduler.after(STARTS_GUARD_S, lambda: self.start_guard(name))

    def _supervise(self, name: str, boot: int) -> None:
        host = self.hosts[name]
        if host.guard is not None or host.boot != boot:
            return
        self._agent_is_gone(name)
        host.kill_agent()
        self.start_guard(name)

    def _guard_is_gone(self, name: str) -> None:
        if self.hosts[name].guard is not None:
            self.weather.end(Kind.GUARD, name, "frozen")
            self.weather.begin(Kind.GUARD, name, NO_GUARD)

    # --- the arbiter ------------------------------------------------------------------------------

    def add_witness(self, timeout_s: float, clock_drift: float) -> None:
        """A third machine that is off."""
        self.witness = Witness(self, "witness", timeout_s, clock_drift)
        self.weather.begin(Kind.ARBITER, "witness", "is off")

    def add_etcd(self) -> None:
        """An etcd that is well."""
        self.store = Store(self, "etcd")

    def _the_witness(self) -> Witness:
        assert self.witness is not None, "this world has no witness"
        return self.witness

    def _the_store(self) -> Store:
        assert self.store is not None, "this world has no etcd"
        return self.store

    def boot_witness(self) -> None:
        """Switch it on."""
        witness = self._the_witness()
        self.tell(witness.name, "the machine boots")
        witness.power_on()
        self.weather.end(Kind.ARBITER, witness.name, "is off")
        self.start_witness()

    def crash_witness(self) -> None:
        """Power cut."""
        witness = self._the_witness()
        self.tell(witness.name, "the machine crashes")
        self.weather.begin(Kind.ARBITER, witness.name, "is off")
        witness.power_off()

    def start_witness(self) -> None:
        """As systemd would; without effect where it runs."""
        witness = self._the_witness()
        if witness.is_on and witness.run is None:
            witness.start()
            self.weather.end(Kind.ARBITER, witness.name, "does not run")
            self.weather.end(Kind.ARBITER, witness.name, "frozen")

    def kill_witness(self, how: str = "by SIGKILL") -> None:
        """The process dies."""
        witness = self._the_witness()
        self.tell(witness.name, f"the witness dies {how}")
        self.weather.begin(Kind.ARBITER, witness.name, "does not run")
        witness.kill()

    def crash_witness_at_save(self, *, after: bool) -> None:
        """It dies right before, or right after, its next save."""
        run = self._the_witness().run
        assert run is not None, "no witness runs"
        run.crash_at_save = "after" if after else "before"

    def freeze_witness(self) -> None:
        """SIGSTOP."""
        witness = self._the_witness()
        assert witness.run is not None, "no witness runs"
        self.tell(witness.name, "the witness is frozen")
        self.weather.begin(Kind.ARBITER, witness.name, "frozen")
        witness.run.is_frozen = True

    def thaw_witness(self) -> None:
        """SIGCONT, if it is still there."""
        witness = self._the_witness()
        if witness.run is not None and witness.run.is_frozen:
            self.tell(witness.name, "the witness is thawed")
            self.weather.end(Kind.ARBITER, witness.name, "frozen")
            witness.run.thaw()

    def empty_witness(self) -> None:
        """Its record is gone: a witness recreated with an empty disk."""
        witness = self._the_witness()
        assert witness.run is None, "a witness that runs does not read its record again"
        self.tell(witness.name, "the record is lost")
        witness.record = None
        self.forgot_at_s = self.now_s

    def lose_quorum(self) -> None:
        """No quorum: etcd carries nothing out."""
        self.tell("etcd", "the quorum is lost")
        self.weather.begin(Kind.ARBITER, "etcd", "no quorum")
        self._the_store().lose_quorum()

    def slow_store(self, longest_s: float) -> None:
        """An etcd that takes up to `longest_s`, there and back each."""
        self.tell("etcd", f"takes up to {longest_s:.1f} s")
        self.weather.begin(Kind.ARBITER, "etcd", "slow")
        self._the_store().takes_s = (0.0, longest_s)

    def empty_store(self) -> None:
        """All that etcd had is gone."""
        self.tell("etcd", "made anew, empty")
        self.weather.strike(Kind.ARBITER, "etcd")
        self._the_store().forget()
        self.forgot_at_s = self.now_s

    def recover_store(self) -> None:
        """Quorum, and quick answers."""
        self.tell("etcd", "is well")
        self.weather.end(Kind.ARBITER, "etcd", "no quorum")
        self.weather.end(Kind.ARBITER, "etcd", "slow")
        self._the_store().recover()

    # --- the end of all faults --------------------------------------------------------------------

    def heal_arbiter(self) -> None:
        """It is on, runs, and can write."""
        if self.store is not None:
            self.recover_store()
        if self.witness is None:
            return
        self.mend_disk(self.witness.name)
        if not self.witness.is_on:
            self.boot_witness()
        self.start_witness()
        self.thaw_witness()
        if self.witness.run is not None:
            self.witness.run.crash_at_save = ""

    def heal_host(self, name: str) -> None:
        """It is on, and guard and agent run."""
        host = self.hosts[name]
        self.thaw_guard(name)
        if not host.is_on:
            self.boot(name)
        elif host.agent is None:
            self.start_agent(name)
        elif host.agent.is_frozen:
            self.thaw(name)
        if host.agent is not None:
            host.agent.crash_after_items, host.agent.crash_at_save = None, ""

    # --- disks ------------------------------------------------------------------------------------

    def lose_record(self, name: str) -> None:
        """The record is gone from the disk; the next agent makes a new one."""
        assert self.hosts[name].agent is None, "an agent that runs does not read its record again"
        self.tell(name, "the record is lost")
        self.hosts[name].record = None
        self.a_record_was_lost = True
        self.forgot_at_s = self.now_s

    def break_disk(self, name: str) -> None:
        """The record cannot be written."""
        self.tell(name, "the record cannot be written")
        self.weather.begin(Kind.DISK, name, "record")
        self._machine(name).record_fails = True

    def slow_disk(self, name: str, longest_s: float) -> None:
        """A save takes up to `longest_s`; the agent does nothing else meanwhile."""
        self.tell(name, f"a save takes up to {longest_s:.1f} s")
        self.weather.begin(Kind.DISK, name, "record")
        self._machine(name).save_s = (0.0, longest_s)

    def mend_disk(self, name: str) -> None:
        """It can again."""
        machine = self._machine(name)
        if machine.record_fails:
            self.tell(name, "the record can be written")
        self.weather.end(Kind.DISK, name, "record")
        machine.record_fails = False
        machine.save_s = SAVE_S

    def _machine(self, name: str) -> Machine:
        if self.witness is not None and name == self.witness.name:
            return self.witness
        return self.hosts[name]
