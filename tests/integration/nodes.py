"""Nodes that listen and speak for real, with a core of one rule: whoever asks is answered."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from failover_agent.adapters.clock import Clock
from failover_agent.adapters.names import LookUp
from failover_agent.adapters.peer import Peers
from failover_agent.core.effects import ReplyToOperator, SendHeartbeat
from failover_agent.core.events import (
    CommandReceived,
    Event,
    HeartbeatReceived,
    PathAnswered,
    PathFailed,
    ReleaseReceived,
    VoteRequested,
)
from failover_agent.core.messages import (
    Answer,
    Beat,
    BeatAnswer,
    ReleaseAnswer,
    Sender,
    Vote,
    VoteAnswer,
)
from failover_agent.core.policy import Policy, Role
from failover_agent.core.state import (
    Containers,
    ContainerState,
    ContainerView,
    Durable,
    EngineView,
    Health,
    PeerView,
    Phase,
    Readiness,
    Reason,
    State,
)
from failover_agent.protocol.auth import Keeper
from failover_agent.web.app import serve_public
from failover_agent.web.context import Asked, Context, ReadAccess

SECRET = b"a secret that nobody knows"
CLOCK = Clock()
OTHER = {Role.PRIMARY: Role.BACKUP, Role.BACKUP: Role.PRIMARY}


def beat_of(sender: Sender) -> Beat:
    return Beat(
        sender=sender,
        number=1,
        phase=Phase.STANDBY,
        term=7,
        renews=False,
        hold=False,
        lease_s=10.0,
        longest_lease_s=10.0,
        holder=None,
        released=True,
        leading_for_s=None,
        health=Health.OK,
        running=0,
        readiness=Readiness.READY,
        not_ready_because=(),
        may_lead=True,
    )


def state_of(sender: Sender, phase: Phase) -> State:
    now = CLOCK.now()
    is_active = phase is Phase.ACTIVE
    return State(
        role=sender.role,
        node_id=sender.node_id,
        run_id=sender.run_id,
        may_resume=False,
        boot_is_new=False,
        durable=Durable(term=7),
        phase=phase,
        reason=Reason.FIRST_START,
        since_s=now,
        started_at_s=now,
        stepped_at_s=now,
        next_beat_at_s=now,
        held_term=7 if is_active else None,
        peers={OTHER[sender.role]: PeerView(OTHER[sender.role])},
        containers=Containers(
            [
                ContainerView(
                    "web", ContainerState.UP if is_active else ContainerState.DOWN, "", exists=True
                )
            ]
        ),
        engine=EngineView(reachable=True),
    )


@dataclass
class Node:
    """One side. `rule` answers what it is asked; `posted` is what its adapters told its core, but
    for what is told of its `paths`.
    """

    keeper: Keeper
    phase: Phase = Phase.STANDBY
    read_access: ReadAccess = "open"
    stepped_ago_s: float = 0.0
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    posted: list[Event] = field(default_factory=list)
    paths: list[PathAnswered | PathFailed] = field(default_factory=list)
    rule: Callable[[Asked], Awaitable[Answer | ReplyToOperator]] | None = None

    @property
    def me(self) -> Sender:
        return self.keeper.me

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(self, event: Event) -> None:
        if isinstance(event, PathAnswered | PathFailed):
            self.paths.append(event)
        else:
            self.posted.append(event)

    def beat(self, deadline_s: float = 10.0) -> SendHeartbeat:
        return SendHeartbeat(OTHER[self.me.role], beat_of(self.me), deadline_s)

    def context(self) -> Context:
        numbers = itertools.count(1)

        async def ask(make_event: Callable[[int], Asked]) -> Answer | ReplyToOperator:
            event = make_event(next(numbers))
            self.asked.append(event)
            return await (self.rule or self.answer)(event)

        return Context(
            keeper=self.keeper,
            policy=Policy(role=self.me.role, containers=("web",)),
            version="0.1.0",
            read_access=self.read_access,
            now=CLOCK.now,
            get_state=lambda: state_of(self.me, self.phase),
            ask=ask,
            post=self.post,
            history=lambda limit: [{"entry": number} for number in range(5)][-limit:],
            stepped_ago_s=lambda: self.stepped_ago_s,
        )

    async def answer(self, event: Asked) -> Answer | ReplyToOperator:
        """The rule of a node that has nothing against it."""
        vote = Vote(granted=True, term=7, holder=None, remaining_s=None)
        match event:
            case HeartbeatReceived():
                return BeatAnswer(self.me, beat_of(self.me), vote if event.beat.renews else None)
            case VoteRequested():
                request = event.request
                return VoteAnswer(self.me, request.kind, request.term, vote, self.phase)
            case ReleaseReceived():
                return ReleaseAnswer(self.me, event.request.term, event.request.term)
            case CommandReceived():
                return ReplyToOperator(event.request_id, True, f"{event.command} it is.")


def node(
    role: Role,
    *,
    node_id: str = "",
    run_id: str = "run-1",
    secret: bytes | None = SECRET,
    cluster: str = "shop",
    phase: Phase = Phase.STANDBY,
) -> Node:
    keeper = Keeper(
        cluster=cluster,
        me=Sender(role, node_id or f"id-of-{role}", run_id, "f"),
        secret=secret,
        peers=frozenset({OTHER[role]}),
        arbiters=frozenset({Role.WITNESS}),
        living_for_s=10.0,
    )
    return Node(keeper, phase=phase)


@asynccontextmanager
async def listening(one: Node, port: int = 0, bind: str = "127.0.0.1") -> AsyncIterator[Node]:
    async with serve_public(one.context(), bind=bind, port=port) as one.port:
        yield one


@asynccontextmanager
async def speaking(
    one: Node,
    *endpoints: str,
    look_up: Mapping[str, str] | None = None,
    witness: str = "",
    beat_connect_s: float = 5.0,
) -> AsyncIterator[Peers]:
    """What `one` says goes to `endpoints`, or to the `witness`; `look_up` is its DNS."""
    to = {OTHER[one.me.role]: endpoints, Role.WITNESS: (witness,) if witness else ()}
    peers = Peers(
        endpoints=to,
        keeper=one.keeper,
        post=one.post,
        clock=CLOCK,
        look_up=_dns({} if look_up is None else look_up),
        beat_connect_s=beat_connect_s,
    )
    try:
        yield peers
    finally:
        await peers.close()


def _dns(names: Mapping[str, str]) -> LookUp:
    def ask(host: str) -> tuple[tuple[socket.AddressFamily, str], ...]:
        if host not in names:
            raise socket.gaierror(-2, "Name or service not known")
        return ((socket.AF_INET, names[host]),)

    return ask


def restarted(one: Node) -> Node:
    """The same node after its process was started again."""
    again = node(one.me.role, node_id=one.me.node_id, run_id=f"{one.me.run_id}-again")
    return replace(again, phase=one.phase)


class Relay:
    """A wire between the two that can be listened to, counted, and cut at a bad moment."""

    def __init__(self, to: Node) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.port = 0
        self.drops_second_requests = False
        self._to = to

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Relay"]:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _carry(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self.connections += 1
        far, forth = await asyncio.open_connection("127.0.0.1", self._to.port)
        is_first = True

        async def ahead() -> None:
            nonlocal is_first
            while data := await near.read(65536):
                if self.drops_second_requests and not is_first:
                    break
                is_first = False
                self.requests.append(data)
                forth.write(data)
            forth.close()
            back.close()

        async def behind() -> None:
            while data := await far.read(65536):
                back.write(data)
            back.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(ahead())
            group.create_task(behind())
