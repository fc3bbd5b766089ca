"""What an agent says and hears: requests with their answers, and the gate before the core.

It stands in for `adapters/peer`, `web/peer_api` and the authentication between them: messages of an
earlier run, of our own role or of ourselves never reach the core as messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, assert_never

from failover_agent.core.effects import Reply, SendHeartbeat, SendRelease, SendVoteRequest
from failover_agent.core.events import (
    ConflictKind,
    ConflictSeen,
    HeartbeatAnswered,
    HeartbeatFailed,
    HeartbeatReceived,
    PathAnswered,
    PathFailed,
    ReleaseAnswered,
    ReleaseFailed,
    ReleaseReceived,
    VoteAnswered,
    VoteFailed,
    VoteRequested,
)
from failover_agent.core.messages import (
    Beat,
    BeatAnswer,
    ReleaseAnswer,
    ReleaseRequest,
    Request,
    VoteAnswer,
    VoteRequest,
)
from failover_agent.core.policy import Role
from failover_agent.core.state import NEVER
from failover_agent.simulation.etcd import Client
from failover_agent.simulation.facts import Said
from failover_agent.simulation.network import Exchange, cable

if TYPE_CHECKING:
    from failover_agent.simulation.node import Agent


class _Once:
    """One order on its way over all cables: the first answer counts, or the failure of all."""

    def __init__(
        self, answered: Callable[[Any], None], failed: Callable[[str], None], cables: int
    ) -> None:
        self._answered = answered
        self._failed = failed
        self._left = cables
        self._is_answered = False

    def answered(self, answer: Any) -> None:
        if not self._is_answered:
            self._is_answered = True
            self._answered(answer)

    def failed(self, error: str) -> None:
        self._left -= 1
        if self._left == 0 and not self._is_answered:
            self._failed(error)


class Mail:
    """The letters of one run of an agent."""

    def __init__(self, agent: Agent) -> None:
        """Nothing said, nothing heard."""
        self._agent = agent
        self._requests: dict[int, Exchange[Any]] = {}
        self._last_request = 0
        self._newest_run: dict[Role, int] = {}
        self._ways: dict[str, float] = {}  # when each answered last, NEVER while it does not
        store = agent.world.store
        self._register = None if store is None else Client(agent, store)

    def take(self, effect: SendHeartbeat | SendVoteRequest | SendRelease | Reply) -> None:
        """Put it on the wire."""
        match effect:
            case SendHeartbeat():
                self._send_heartbeat(effect)
            case SendVoteRequest():
                self._send_vote_request(effect)
            case SendRelease():
                self._send_release(effect)
            case Reply():
                self._reply(effect)
            case _:
                assert_never(effect)

    def _reply(self, effect: Reply) -> None:
        world, here = self._agent.world, self._agent.host.name
        exchange = self._requests.pop(effect.request_id)
        world.chronicle.happened(Said(here, effect.answer))
        world.network.carry(here, exchange.sent_from, lambda: exchange.answer(effect.answer))

    def _send_heartbeat(self, effect: SendHeartbeat) -> None:
        sent_at_s, to = self._agent.host.clock(), effect.to

        def answered(left_at_s: float, answer: BeatAnswer) -> None:
            self._agent.post(HeartbeatAnswered(to, left_at_s, effect.beat.term, answer))

        self._ask(
            to,
            effect.beat,
            effect.deadline_s,
            answered,
            lambda error: self._agent.post(HeartbeatFailed(to, sent_at_s, error)),
        )

    def _send_vote_request(self, effect: SendVoteRequest) -> None:
        to, request = effect.to, effect.request

        def answered(left_at_s: float, answer: VoteAnswer) -> None:
            self._agent.post(VoteAnswered(to, left_at_s, answer))

        self._ask(
            to,
            request,
            effect.deadline_s,
            answered,
            lambda error: self._agent.post(VoteFailed(to, request.kind, request.term, error)),
        )

    def _send_release(self, effect: SendRelease) -> None:
        to, request = effect.to, effect.request

        def answered(_: float, answer: ReleaseAnswer) -> None:
            self._agent.post(ReleaseAnswered(to, answer))

        self._ask(
            to,
            request,
            effect.deadline_s,
            answered,
            lambda error: self._agent.post(ReleaseFailed(to, request.term, error)),
        )

    def _ask(
        self,
        to: Role,
        request: Request,
        deadline_s: float,
        answered: Callable[[float, Any], None],
        failed: Callable[[str], None],
    ) -> None:
        """`answered` is told when the question left."""
        if to is Role.WITNESS and self._register is not None:
            self._register.ask(request, deadline_s, answered, failed)
            return
        world, host = self._agent.world, self._agent.host
        world.chronicle.happened(Said(host.name, request))
        left_at_s = host.clock()

        def heard(answer: Any) -> None:
            self._hear(to, answer.sender.run_id)
            answered(left_at_s, answer)

        once = _Once(heard, failed, host.cables)
        for number in range(host.cables):
            self._ask_over(number, to, request, deadline_s, once)

    def _ask_over(
        self, number: int, to: Role, request: Request, deadline_s: float, once: _Once
    ) -> None:
        """Over one cable; with another beside it, what comes of it is told of that cable too."""
        world, host = self._agent.world, self._agent.host
        target, left_at_s = host.endpoints[to], host.clock()
        way = cable(target, number)

        def answered(answer: Any) -> None:
            once.answered(answer)
            self._way_works(to, way)

        def failed(error: str) -> None:
            self._way_fails(to, way, left_at_s, error)
            once.failed(error)

        exchange = Exchange(self._agent, deadline_s, answered, failed, number)
        back = (target, exchange.sent_from)
        world.network.ask(host.name, way, back, lambda: world.arrive(target, request, exchange))

    def _way_works(self, to: Role, way: str) -> None:
        self._agent.world.network.link(self._agent.host.name, way).is_warm = True
        if self._ways.get(way, NEVER) == NEVER and self._agent.host.cables > 1:
            self._agent.post(PathAnswered(to, way))
        self._ways[way] = self._agent.host.clock()

    def _way_fails(self, to: Role, way: str, left_at_s: float, error: str) -> None:
        answered_at_s = self._ways.get(way, left_at_s)
        if answered_at_s <= left_at_s and self._agent.host.cables > 1:
            self._ways[way] = NEVER
            if answered_at_s != NEVER:
                self._agent.post(PathFailed(to, way, answered_at_s, error))

    # --- messages of others ---------------------------------------------------------------------

    def receive(self, request: Request, exchange: Exchange[Any]) -> None:
        """What web/ does: refuse what is not authentic, else ask the core."""
        self._agent.call(lambda: self._receive(request, exchange))

    def _receive(self, request: Request, exchange: Exchange[Any]) -> None:
        sender = request.sender
        conflict = self._conflict_with(request)
        if conflict is not None:
            self._agent.post(conflict)
            exchange.sender.mail.conflicts_with(self._agent)
            self._agent.world.network.carry(
                self._agent.host.name, exchange.sent_from, lambda: exchange.refuse(conflict.detail)
            )
            return
        if not self._hear(sender.role, sender.run_id):
            return
        self._last_request += 1
        number = self._last_request
        self._requests[number] = exchange
        match request:
            case Beat():
                self._agent.post(HeartbeatReceived(number, request))
            case VoteRequest():
                self._agent.post(VoteRequested(number, request))
            case ReleaseRequest():
                self._agent.post(ReleaseReceived(number, request))
            case _:
                assert_never(request)

    def _hear(self, role: Role, run_id: str) -> bool:
        """False for a message of a run that a newer one has replaced."""
        run = int(run_id.removeprefix("run-"))
        newest = self._newest_run.get(role, 0)
        self._newest_run[role] = max(run, newest)
        return run >= newest

    def _conflict_with(self, request: Request) -> ConflictSeen | None:
        sender = request.sender
        if sender.node_id == self._agent.state.node_id:
            return ConflictSeen(ConflictKind.ENDPOINT_IS_SELF, "the endpoint is this agent itself")
        if sender.role is not self._agent.host.policy.role:
            return None
        return ConflictSeen(
            ConflictKind.SAME_ROLE,
            f"{sender.node_id} is {sender.role} too",
            node_id=sender.node_id,
            holding=isinstance(request, Beat) and request.renews,
            may_lead=not isinstance(request, Beat) or request.may_lead,
        )

    def conflicts_with(self, other: Agent) -> None:
        """Another agent refused us because it has our role, or is us."""
        if other is self._agent:
            kind, detail = ConflictKind.ENDPOINT_IS_SELF, "the endpoint is this agent itself"
        else:
            kind, detail = (
                ConflictKind.SAME_ROLE,
                f"{other.state.node_id} is {other.state.role} too",
            )
        seen = ConflictSeen(
            kind, detail, other.state.node_id, holding=other.state.is_holding, may_lead=True
        )
        self._agent.call(lambda: self._agent.post(seen))
