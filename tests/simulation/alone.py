"""One agent, spoken to by hand: what a voter answers, message by message."""

from typing import Any

from failover_agent.core.effects import (
    Reply,
    SendVoteRequest,
    StartContainers,
    StopContainers,
)
from failover_agent.core.events import (
    ContainerObservation,
    ContainersObserved,
    ContainersStarted,
    Event,
    HeartbeatAnswered,
    HeartbeatReceived,
    ReleaseReceived,
    Tick,
    VoteAnswered,
    VoteRequested,
)
from failover_agent.core.messages import (
    Beat,
    BeatAnswer,
    Refusal,
    ReleaseRequest,
    Sender,
    Vote,
    VoteAnswer,
    VoteKind,
    VoteRequest,
)
from failover_agent.core.policy import Role
from failover_agent.core.state import (
    ContainerState,
    Durable,
    Health,
    Phase,
    Readiness,
    Reason,
)
from failover_agent.simulation.product import Product
from tests.simulation.pairs import FINGERPRINT, NAMES, T, make_policy

LONG_AGO = 1000.0


class Alone:
    """The backup. Whoever speaks to it is the primary, under the node id `primary-1`."""

    def __init__(
        self,
        core: Product,
        durable: Durable | None = None,
        *,
        role: Role = Role.BACKUP,
        boot_is_new: bool = False,
        **differing: Any,
    ) -> None:
        self._core = core
        self._requests = 0
        self._beats = 0
        self.policy = make_policy(role=role, **differing)
        self.now = LONG_AGO
        self.state = core.begin(
            self.policy,
            node_id=f"{role}-1",
            run_id="run-1",
            durable=durable or Durable(),
            record_lost=durable is None,
            boot_is_new=boot_is_new,
            now=self.now,
        )
        self.effects: list[Any] = []

    def take(self, event: Event) -> list[Any]:
        """Step; the answer is what was ordered."""
        step = self._core.step(self.state, event, self.now, self.policy)
        self._core.check(self.state, step, self.policy)
        self.state = step.state
        self.effects = list(step.effects)
        return self.effects

    def wait(self, seconds: float) -> None:
        """Let time pass, a tick each tenth of a second."""
        until = self.now + seconds
        while self.now < until:
            self.now += 0.1
            self.take(Tick())

    def sees(self, *, running: bool) -> None:
        """The engine says whether the containers run."""
        state = ContainerState.UP if running else ContainerState.DOWN
        seen = tuple(
            ContainerObservation(name, state, "", True, running, name, "i", "s", "no")
            for name in NAMES
        )
        self.take(ContainersObserved(seen))

    def other(self, node: str = "primary-1", fingerprint: str = FINGERPRINT) -> Sender:
        """Who speaks."""
        role = Role.PRIMARY if self.policy.role is Role.BACKUP else Role.BACKUP
        return Sender(role, node, f"run of {node}", fingerprint)

    def asks(self, kind: VoteKind, term: int = 0, **sender: Any) -> Vote:
        """A poll, a prepare, a candidacy."""
        request = VoteRequest(self.other(**sender), kind, term, T, T, Reason.NOBODY_ACTIVE)
        answer = self._reply_to(VoteRequested(self._next(), request))
        assert isinstance(answer, VoteAnswer)
        return answer.vote

    def beats(self, phase: Phase, term: int, **differing: Any) -> Vote | None:
        """A beat; the answer is its vote. Holders renew, the others do not, unless told."""
        return self.answer_to_beat(phase, term, **differing).vote

    def answer_to_beat(self, phase: Phase, term: int, **differing: Any) -> BeatAnswer:
        """A beat, and all of its answer."""
        beat = self.beat_of_other(phase, term, **differing)
        answer = self._reply_to(HeartbeatReceived(self._next(), beat))
        assert isinstance(answer, BeatAnswer)
        return answer

    def says(self, phase: Phase, term: int) -> Beat:
        """What it says of itself when it is spoken to."""
        beat = self.answer_to_beat(phase, term).beat
        assert beat is not None
        return beat

    def answers_beat(self, vote: Vote, phase: Phase = Phase.STANDBY, **differing: Any) -> None:
        """The other one answers our last beat, with its vote."""
        beat = self.beat_of_other(phase, vote.term, **differing)
        term = self.state.durable.term if self.state.held_term is None else self.state.held_term
        answer = BeatAnswer(beat.sender, beat, vote)
        self.take(HeartbeatAnswered(self.other().role, self.now, term, answer))

    def answers(self, kind: VoteKind, term: int, *, granted: bool, told: int) -> None:
        """The other one answers a question of ours."""
        vote = Vote(granted, told, None, None, None if granted else Refusal.NOT_READY)
        answer = VoteAnswer(self.other(), kind, term, vote, Phase.STANDBY)
        self.take(VoteAnswered(self.other().role, self.now, answer))

    def asked(self) -> tuple[VoteKind, int] | None:
        """What the last step asked the other one."""
        requests = [e.request for e in self.effects if isinstance(e, SendVoteRequest)]
        return (requests[0].kind, requests[0].term) if requests else None

    def stops(self) -> bool:
        """Did the last step stop containers?"""
        return any(isinstance(effect, StopContainers) for effect in self.effects)

    def beat_of_other(self, phase: Phase, term: int, **differing: Any) -> Beat:
        """What the other one says of itself."""
        fields: dict[str, Any] = {
            "sender": self.other(),
            "number": self._next_beat(),
            "phase": phase,
            "term": term,
            "renews": phase in (Phase.ACTIVE, Phase.PROMOTING, Phase.DEMOTING, Phase.FAILED),
            "hold": False,
            "lease_s": T,
            "longest_lease_s": T,
            "holder": self.other().role,
            "released": False,
            "leading_for_s": 1.0 if phase is Phase.ACTIVE else None,
            "health": Health.OK,
            "running": len(NAMES) if phase is Phase.ACTIVE else 0,
            "readiness": Readiness.READY,
            "not_ready_because": (),
            "may_lead": True,
        }
        return Beat(**{**fields, **differing})

    def releases(self, term: int, **sender: Any) -> None:
        """A release that names this node."""
        request = ReleaseRequest(
            self.other(**sender), term, self.policy.role, Reason.CONTAINER_DOWN
        )
        self._reply_to(ReleaseReceived(self._next(), request))

    def _next(self) -> int:
        self._requests += 1
        return self._requests

    def _next_beat(self) -> int:
        self._beats += 1
        return self._beats

    def _reply_to(self, event: Event) -> object:
        (reply,) = [effect for effect in self.take(event) if isinstance(effect, Reply)]
        return reply.answer


STANDING_BY: dict[str, Any] = {"holder": None, "released": True}
"""What a beat of a node says that was never granted anything."""


def wait_until_it_asks(alone: Alone) -> None:
    """Let time pass, and beats of a standby come, until it becomes a candidate."""
    for _ in range(600):
        alone.now += 0.1
        alone.beats(Phase.STANDBY, 0, **STANDING_BY)
        if alone.state.phase is Phase.ACQUIRING:
            return
    raise AssertionError("it never asks")


def a_leader(core: Product, **differing: Any) -> Alone:
    """The primary, granted its term by the other, with all its containers up."""
    alone = Alone(core, role=Role.PRIMARY, **differing)
    alone.sees(running=False)
    wait_until_it_asks(alone)
    assert alone.asked() == (VoteKind.POLL, 0)
    alone.answers(VoteKind.POLL, 0, granted=True, told=0)
    assert alone.asked() == (VoteKind.CANDIDACY, 1)
    alone.answers(VoteKind.CANDIDACY, 1, granted=True, told=1)
    assert [type(effect) for effect in alone.effects].count(StartContainers) == 1
    alone.sees(running=True)
    alone.take(ContainersStarted(1))
    assert alone.state.phase is Phase.ACTIVE
    for _ in range(20):
        alone.now += 1.0
        alone.beats(Phase.STANDBY, 1, holder=Role.PRIMARY)
    return alone


def a_voter(core: Product, **durable: Any) -> Alone:
    """A standby whose containers are confirmed stopped, and whose promises have all ended."""
    alone = Alone(core, Durable(**{"heard": frozenset(Role), **durable}))
    alone.sees(running=False)
    alone.beats(Phase.STANDBY, 0, **STANDING_BY)
    return alone
