"""A host: power, processes that start and end, its containers, its guard."""

from __future__ import annotations

from typing import Any

from failover_agent.core.events import (
    ContainerObservation,
    ContainersObserved,
    ContainersStarted,
    ContainersStopped,
    Event,
    FenceFinished,
    GuardArmed,
    GuardFailed,
    RepairFinished,
    StartFailed,
    StopFailed,
)
from failover_agent.core.policy import Role
from failover_agent.core.startup import Predecessor
from failover_agent.core.state import NEVER, ContainerState, Durable, Phase
from failover_agent.guard.watch import Lease
from failover_agent.verification import rules
from failover_agent.verification.ground import Happening
from failover_agent.verification.machines import Agent, Call, Host, Record
from failover_agent.verification.mail import Mail

MAY_START = frozenset({Phase.PROMOTING, Phase.ACTIVE, Phase.FAILED})


class Hosts(Mail):
    """What adapters, engine and guard do, by their contracts."""

    # --- power and processes --------------------------------------------------------------------

    def boot(self, role: Role) -> None:
        """Power on: another boot id, a clock that begins anew, an empty tmpfs, and the agent."""
        host = self.hosts[role]
        host.is_on = True
        host.boot += 1
        host.clock.booted_at_s = self.now_s
        host.watch, host.guard_at_s = self.core.watch.Watch(), float("inf")
        host.is_guard_frozen, host.guard_mail = False, ()
        host.call_until_s = NEVER
        self.start_agent(role, host.boot)

    def power_off(self, role: Role, back_after_s: float) -> None:
        """Crash: containers, agent and guard end at once; the disk stays."""
        host = self.hosts[role]
        host.is_on, host.agent = False, None
        host.guard_at_s, host.guard_mail = float("inf"), ()
        if host.is_alive:
            host.is_alive = False
            rules.ended(self)
        self.last(back_after_s, Hosts.boot, role)

    def start_agent(self, role: Role, boot: int) -> None:
        """What a supervisor and a guard do, where no agent runs."""
        host, watch = self.hosts[role], self.core.watch
        if not host.is_on or host.boot != boot or host.agent is not None:
            return
        was_lost = host.record is None
        if was_lost:
            host.node_ids += 1
        node_id = f"{role}-{host.node_ids}" if host.record is None else host.record.node_id
        durable = Durable() if host.record is None else host.record.durable
        boot_is_new = host.record is not None and host.record.boot != host.boot
        host.watch = watch.begin_child(host.watch)
        host.watch = watch.greet(
            host.watch,
            host.watch.child,
            host.policy.heartbeat_timeout_s,
            host.policy.kill_budget_s,
        )
        self.serial += 1
        state = self.core.begin(
            host.policy,
            node_id=node_id,
            run_id=f"run-{self.serial}",
            durable=durable,
            record_lost=was_lost,
            boot_is_new=boot_is_new,
            now=host.clock.read(self.now_s),
            before=Predecessor(watch.lease_until_s(host.watch), watch.was_enforced(host.watch)),
        )
        host.record = Record(node_id, host.boot, state.durable)
        host.agent = Agent(self.serial, host.watch.child, state, self.now_s)
        self.tell(role, "the agent starts")
        self.look(host)

    def end_agent(self, role: Role) -> None:
        """SIGKILL; what it asked of the engine goes on."""
        self.hosts[role].agent = None

    # --- the containers -------------------------------------------------------------------------

    def look(self, host: Host) -> None:
        """The watcher of the agent that runs takes a snapshot."""
        if host.agent is not None:
            run = host.agent.run
            self.after(self.pace.list_s, Hosts.in_agent, host.role, run, Hosts._observe)

    def _observe(self, host: Host) -> None:
        state = ContainerState.UP if host.is_alive else ContainerState.DOWN
        seen = tuple(
            ContainerObservation(
                name=name,
                state=state,
                detail=str(state),
                exists=True,
                alive=host.is_alive,
                incarnation=f"{host.boot} {host.incarnation}",
                image="image",
                settings="settings",
                restart_policy="no",
            )
            for name in host.policy.containers
        )
        self.take(host, ContainersObserved(seen), None)

    def may_act(self, host: Host, term: int) -> bool:
        """H4, as agent.py asks it right before a start call."""
        agent = host.agent
        assert agent is not None
        state, leases = agent.state, self.core.leases
        return (
            state.held_term == term
            and host.clock.read(self.now_s) < leases.start_deadline_s(state, host.policy)
            and leases.is_guarded(state, host.policy)
            and state.phase in MAY_START
            and state.stop_job is None
            and not agent.stops
        )

    def start_call(self, host: Host, term: int, name: str, is_repair: bool) -> None:
        """The lane's turn: the last question, and the call."""
        assert host.agent is not None
        if not self.may_act(host, term):
            error = "no longer allowed"
            failed: Event = StartFailed(term, name, error)
            self.take(host, RepairFinished(term, name, error) if is_repair else failed, None)
            return
        if not host.is_alive:
            host.is_alive = True
            host.incarnation += 1
            host.call_until_s = self.now_s + self.pace.start_s
            self.tell(host.role, f"the containers start, in term {term}")
            rules.began(self, host)
            if host.watch.is_over:
                self._kill(host)
        self.after(
            self.pace.start_s, Hosts.in_agent, host.role, host.agent.run, Hosts._started, term,
            name, is_repair,
        )  # fmt: skip

    def _started(self, host: Host, term: int, name: str, is_repair: bool) -> None:
        error = "" if host.is_alive else "killed"
        self._observe(host)
        if is_repair:
            self.take(host, RepairFinished(term, name, error), None)
        elif error:
            self.take(host, StartFailed(term, name, error), None)
        else:
            self.take(host, ContainersStarted(term), None)

    def stop(self, host: Host, term: int, grace_s: float | None) -> None:
        agent = host.agent
        assert agent is not None
        agent.stops += 1
        takes_s = self.pace.list_s
        if host.is_alive:
            kill_s = host.policy.kill_budget_s / host.clock.rate
            takes_s = self.pace.stop_s if grace_s is None else grace_s / host.clock.rate + kill_s
            takes_s = max(takes_s, host.call_until_s - self.now_s + self.pace.list_s)
            self.tell(host.role, f"stops its containers{'' if grace_s else ' at once'}")
        self.after(takes_s, Hosts._stopped, host.role, host.boot, host.incarnation, agent.run, term)

    def _stopped(self, role: Role, boot: int, incarnation: int, run: int, term: int) -> None:
        self.die(role, boot, incarnation)
        if self.hosts[role].boot == boot:
            self.in_agent(role, run, Hosts._confirm, term)

    def _confirm(self, host: Host, term: int) -> None:
        assert host.agent is not None
        host.agent.stops -= 1
        if host.is_alive:
            self.take(host, StopFailed(term, host.policy.containers, "it runs again"), None)
        else:
            self.take(host, ContainersStopped(term), None)

    def die(self, role: Role, boot: int, incarnation: int) -> None:
        """The containers end, if they are still the ones that were meant."""
        host = self.hosts[role]
        if not host.is_alive or (host.boot, host.incarnation) != (boot, incarnation):
            return
        host.is_alive = False
        self.tell(role, "the containers have ended")
        rules.ended(self)
        self.look(host)

    # --- guard and fence ------------------------------------------------------------------------

    def tell_guard(self, host: Host, function: Happening, *args: Any) -> None:
        """A word on the lifeline; a frozen guard hears it when it is thawed."""
        if not host.is_guard_frozen:
            self.hear(host, (function, args))
            return
        host.guard_mail = (*host.guard_mail, (function, args))
        if function is Hosts.arm:
            run, _, term, *_ = args
            patience_s = host.policy.patience_s / host.clock.rate
            failed = GuardFailed(term, "the guard does not answer")
            self.after(patience_s, Hosts.in_agent, host.role, run, Hosts._tell_agent, failed)

    def hear(self, host: Host, word: Call) -> None:
        """The guard takes `word` in; what it refuses has not been said."""
        function, args = word
        try:
            function(self, host, *args)
        except self.core.watch.RefusedError as error:
            self.tell(host.role, f"the guard refuses: {error}")
            if function is Hosts.arm:
                run, _, term, *_ = args
                failed = GuardFailed(term, str(error))
                self._guard_says(host, run, failed)
        kill_at_s = host.clock.when(self.core.watch.kill_at_s(host.watch))
        host.guard_at_s = kill_at_s + self.pace.wake_s

    def arm(
        self, host: Host, run: int, child: int, term: int, names: tuple[str, ...], until_s: float
    ) -> None:
        lease, now = Lease(term, names, until_s), host.clock.read(self.now_s)
        host.watch = self.core.watch.arm(host.watch, child, lease, now)
        if not host.is_guard_frozen:
            self._guard_says(host, run, GuardArmed(term))

    def move(self, host: Host, child: int, term: int, until_s: float) -> None:
        now = host.clock.read(self.now_s)
        host.watch = self.core.watch.move(host.watch, child, term, until_s, now)

    def disarm(self, host: Host, child: int, term: int) -> None:
        host.watch = self.core.watch.disarm(host.watch, child, term)

    def _guard_says(self, host: Host, run: int, event: Event) -> None:
        self.after(self.pace.guard_s, Hosts.in_agent, host.role, run, Hosts._tell_agent, event)

    def _tell_agent(self, host: Host, event: Event) -> None:
        self.take(host, event, None)

    def enforce(self, role: Role) -> None:
        """G2: the agent first, then the containers; then a new agent."""
        host = self.hosts[role]
        host.guard_at_s = float("inf")
        if not self.core.watch.is_due(host.watch, host.clock.read(self.now_s)):
            return
        self.tell(role, "the guard kills: the lease ends")
        host.watch = self.core.watch.enforce(host.watch)
        self.end_agent(role)
        self._kill(host)
        self.after(self.pace.restart_s, Hosts.start_agent, role, host.boot)

    def _kill(self, host: Host) -> None:
        kill_s = host.policy.kill_budget_s / host.clock.rate
        self.after(kill_s, Hosts.die, host.role, host.boot, host.incarnation)

    def fenced(self, role: Role, run: int, term: int, target: Role) -> None:
        """fence_command has switched `target` off; somebody switches it on again later."""
        if self.hosts[target].is_on:
            self.power_off(target, 3 * self.hosts[target].policy.heartbeat_timeout_s)
        self.in_agent(role, run, Hosts._tell_agent, FenceFinished(term, target, ""))
