"""A world: the shipped core on two hosts and a witness, in discrete events, by agent.py's contract.

The adversary is `faults`; what must hold is `rules`. Nothing here decides anything: it hands facts
to the core, and its orders to whoever carries them out.
"""

from __future__ import annotations

from typing import Any, assert_never

from failover_agent.core.effects import (
    ArmGuard,
    DisarmGuard,
    Effect,
    Exit,
    ManageRestartPolicy,
    MoveDeadline,
    RepairContainer,
    Reply,
    ReplyToOperator,
    RunFence,
    SendHeartbeat,
    SendRelease,
    SendVoteRequest,
    StartContainers,
    StopContainers,
)
from failover_agent.core.events import Event
from failover_agent.core.policy import Policy, Role
from failover_agent.verification.hosts import Hosts
from failover_agent.verification.machines import Clock, Host, Letter, Record, Saving

WORTH_TELLING = (
    StartContainers | RepairContainer | StopContainers | ArmGuard | SendVoteRequest | SendRelease
)
"""Orders after which a fault of their node may make a difference."""


class World(Hosts):
    """The state-machine coroutine of each agent: take an event, step, plan, save, hand out."""

    def add_host(self, policy: Policy, rate: float) -> None:
        """A machine that is off."""
        self.hosts[policy.role] = Host(policy, Clock(rate))

    def take(self, host: Host, event: Event, letter: Letter | None) -> None:
        """One event: step, plan, save, act. While a save is under way the rest waits."""
        agent = host.agent
        if agent is None:
            return
        if agent.saving is not None:
            agent.inbox = (*agent.inbox, (event, letter))
            return
        before = agent.state
        after = self.core.step(before, event, host.clock.read(self.now_s), host.policy)
        self.core.check(before, after, host.policy)
        items = self.core.plan(before, after)
        if after.transitions or any(isinstance(item, WORTH_TELLING) for item in items):
            self.spoke = host.role
        for at, item in enumerate(items):
            if isinstance(item, self.core.save):
                self.spoke = host.role
                agent.saving = Saving(after.state, item.durable, items[at + 1 :], letter)
                self.after(self.pace.save_s, World.saved, host.role, agent.run, host.boot)
                return
            self._carry_out(host, item, letter)
        self._become(host, after.state)

    def saved(self, role: Role, run: int, boot: int) -> None:
        """The write has reached the disk, whether or not the agent still cares."""
        host = self.hosts[role]
        agent = host.agent
        if agent is None or agent.run != run or agent.saving is None or host.boot != boot:
            return
        self.write(host)
        self.in_agent(role, run, World._go_on)

    def write(self, host: Host) -> None:
        """What the agent saves is on the disk."""
        assert host.record is not None
        assert host.agent is not None
        saving = host.agent.saving
        assert saving is not None
        host.record = Record(host.record.node_id, host.boot, saving.durable)

    def _go_on(self, host: Host) -> None:
        agent = host.agent
        assert agent is not None
        saving, agent.saving = agent.saving, None
        assert saving is not None
        self.spoke = host.role
        self._become(host, saving.state)
        for item in saving.rest:
            self._carry_out(host, item, saving.letter)
        while agent.inbox and agent.saving is None:
            (event, letter), *rest = agent.inbox
            agent.inbox = tuple(rest)
            self.take(host, event, letter)

    def _become(self, host: Host, state: Any) -> None:
        agent = host.agent
        assert agent is not None
        before, agent.state = agent.state, state
        if state.phase is not before.phase:
            term = state.held_term or state.durable.term
            self.tell(host.role, f"{before.phase} -> {state.phase}: {state.reason}, term {term}")
        due_at_s = host.clock.when(self.core.next_deadline(state, host.policy))
        agent.wake_at_s = max(due_at_s, self.now_s) + self.pace.wake_s

    def _carry_out(self, host: Host, effect: Effect, letter: Letter | None) -> None:
        agent, pace = host.agent, self.pace
        assert agent is not None
        me = (host.role, agent.run)
        match effect:
            case SendHeartbeat(to, beat, deadline_s):
                self.is_checkpoint, self.spoke = True, host.role
                self.send(host, to, beat, deadline_s)
            case SendVoteRequest(to, request, deadline_s) | SendRelease(to, request, deadline_s):
                self.send(host, to, request, deadline_s)
            case Reply(_, answer):
                if letter is not None:
                    self.answer(letter, answer, 0.0)
            case StartContainers(term, names):
                self.after(
                    pace.lane_s, World.in_agent, *me, World.start_call, term, names[0], False
                )
            case RepairContainer(term, name):
                self.after(pace.lane_s, World.in_agent, *me, World.start_call, term, name, True)
            case StopContainers(term, _, grace_s):
                self.stop(host, term, grace_s)
            case ArmGuard(term, names, valid_until_s):
                self.tell_guard(host, World.arm, agent.run, agent.child, term, names, valid_until_s)
            case MoveDeadline(term, valid_until_s):
                self.tell_guard(host, World.move, agent.child, term, valid_until_s)
            case DisarmGuard(term):
                self.tell_guard(host, World.disarm, agent.child, term)
            case RunFence(term, target, _):
                self.after(pace.fence_s, World.fenced, *me, term, target)
            case ReplyToOperator() | ManageRestartPolicy() | Exit():
                pass  # Nobody orders anything here, and no restart policy is found.
            case _:
                assert_never(effect)
