"""What the tests of the core are arranged with: settings, nodes in a phase, and what they hear.

A node in a phase is brought there by events, never put together by hand, so that every test starts
from a state that can be. Each step is checked against the invariants.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, TypeVar

from failover_agent.core import invariants, machine, startup
from failover_agent.core.effects import Effect, Exit, Reply, ReplyToOperator
from failover_agent.core.events import (
    CommandKind,
    CommandReceived,
    ContainerChanged,
    ContainerDied,
    ContainerObservation,
    ContainersObserved,
    ContainersStarted,
    EngineLost,
    Event,
    HeartbeatAnswered,
    HeartbeatReceived,
    ReleaseAnswered,
    ReleaseReceived,
    StartFailed,
    StopFailed,
    StopRequested,
    Tick,
    VoteAnswered,
    VoteRequested,
)
from failover_agent.core.managed import digest
from failover_agent.core.messages import (
    Beat,
    BeatAnswer,
    Refusal,
    ReleaseAnswer,
    ReleaseRequest,
    Sender,
    Vote,
    VoteAnswer,
    VoteKind,
    VoteRequest,
)
from failover_agent.core.plan import Save, Step, Transition, plan
from failover_agent.core.policy import Policy, Role
from failover_agent.core.state import (
    ContainerState,
    Durable,
    Health,
    Holder,
    Phase,
    Profile,
    Readiness,
    Reason,
    State,
)

PRIMARY, BACKUP = Role.PRIMARY, Role.BACKUP
THE_PRIMARY, THE_BACKUP = Holder(PRIMARY, "node-p"), Holder(BACKUP, "node-b")
NODE = {PRIMARY: THE_PRIMARY, BACKUP: THE_BACKUP}
FINGERPRINT = "a pair"
START_S = 1000.0
"""When every node here begins, on its own clock."""
TERM = 5
"""The term on the records here, so that 0 stays the first start."""

_NUMBERS = count(1)

E = TypeVar("E", bound=Effect)


def policy(role: Role = PRIMARY, **changes: Any) -> Policy:
    """The defaults of the configuration, with two containers."""
    return Policy(
        **{
            "role": role,
            "containers": ("db", "web"),
            "fingerprint": FINGERPRINT,
            "settings": (("heartbeat_timeout", "10.0"),),
            **changes,
        }
    )


def held_by(holder: Holder, term: int = TERM, **changes: Any) -> Durable:
    """A record that names a holder; both nodes have heard each other."""
    said = {"released": False, "longest_lease_s": 10.0, "heard": frozenset({PRIMARY, BACKUP})}
    return Durable(term, holder, **{**said, **changes})


@dataclass(slots=True)
class Node:
    """One node under test: it takes events, and each step is checked."""

    state: State
    policy: Policy
    now: float
    history: list[Transition] = field(default_factory=list)

    @property
    def peer(self) -> Holder:
        """The other node."""
        return NODE[self.policy.others[0]]

    def takes(self, *events: Event, after_s: float = 0.0) -> Step:
        """Step with each event, `after_s` later; all that came of it."""
        self.now += after_s
        return joined(self.state, [self._take(event) for event in events])

    def _take(self, event: Event) -> Step:
        before = self.state
        step = machine.step(before, event, self.now, self.policy)
        invariants.check(before, step, self.policy)
        assert set(plan(before, step)) >= set(step.effects)
        self.state = step.state
        self.history += step.transitions
        return step

    def would_save(self, event: Event) -> Durable | None:
        """What must be on disk before anybody is told of this event's outcome."""
        step = machine.step(self.state, event, self.now, self.policy)
        saves = [item.durable for item in plan(self.state, step) if isinstance(item, Save)]
        return saves[0] if saves else None

    def waits(self, seconds: float) -> Step:
        """Hear nothing for so long or until it exits; wakes at each deadline, as the agent does."""
        return self._lives(seconds, ())

    def lives(self, seconds: float, *events: Event) -> Step:
        """The same, but every heartbeat interval `events` come."""
        return self._lives(seconds, events)

    def _lives(self, seconds: float, events: tuple[Event, ...]) -> Step:
        end = self.now + seconds
        next_at_s = self.now + self.policy.heartbeat_interval_s
        steps: list[Step] = []
        while self.now < end and not any(of_kind(step, Exit) for step in steps[-2:]):
            deadline_s = machine.next_deadline(self.state, self.policy)
            self.now = min(deadline_s, next_at_s, end)
            steps.append(self.takes(Tick()))
            if self.now >= next_at_s:
                next_at_s += self.policy.heartbeat_interval_s
                if not of_kind(steps[-1], Exit):
                    steps.append(self.takes(*map(said_anew, events)))
        return joined(self.state, steps)

    # --- what the peer says ----------------------------------------------------------------------

    def beat(self, **changes: Any) -> HeartbeatReceived:
        """A beat of the peer: a ready standby that knows the term we know."""
        return HeartbeatReceived(1, peer_beat(self, **changes))

    def leading_beat(self, term: int | None = None, **changes: Any) -> HeartbeatReceived:
        """A beat of a peer that is active."""
        return HeartbeatReceived(1, leading(self, term, **changes))

    def answered(self, vote: Vote | None = None, **changes: Any) -> HeartbeatAnswered:
        """Our last beat was answered."""
        answer = BeatAnswer(peer_sender(self), peer_beat(self, **changes), vote)
        said = self.state.durable.term if self.state.held_term is None else self.state.held_term
        return HeartbeatAnswered(self.peer.role, self.now, said, answer)

    def renewed(self, **changes: Any) -> HeartbeatAnswered:
        """Our last beat was answered, and the promise to us renewed."""
        vote = Vote(granted=True, term=changes.get("term", TERM), holder=None, remaining_s=10.0)
        return self.answered(vote, **changes)

    def asked(self, kind: VoteKind, term: int = 0, **changes: Any) -> VoteRequested:
        """The peer asks for our vote."""
        reason = changes.pop("reason", Reason.PEER_SILENT)
        lease_s = changes.pop("lease_s", 10.0)
        longest_s = changes.pop("longest_lease_s", 10.0)
        request = VoteRequest(peer_sender(self, **changes), kind, term, lease_s, longest_s, reason)
        return VoteRequested(2, request)

    def vote(
        self,
        kind: VoteKind,
        refusal: Refusal | None = None,
        *,
        term: int | None = None,
        told: int | None = None,
        remaining_s: float | None = None,
    ) -> VoteAnswered:
        """The peer answers the question that we asked last, unless `term` names another."""
        state = self.state
        if term is None and kind is VoteKind.PREPARE:
            term = state.held_term
        elif term is None and kind is VoteKind.CANDIDACY and state.candidacy is not None:
            term = state.candidacy.term
        vote = Vote(refusal is None, told or state.durable.term, None, remaining_s, refusal)
        answer = VoteAnswer(peer_sender(self), kind, term or 0, vote, Phase.STANDBY)
        return VoteAnswered(self.peer.role, self.now, answer)

    def released(
        self,
        term: int | None = None,
        *,
        to: Role | None = None,
        reason: Reason = Reason.CONTAINER_DOWN,
    ) -> ReleaseReceived:
        """The peer gives its term back, to us unless told otherwise."""
        named = self.state.role if to is None else to
        given = self.state.durable.term if term is None else term
        return ReleaseReceived(3, ReleaseRequest(peer_sender(self), given, named, reason))

    def release_answered(self, term: int) -> ReleaseAnswered:
        """The peer knows that we gave `term` back."""
        return ReleaseAnswered(self.peer.role, ReleaseAnswer(peer_sender(self), term, term))

    # --- what the engine says --------------------------------------------------------------------

    def died(self, name: str) -> ContainerDied:
        """The container died in the incarnation that we know."""
        incarnation = self.state.containers[name].incarnation
        return ContainerDied(name, incarnation, "exited (1)")


# --- messages ------------------------------------------------------------------------------------


def said_anew(event: Event) -> Event:
    """The same once more: a beat has a number of its own."""
    match event:
        case HeartbeatReceived():
            return replace(event, beat=replace(event.beat, number=next(_NUMBERS)))
        case HeartbeatAnswered() if event.answer.beat is not None:
            beat = replace(event.answer.beat, number=next(_NUMBERS))
            return replace(event, answer=replace(event.answer, beat=beat))
        case _:
            return event


def peer_sender(node: Node, **changes: Any) -> Sender:
    """The peer, as its messages name it."""
    said = {
        "role": node.peer.role,
        "node_id": node.peer.node_id,
        "run_id": "run-1",
        "fingerprint": FINGERPRINT,
    }
    return Sender(**{**said, **changes})


def peer_beat(node: Node, **changes: Any) -> Beat:
    """A beat of the peer: a ready standby that knows the term and the holder we know."""
    durable = node.state.durable
    said = {
        "sender": peer_sender(node),
        "number": next(_NUMBERS),
        "phase": Phase.STANDBY,
        "term": durable.term,
        "renews": False,
        "hold": False,
        "lease_s": 10.0,
        "longest_lease_s": 10.0,
        "holder": None if durable.holder is None else durable.holder.role,
        "released": durable.released,
        "leading_for_s": None,
        "health": Health.DEGRADED,
        "running": 0,
        "readiness": Readiness.READY,
        "not_ready_because": (),
        "may_lead": True,
    }
    made = tuple((name, "image", "settings") for name in node.policy.containers)
    specs, settings = changes.pop("specs", made), changes.pop("settings", node.policy.settings)
    profile = Profile(specs, settings)
    about = {"profile_digest": digest(specs) + digest(settings), "profile": profile}
    return Beat(**{**said, **about, **changes})


def leading(node: Node, term: int | None = None, **changes: Any) -> Beat:
    """A beat of a peer that is active in `term` and asks for a renewal."""
    said = {
        "phase": Phase.ACTIVE,
        "term": node.state.durable.term if term is None else term,
        "renews": True,
        "holder": node.peer.role,
        "released": False,
        "leading_for_s": 60.0,
        "health": Health.OK,
        "running": 2,
    }
    return peer_beat(node, **{**said, **changes})


# --- containers ----------------------------------------------------------------------------------


def seen(name: str, state: ContainerState = ContainerState.UP, **changes: Any) -> Any:
    """One container, as the engine tells of it: up, or created and never started."""
    is_up = state is ContainerState.UP
    said = {
        "name": name,
        "state": state,
        "detail": "running" if is_up else "exited (0)",
        "exists": True,
        "alive": is_up,
        "incarnation": f"{name}-1",
        "image": "image",
        "settings": "settings",
        "restart_policy": "no",
    }
    return ContainerObservation(**{**said, **changes})


def changed(
    name: str, state: ContainerState = ContainerState.UP, **changes: Any
) -> ContainerChanged:
    """The engine tells of one container."""
    return ContainerChanged(seen(name, state, **changes))


def all_up(node: Node, **changes: Any) -> ContainersObserved:
    """A snapshot: everything runs."""
    return ContainersObserved(tuple(seen(name, **changes) for name in node.policy.containers))


def all_down(node: Node, **changes: Any) -> ContainersObserved:
    """A snapshot: everything is there and stopped."""
    return ContainersObserved(
        tuple(seen(name, ContainerState.DOWN, **changes) for name in node.policy.containers)
    )


def engine_lost(alive: bool | None, *names: str) -> EngineLost:
    """The engine does not answer; the processes of `names` were looked for."""
    return EngineLost("connection refused", tuple((name, alive) for name in names))


# --- nodes in a phase ----------------------------------------------------------------------------


def starting(
    policy_: Policy | None = None,
    durable: Durable | None = None,
    *,
    record_lost: bool = False,
    boot_is_new: bool = True,
) -> Node:
    """A process that has just begun, with the record of a pair that ran before."""
    policy_ = policy() if policy_ is None else policy_
    me = NODE[policy_.role]
    record = held_by(me, released=True) if durable is None else durable
    state = startup.begin(
        policy_,
        node_id=me.node_id,
        run_id="run-me",
        durable=Durable() if record_lost else record,
        record_lost=record_lost,
        boot_is_new=boot_is_new,
        now=START_S,
    )
    return Node(state, policy_, START_S)


def a_standby(policy_: Policy | None = None, **changes: Any) -> Node:
    """Its peer is active in `TERM` and renews; its own containers are stopped."""
    policy_ = policy(BACKUP) if policy_ is None else policy_
    node = starting(policy_, held_by(NODE[policy_.others[0]], **changes))
    node.takes(all_down(node), node.leading_beat())
    assert node.state.phase is Phase.STANDBY
    return node


def a_lonely_standby(policy_: Policy | None = None, **changes: Any) -> Node:
    """A standby at the moment before its peer has been silent for the timeout."""
    node = a_standby(policy_, **changes)
    node.waits(node.policy.promise_length_s - 0.05)
    assert node.state.phase is Phase.STANDBY
    return node


def a_candidate(policy_: Policy | None = None, **changes: Any) -> Node:
    """It asks its peer, a standby, whether it would grant a term."""
    node = starting(policy_, **changes)
    node.takes(all_down(node), node.beat())
    assert node.state.phase is Phase.ACQUIRING
    return node


def promoting(policy_: Policy | None = None, **changes: Any) -> Node:
    """It won a term one above `TERM` and starts its containers."""
    node = a_candidate(policy_, **changes)
    node.takes(node.vote(VoteKind.POLL))
    node.takes(node.vote(VoteKind.CANDIDACY))
    assert node.state.phase is Phase.PROMOTING
    return node


def active(policy_: Policy | None = None, **changes: Any) -> Node:
    """All its containers run, its peer is a ready standby, and startup_grace_period is over."""
    node = promoting(policy_, **changes)
    term = held_term(node)
    node.takes(all_up(node), ContainersStarted(term), after_s=2.0)
    assert node.state.phase is Phase.ACTIVE
    node.lives(node.policy.startup_grace_period_s, node.beat())
    return node


def demoting(policy_: Policy | None = None) -> Node:
    """It stops because the agent was told to, and its peer said that it takes the service."""
    node = active(policy_)
    node.takes(StopRequested())
    node.takes(node.vote(VoteKind.PREPARE))
    assert node.state.phase is Phase.DEMOTING
    return node


def failed(policy_: Policy | None = None) -> Node:
    """A promotion failed: db runs, web did not start; its peer is not ready."""
    node = promoting(policy_)
    down = seen("web", ContainerState.DOWN)
    node.takes(node.beat(readiness=Readiness.DIFFERS, not_ready_because=("web: another image",)))
    node.takes(ContainersObserved((seen("db"), down)), after_s=1.0)
    node.takes(StartFailed(held_term(node), "web", "port in use"))
    assert node.state.phase is Phase.FAILED
    return node


def stuck(policy_: Policy | None = None) -> Node:
    """It wanted to stop and could not confirm it."""
    node = demoting(policy_)
    node.takes(StopFailed(held_term(node), ("web",), "the engine does not answer"))
    assert node.state.phase is Phase.FAILED
    return node


def held_term(node: Node) -> int:
    """The term that the node holds."""
    term = node.state.held_term
    assert term is not None
    return term


# --- what came of it -----------------------------------------------------------------------------


def joined(state: State, steps: list[Step]) -> Step:
    """Several steps as one: where they led, and all that came of them."""
    effects = [effect for step in steps for effect in step.effects]
    transitions = [transition for step in steps for transition in step.transitions]
    return Step(state, tuple(effects), tuple(transitions))


def of_kind(step: Step, kind: type[E]) -> list[E]:
    """The effects of one kind, in order."""
    return [effect for effect in step.effects if isinstance(effect, kind)]


def phases(step: Step) -> list[tuple[Phase, Reason]]:
    """The phases entered, and why."""
    return [(transition.after, transition.reason) for transition in step.transitions]


def reply(step: Step) -> Any:
    """The one answer that the step gave to another node."""
    (found,) = of_kind(step, Reply)
    return found.answer


def vote_in(step: Step) -> Vote:
    """The vote in the one answer that the step gave."""
    answer = reply(step)
    assert isinstance(answer.vote, Vote)
    return answer.vote


def order(node: Node, command: CommandKind) -> ReplyToOperator:
    """What an operator is told."""
    (told,) = of_kind(node.takes(CommandReceived(4, command)), ReplyToOperator)
    return told


def alarms(node: Node) -> set[str]:
    """The codes of the open alarms."""
    return set(node.state.alarms)


def sentences(node: Node) -> Iterator[str]:
    """The sentences of the open alarms."""
    return (alarm.sentence for alarm in node.state.alarms.values())
