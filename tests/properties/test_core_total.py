"""step() is total: whatever comes, in whatever phase, it answers, and keeps the rules.

A node is led through random histories: messages with any content of any role, orders that end well
or badly or with the wrong term, time that passes or jumps, a disk that is full, agents that are
killed, hosts that are rebooted, records that are lost; in a plain pair or with an arbiter, with a
fence_command or without. Some of the events are what a well-meaning world would answer, or no
history would ever come as far as `active`.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from failover_agent.core import invariants, leases, machine, paths, startup
from failover_agent.core.effects import (
    ArmGuard,
    Effect,
    ManageRestartPolicy,
    MoveDeadline,
    RepairContainer,
    Reply,
    ReplyToOperator,
    RunFence,
    StartContainers,
    StopContainers,
)
from failover_agent.core.events import (
    AddressLost,
    CommandKind,
    CommandReceived,
    ConflictKind,
    ConflictSeen,
    ContainerChanged,
    ContainerDied,
    ContainerObservation,
    ContainersObserved,
    ContainersStarted,
    ContainersStopped,
    EngineLost,
    Event,
    FenceFinished,
    GuardArmed,
    GuardFailed,
    HeartbeatAnswered,
    HeartbeatFailed,
    HeartbeatReceived,
    PathAnswered,
    PathFailed,
    RecordWritable,
    RecordWriteFailed,
    ReleaseAnswered,
    ReleaseFailed,
    ReleaseReceived,
    RepairFinished,
    RestartPolicySet,
    StartFailed,
    StopFailed,
    StopRequested,
    Tick,
    VoteAnswered,
    VoteFailed,
    VoteRequested,
)
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
from failover_agent.core.plan import Save, Step, plan
from failover_agent.core.policy import (
    OnEngineLost,
    OnStop,
    PartitionPolicy,
    Policy,
    Role,
)
from failover_agent.core.startup import NOBODY, Predecessor
from failover_agent.core.state import (
    FOREVER,
    NEVER,
    ContainerState,
    Durable,
    Health,
    Holder,
    Phase,
    Profile,
    Readiness,
    Reason,
    Stage,
    State,
)

pytestmark = pytest.mark.timeout(300)  # seconds: a tenth of it, but for coverage under load

ORDERS = (
    StartContainers | RepairContainer | StopContainers | ManageRestartPolicy | ArmGuard | RunFence
)

# --- what can come --------------------------------------------------------------------------------

ROLES = st.sampled_from([Role.PRIMARY, Role.BACKUP, Role.WITNESS])
NODES = st.sampled_from(["node-primary", "node-backup", "node-x"])
NAMES = st.sampled_from(["db", "web", "other"])
TERMS = st.integers(0, 12)
SECONDS = st.sampled_from([0.0, 0.5, 5.0, 10.0, 4000.0])
WORDS = st.sampled_from(["", "refused", "timed out"])
WAYS = ("http://10.0.0.2:8000", "http://192.168.100.2:8000")
DIGESTS = st.sampled_from(["", "a", "b"])
SPECS = st.lists(st.tuples(NAMES, DIGESTS, DIGESTS), max_size=2).map(tuple)
SENDERS = st.builds(Sender, ROLES, NODES, st.just("run"), st.sampled_from(["pair", "pair", "odd"]))
HOLDERS = st.none() | st.builds(Holder, ROLES, NODES)
VOTES = st.builds(
    Vote,
    granted=st.booleans(),
    term=TERMS,
    holder=HOLDERS,
    remaining_s=st.sampled_from([None, 0.0, 3.0, FOREVER]),
    refusal=st.none() | st.sampled_from(Refusal),
)
BEATS = st.builds(
    Beat,
    sender=SENDERS,
    number=st.integers(1, 200),
    phase=st.sampled_from(Phase),
    term=TERMS,
    renews=st.booleans(),
    hold=st.booleans(),
    lease_s=SECONDS,
    longest_lease_s=SECONDS,
    holder=st.none() | ROLES,
    released=st.booleans(),
    leading_for_s=st.none() | SECONDS,
    health=st.sampled_from(Health),
    running=st.none() | st.integers(0, 2),
    readiness=st.sampled_from(Readiness),
    not_ready_because=st.just(()),
    may_lead=st.booleans(),
    profile_digest=DIGESTS,
    knows_digest=DIGESTS,
    profile=st.none()
    | st.builds(Profile, SPECS, st.just((("heartbeat_timeout", "10"),)) | st.just(())),
)
REASONS = st.sampled_from(Reason)
KINDS = st.sampled_from(VoteKind)
PHASES = st.none() | st.sampled_from(Phase)
REQUESTS = st.builds(VoteRequest, SENDERS, KINDS, TERMS, SECONDS, SECONDS, REASONS)


def _answered(
    sender: Sender, beat: Beat | None, vote: Vote | None, ago_s: float, term: int
) -> HeartbeatAnswered:
    """Whoever answers signs its beat too, and is the one that was asked (protocol.wire)."""
    said = None if beat is None else replace(beat, sender=sender)
    return HeartbeatAnswered(sender.role, ago_s, term, BeatAnswer(sender, said, vote))


VOTE_ANSWERS = st.builds(VoteAnswer, SENDERS, KINDS, TERMS, VOTES, PHASES)
OBSERVATIONS = st.builds(
    ContainerObservation,
    name=NAMES,
    state=st.sampled_from(ContainerState),
    detail=WORDS,
    exists=st.booleans(),
    alive=st.booleans(),
    incarnation=st.sampled_from(["1", "2"]),
    image=DIGESTS,
    settings=DIGESTS,
    restart_policy=st.sampled_from(["", "no", "always"]),
)
MESSAGES = st.one_of(
    st.builds(HeartbeatReceived, st.just(1), BEATS),
    st.builds(_answered, SENDERS, st.none() | BEATS, st.none() | VOTES, SECONDS, TERMS),
    st.builds(HeartbeatFailed, ROLES, SECONDS, WORDS),
    st.builds(VoteRequested, st.just(1), REQUESTS),
    st.builds(VoteAnswered, ROLES, SECONDS, VOTE_ANSWERS),
    st.builds(VoteFailed, ROLES, KINDS, TERMS, WORDS),
    st.builds(
        ReleaseReceived,
        st.just(1),
        st.builds(ReleaseRequest, SENDERS, TERMS, st.none() | ROLES, REASONS),
    ),
    st.builds(ReleaseAnswered, ROLES, st.builds(ReleaseAnswer, SENDERS, TERMS, TERMS)),
    st.builds(ReleaseFailed, ROLES, TERMS, WORDS),
    st.builds(
        ConflictSeen,
        st.sampled_from(ConflictKind),
        st.just("wrong"),
        NODES,
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.sampled_from(["", *WAYS]),
    ),
    st.builds(AddressLost, ROLES, WORDS),
)
QUESTIONS = st.one_of(
    st.builds(HeartbeatReceived, st.just(1), BEATS),
    st.builds(VoteRequested, st.just(1), REQUESTS),
    st.builds(
        ReleaseReceived,
        st.just(1),
        st.builds(ReleaseRequest, SENDERS, TERMS, st.none() | ROLES, REASONS),
    ),
)
OF_THIS_HOST = st.one_of(
    st.builds(ContainersObserved, st.lists(OBSERVATIONS, max_size=2).map(tuple)),
    st.builds(ContainerChanged, OBSERVATIONS),
    st.builds(ContainerDied, NAMES, st.sampled_from(["1", "2"]), WORDS),
    st.builds(
        EngineLost,
        WORDS,
        st.lists(st.tuples(NAMES, st.sampled_from([True, False, None])), max_size=2).map(tuple),
    ),
    st.builds(ContainersStarted, TERMS),
    st.builds(StartFailed, TERMS, NAMES, WORDS),
    st.builds(RepairFinished, TERMS, NAMES, WORDS),
    st.builds(ContainersStopped, TERMS),
    st.builds(StopFailed, TERMS, st.just(("web",)), WORDS),
    st.builds(RestartPolicySet, NAMES, WORDS, WORDS),
    st.builds(GuardArmed, TERMS),
    st.builds(GuardFailed, TERMS, st.just("no answer")),
    st.builds(FenceFinished, TERMS, ROLES, WORDS),
    st.builds(RecordWriteFailed, st.just("disk full")),
    st.just(RecordWritable()),
    st.builds(StopRequested, st.booleans(), st.booleans()),
    st.builds(CommandReceived, st.just(1), st.sampled_from(CommandKind)),
    st.just(Tick()),
)


class Histories(RuleBasedStateMachine):
    """One node, its disk, and the orders that are not answered yet."""

    state: State
    policy: Policy
    now: float

    @initialize(
        role=st.sampled_from([Role.PRIMARY, Role.BACKUP]),
        partition=st.sampled_from(PartitionPolicy),
        on_stop=st.sampled_from(OnStop),
        on_engine_lost=st.sampled_from(OnEngineLost),
        attempts=st.sampled_from([0, 3]),
        most_moves=st.integers(0, 3),
        arbiter=st.sampled_from([None, Role.WITNESS]),
        has_fence=st.booleans(),
    )
    def install(
        self,
        role: Role,
        partition: PartitionPolicy,
        on_stop: OnStop,
        on_engine_lost: OnEngineLost,
        attempts: int,
        most_moves: int,
        arbiter: Role | None,
        has_fence: bool,
    ) -> None:
        """A first start, with an empty record."""
        self.policy = Policy(
            role,
            ("db", "web"),
            partition_policy=partition,
            on_stop=on_stop,
            on_engine_lost=on_engine_lost,
            restart_attempts=attempts,
            max_failovers=most_moves,
            arbiter=arbiter,
            has_fence=has_fence,
            fingerprint="pair",
        )
        self.now = 100.0
        self.is_disk_full = False
        self.numbers = itertools.count(1000)
        self.guard_until_s = NEVER
        self.orders: list[ORDERS] = []
        self._begin(Durable(), record_lost=True, boot_is_new=False)

    # --- anything -------------------------------------------------------------------------------

    @rule(event=MESSAGES)
    def a_message_comes(self, event: Event) -> None:
        """An answer is to a question that left so long ago."""
        if isinstance(event, HeartbeatAnswered | VoteAnswered):
            event = replace(event, sent_at_s=self.now - event.sent_at_s)
        self._take(event)

    @rule(event=QUESTIONS)
    def a_question_comes_over_both_paths(self, event: Event) -> None:
        """What was granted is granted to the copy as it was, and nothing more is."""
        first = machine.step(self.state, event, self.now, self.policy)
        self._take(event)
        if self.is_disk_full or first.state != self.state:
            return
        copy = machine.step(self.state, event, self.now, self.policy)
        if isinstance(event, ReleaseReceived) or _grants(first):
            assert _grants(copy) == _grants(first)
            assert copy.state.durable == first.state.durable
            assert copy.state.promise == first.state.promise
        self._take(event)

    @rule(
        role=ROLES,
        endpoint=st.sampled_from([*WAYS, "http://10.9.9.9:1"]),
        ago_s=SECONDS,
        is_answering=st.booleans(),
    )
    def a_path_fails_or_works(
        self, role: Role, endpoint: str, ago_s: float, is_answering: bool
    ) -> None:
        """It is seen and told, and never a reason: all else is as if nothing had happened."""
        event = (
            PathAnswered(role, endpoint)
            if is_answering
            else PathFailed(role, endpoint, self.now - ago_s, "no answer")
        )
        told = machine.step(self.state, event, self.now, self.policy)
        untold = machine.step(self.state, Tick(), self.now, self.policy)
        assert told.effects == untold.effects
        assert _but_for_paths(told.state) == _but_for_paths(untold.state)
        self._take(event)

    @rule(event=OF_THIS_HOST)
    def something_happens_on_this_host(self, event: Event) -> None:
        self._take(event)

    @rule(seconds=st.sampled_from([0.01, 0.4, 1.0, 3.1, 10.2, 40.0]))
    def time_jumps(self, seconds: float) -> None:
        self.now += seconds
        self._take(Tick())

    @rule(seconds=st.sampled_from([2.0, 11.0, 35.0]), is_heard=st.booleans())
    def time_passes(self, seconds: float, is_heard: bool) -> None:
        """Deadline by deadline, with beats of a ready standby or without."""
        end = self.now + seconds
        while self.now < end:
            self.now = max(machine.next_deadline(self.state, self.policy), self.now)
            self._take(Tick())
            if is_heard:
                self._take(HeartbeatReceived(1, self._standby_beat()))

    # --- what a well-meaning world would answer --------------------------------------------------

    def _voters(self) -> list[Role]:
        return [role for role in self.policy.voters if role is not self.policy.role]

    @rule(granted=st.booleans(), index=st.integers(0, 1))
    def a_voter_answers_what_was_asked(self, granted: bool, index: int) -> None:
        state = self.state
        kind, term = VoteKind.PREPARE, state.held_term or 0
        if state.candidacy is not None:
            is_poll = state.candidacy.stage is Stage.POLL
            kind = VoteKind.POLL if is_poll else VoteKind.CANDIDACY
            term = state.candidacy.term
        refusal = None if granted else Refusal.NOT_READY
        vote = Vote(granted, state.durable.term, None, None, refusal)
        voter = self._voters()[index % len(self._voters())]
        phase = None if voter is self.policy.arbiter else Phase.STANDBY
        answer = VoteAnswer(self._sender(voter), kind, term, vote, phase)
        self._take(VoteAnswered(voter, self.now, answer))

    @rule(
        granted=st.booleans(),
        hold=st.booleans(),
        above=st.integers(0, 2),
        index=st.integers(0, 1),
        ago_s=st.sampled_from([0.0, 0.0, 2.0, 8.0]),
    )
    def a_voter_answers_a_beat(
        self, granted: bool, hold: bool, above: int, index: int, ago_s: float
    ) -> None:
        state = self.state
        term = state.durable.term if state.held_term is None else state.held_term
        refusal = None if granted else Refusal.OLD_TERM
        vote = Vote(granted, term + above, state.me, FOREVER if hold else 9.0, refusal)
        voter = self._voters()[index % len(self._voters())]
        beat = None if voter is self.policy.arbiter else self._standby_beat()
        answer = BeatAnswer(self._sender(voter), beat, vote)
        self._take(HeartbeatAnswered(voter, self.now - ago_s, term, answer))

    @rule(alive=st.booleans())
    def the_engine_answers(self, alive: bool) -> None:
        what = ContainerState.UP if alive else ContainerState.DOWN
        self._take(
            ContainersObserved(
                tuple(
                    ContainerObservation(name, what, "", True, alive, "1", "a", "a", "no")
                    for name in self.policy.containers
                )
            )
        )

    @precondition(lambda self: self.orders)
    @rule(is_well=st.booleans(), index=st.integers(0, 5))
    def an_order_ends(self, is_well: bool, index: int) -> None:
        order = self.orders.pop(min(index, len(self.orders) - 1))
        self._take(_outcome(order, is_well=is_well))

    @rule(runs=st.booleans())
    def all_goes_well_for_a_while(self, runs: bool) -> None:
        """The peer is a ready standby that grants what is asked, and the engine does its work."""
        self.the_disk_fills_or_empties(is_full=False)
        self.the_engine_answers(alive=runs)
        for _ in range(25):
            self.now += 1.0
            self._take(HeartbeatReceived(1, self._standby_beat()))
            if self.state.candidacy is not None or self.state.handover is not None:
                self.a_voter_answers_what_was_asked(granted=True, index=0)
            for index in range(2):
                self.a_voter_answers_a_beat(
                    granted=True, hold=False, above=0, index=index, ago_s=0.0
                )
            while self.orders:
                is_start = isinstance(self.orders[0], StartContainers | RepairContainer)
                self.the_engine_answers(alive=is_start)
                self._take(_outcome(self.orders.pop(0), is_well=True))

    @rule()
    def the_peer_releases(self) -> None:
        request = ReleaseRequest(
            self._peer(), self.state.durable.term, self.policy.role, Reason.CONTAINER_DOWN
        )
        self._take(ReleaseReceived(1, request))

    # --- what breaks ----------------------------------------------------------------------------

    @rule(is_full=st.booleans())
    def the_disk_fills_or_empties(self, is_full: bool) -> None:
        self.is_disk_full = is_full
        if not is_full and self.state.record_error:
            self._take(RecordWritable())

    @rule(
        boot_is_new=st.booleans(),
        record_lost=st.sampled_from([False, False, False, True]),
        by_guard=st.booleans(),
    )
    def the_agent_is_killed_and_starts_again(
        self, boot_is_new: bool, record_lost: bool, by_guard: bool
    ) -> None:
        durable = Durable() if record_lost else self.state.durable
        if boot_is_new:
            before = NOBODY
        elif by_guard and self.policy.requires_lease:
            before = Predecessor(was_enforced=True)
        else:
            before = Predecessor(self.guard_until_s)
        self._begin(durable, record_lost=record_lost, boot_is_new=boot_is_new, before=before)

    # --- one step ---------------------------------------------------------------------------------

    def _begin(
        self,
        durable: Durable,
        *,
        record_lost: bool,
        boot_is_new: bool,
        before: Predecessor = NOBODY,
    ) -> None:
        self.now += 1.0
        self.orders = []
        self.state = startup.begin(
            self.policy,
            node_id=f"node-{self.policy.role}",
            run_id="run",
            durable=durable,
            record_lost=record_lost,
            boot_is_new=boot_is_new,
            now=self.now,
            before=before,
        )
        self.state = paths.known(self.state, dict.fromkeys(self._voters(), WAYS))

    def _take(self, event: Event) -> None:
        """What agent.py does with an event, and what must hold after each step."""
        step = self._step(event)
        items = plan(self.state, step)
        if self.is_disk_full and any(isinstance(item, Save) for item in items):
            assert not isinstance(event, RecordWriteFailed), "the fact of a full disk wants no disk"
            self._take(RecordWriteFailed("disk full"))
            self._take(event)
            return
        before, self.state = self.state, step.state
        self._deadlines_are_ahead()
        self._each_request_is_answered(event, step)
        self._an_unknown_engine_orders_nothing(event, step)
        self._nothing_is_stopped_alone(before, event, step)
        self._the_guard_is_told_the_end_of_the_lease(before, event, step)
        for item in items:
            if isinstance(item, ORDERS):
                self.orders.append(item)

    def _step(self, event: Event) -> Step:
        step = machine.step(self.state, event, self.now, self.policy)
        invariants.check(self.state, step, self.policy)
        assert step == machine.step(self.state, event, self.now, self.policy), "it is a function"
        return step

    def _deadlines_are_ahead(self) -> None:
        deadline_s = machine.next_deadline(self.state, self.policy)
        assert self.now < deadline_s <= self.now + self.policy.heartbeat_interval_s

    def _each_request_is_answered(self, event: Event, step: Step) -> None:
        replies = _count(step.effects, Reply) + _count(step.effects, ReplyToOperator)
        match event:
            case HeartbeatReceived():
                wanted = int(event.beat.sender.role in self.policy.others)
            case VoteRequested():
                wanted = int(event.request.sender.role in self.policy.others)
            case ReleaseReceived():
                known = event.request.sender.role in self.policy.others
                wanted = int(known and self.state.may_save)
            case CommandReceived():
                wanted = 1
            case _:
                wanted = 0
        assert replies == wanted

    def _an_unknown_engine_orders_nothing(self, event: Event, step: Step) -> None:
        """S4: unknown is not down."""
        if isinstance(event, EngineLost):
            assert _count(step.effects, RepairContainer) == 0

    def _the_guard_is_told_the_end_of_the_lease(
        self, before: State, event: Event, step: Step
    ) -> None:
        """G1: what it was told last is the end of the lease; only an answer moves it further."""
        told = [item for item in step.effects if isinstance(item, ArmGuard | MoveDeadline)]
        moved = any(isinstance(item, MoveDeadline) for item in told)
        assert not moved or before.on_hold_at or isinstance(event, HeartbeatAnswered)
        if told:
            self.guard_until_s = told[-1].valid_until_s
        if self.policy.requires_lease and self.state.is_holding and self.state.guarded is not None:
            assert self.guard_until_s == leases.valid_until_s(self.state, self.policy)

    def _nothing_is_stopped_alone(self, before: State, event: Event, step: Step) -> None:
        """S5: a node that holds stops nothing before somebody else said that it will take it, but
        for a newer term, a lease that ends, an agent that leaves with a lease that nobody holds, a
        shutdown, a stop that is under way, or where nothing is left to stop.
        """
        if before.held_term is None or _count(step.effects, StopContainers) == 0:
            return
        prepared = (
            isinstance(event, VoteAnswered)
            and event.answer.kind is VoteKind.PREPARE
            and event.answer.vote.granted
        )
        under_way = before.handover is not None and before.handover.is_stopping
        stopping = step.state.stopping
        shuts_down = stopping is not None and (
            stopping.host_is_shutting_down or (stopping.leave and self.policy.requires_lease)
        )
        newer = any(
            change.reason in (Reason.NEWER_TERM, Reason.LEASE_LOST) for change in step.transitions
        )
        gives_way = before.phase is Phase.FAILED and not any(
            view.alive for view in before.containers.values()
        )
        assert prepared or under_way or shuts_down or newer or gives_way

    # --- what the peer is like -------------------------------------------------------------------

    def _peer(self) -> Sender:
        return self._sender(self.policy.others[0])

    def _sender(self, role: Role) -> Sender:
        return Sender(role, f"node-{role}", "run", "pair")

    def _standby_beat(self) -> Beat:
        durable = self.state.durable
        return Beat(
            sender=self._peer(),
            number=next(self.numbers),
            phase=Phase.STANDBY,
            term=durable.term,
            renews=False,
            hold=False,
            lease_s=10.0,
            longest_lease_s=10.0,
            holder=None if durable.holder is None else durable.holder.role,
            released=durable.released,
            leading_for_s=None,
            health=Health.OK,
            running=0,
            readiness=Readiness.READY,
            not_ready_because=(),
            may_lead=True,
        )


def _count(effects: tuple[Effect, ...], kind: type[Any]) -> int:
    return sum(isinstance(effect, kind) for effect in effects)


def _grants(step: Step) -> bool:
    """Was a vote given in the reply?"""
    answers = [item.answer for item in step.effects if isinstance(item, Reply)]
    votes = [one.vote for one in answers if isinstance(one, BeatAnswer | VoteAnswer)]
    return any(vote is not None and vote.granted for vote in votes)


def _but_for_paths(state: State) -> State:
    """Without what is told of paths, and the count of what came from nobody."""
    return replace(
        state,
        peers={role: replace(peer, paths=()) for role, peer in state.peers.items()},
        alarms={name: a for name, a in state.alarms.items() if a.code != "path_lost"},
        counters=replace(state.counters, stale=0),
    )


def _outcome(order: ORDERS, *, is_well: bool) -> Event:
    """The one event that answers an order."""
    match order:
        case StartContainers():
            failed = StartFailed(order.term, "web", "port in use")
            return ContainersStarted(order.term) if is_well else failed
        case RepairContainer():
            return RepairFinished(order.term, order.name, "" if is_well else "port in use")
        case StopContainers():
            failed_stop = StopFailed(order.term, order.names, "timed out")
            return ContainersStopped(order.term) if is_well else failed_stop
        case ManageRestartPolicy():
            return RestartPolicySet(order.name, order.was, "" if is_well else "timed out")
        case ArmGuard():
            return GuardArmed(order.term) if is_well else GuardFailed(order.term, "no answer")
        case RunFence():
            return FenceFinished(order.term, order.target, "" if is_well else "no route")


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
