"""The other nodes: says what the core orders, and tells it what came of that.

Each message has its own deadline and, while it waits, a connection to itself: a slow one delays no
other. Connections are kept for the next message; one that turns out to be dead costs a message a
second try, on a new one. An answer counts whenever it comes within the deadline.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, assert_never

import aiohttp
from yarl import URL

from failover_agent.adapters.names import LookUp, Name, Names, look_up
from failover_agent.core.effects import SendHeartbeat, SendRelease, SendVoteRequest
from failover_agent.core.events import (
    AddressLost,
    ConflictKind,
    Event,
    HeartbeatAnswered,
    HeartbeatFailed,
    ReleaseAnswered,
    ReleaseFailed,
    VoteAnswered,
    VoteFailed,
)
from failover_agent.core.messages import BeatAnswer, ReleaseAnswer, VoteAnswer
from failover_agent.core.policy import Role
from failover_agent.protocol.auth import AskAgain, Keeper, Outgoing, Refused, Understood
from failover_agent.protocol.envelope import SIGNATURE_HEADER
from failover_agent.protocol.wire import MOST_BYTES, Answer, Hello, HelloAnswer, Request

MOST_IN_FLIGHT = 16
"""Messages to one peer that wait for an answer; one more, and the oldest is given up."""
TRIES = 4
"""How often one message is said: to a run not known yet, and on a connection found dead."""
KEPT_S = 60.0
"""Less than the other side keeps an idle connection, so that we are the one who ends it."""
PROBE_S = 5.0

Message = SendHeartbeat | SendVoteRequest | SendRelease


class Clock(Protocol):
    """Seconds on CLOCK_BOOTTIME."""

    def now(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Probed:
    """What `check` found at an endpoint: `what` is a sentence without its full stop, `todo` whole
    sentences, and empty where nothing is wrong. `conflict`: somebody is there, and not our peer.
    """

    endpoint: str
    what: str
    todo: str = ""
    conflict: ConflictKind | None = None

    @property
    def is_fine(self) -> bool:
        """Is the peer there, and the right one?"""
        return not self.todo


@dataclass(frozen=True, slots=True)
class _NoAnswer:
    error: str
    conflict: ConflictKind | None = None


class _UnusableAnswerError(Exception):
    pass


class _Endpoint:
    """Where one peer listens, and which messages to it wait."""

    def __init__(self, role: Role, url: str, look_up: LookUp) -> None:
        self.role = role
        self.url = URL(url)
        self.waiting: dict[asyncio.Timeout, None] = {}
        host = self.url.host or ""
        self.name = None if _is_address(host) else Name(host, look_up)

    def __str__(self) -> str:
        return str(self.url.origin())

    def make_room(self) -> None:
        """Give the oldest message up when too many wait."""
        if len(self.waiting) >= MOST_IN_FLIGHT:
            oldest = next(iter(self.waiting))
            del self.waiting[oldest]
            if not oldest.expired():
                oldest.reschedule(asyncio.get_running_loop().time())


class Peers:
    """`endpoints`: for each other node, where it listens ("http://host:port"); the first is used.

    `post` is told one event for each order, and each ConflictSeen and AddressLost on the way.
    A beat that gets no connection within `beat_connect_s` is given up: the next one is fresher, and
    this one would arrive, long after, at a host that has been started anew.
    """

    def __init__(
        self,
        *,
        endpoints: Mapping[Role, tuple[str, ...]],
        keeper: Keeper,
        post: Callable[[Event], object],
        clock: Clock,
        look_up: LookUp = look_up,
        beat_connect_s: float = 1.0,
    ) -> None:
        self._beat_connect_s = beat_connect_s
        self._endpoints = {
            role: tuple(_Endpoint(role, url, look_up) for url in urls)
            for role, urls in endpoints.items()
        }
        self._keeper = keeper
        self._post = post
        self._clock = clock
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def run(self) -> None:
        """Keep the addresses of host names up to date, forever."""
        async with asyncio.TaskGroup() as group:
            for endpoint in self._all_endpoints():
                if endpoint.name is not None:
                    group.create_task(endpoint.name.keep(self._address_lost(endpoint.role)))
            await asyncio.Event().wait()

    async def perform(self, effect: Message) -> None:
        """Carry one order out, and post the one event that answers it. Cancelled, it posts none."""
        sent_at_s = self._clock.now()
        endpoint = self._endpoints[effect.to][0]
        if isinstance(effect, SendHeartbeat):
            said = await self._say(endpoint, effect.beat, effect.deadline_s, self._beat_connect_s)
        else:
            said = await self._say(endpoint, effect.request, effect.deadline_s)
        if isinstance(said, Understood) and (odd := _what_is_odd(effect, said.answer)):
            said = _NoAnswer(f"{endpoint}: its answer is malformed: {odd}")
        self._post(_completion(effect, sent_at_s, said))

    async def probe(self, role: Role) -> tuple[Probed, ...]:
        """For `failover-agent check`: is the peer of this role there? Changes nothing anywhere."""
        return tuple([await self._probe(endpoint) for endpoint in self._endpoints[role]])

    async def close(self) -> None:
        """End the connections; nothing is to be performed afterwards."""
        for session in self._sessions.values():
            await session.close()

    # --- one message --------------------------------------------------------------------------

    async def _say(
        self,
        endpoint: _Endpoint,
        request: Request,
        deadline_s: float,
        connect_s: float | None = None,
    ) -> Understood | _NoAnswer:
        endpoint.make_room()
        try:
            async with asyncio.timeout(deadline_s) as waiting:
                endpoint.waiting[waiting] = None
                try:
                    return await self._converse(endpoint, request, connect_s)
                finally:
                    endpoint.waiting.pop(waiting, None)
        except TimeoutError:
            self._doubt(endpoint)
            return _NoAnswer(f"{endpoint} does not answer in time")
        except aiohttp.ClientConnectorDNSError as error:
            return _NoAnswer(str(error.os_error))
        except aiohttp.ClientConnectorError as error:
            self._doubt(endpoint)
            number = error.os_error.errno
            reason = os.strerror(number) if number else str(error.os_error)
            return _NoAnswer(f"no connection to {endpoint}: {reason}")
        except aiohttp.ClientConnectionError:
            return _NoAnswer(f"{endpoint} closes the connection")
        except (aiohttp.ClientError, _UnusableAnswerError, OSError) as error:
            return _NoAnswer(f"{endpoint} does not answer as an agent does: {error}")

    async def _converse(
        self, endpoint: _Endpoint, request: Request, connect_s: float | None
    ) -> Understood | _NoAnswer:
        """Say it; again to one that did not know us, and once more where the line was dead."""
        on_new_connection = False
        for _ in range(TRIES):
            outgoing = self._keeper.request(endpoint.role, request)
            try:
                read = await self._send(endpoint, outgoing, on_new_connection, connect_s)
            except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError):
                raise
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
                if on_new_connection:
                    raise
                on_new_connection = True
                continue
            if isinstance(read, Understood):
                return read
            if isinstance(read, Refused):
                return self._refused(endpoint, read, is_probe=isinstance(request, Hello))
        return _NoAnswer(f"{endpoint} does not take us in: it forgets its own run")

    def _refused(self, endpoint: _Endpoint, read: Refused, *, is_probe: bool) -> _NoAnswer:
        error = f"{endpoint}: {read.detail}"
        if read.conflict is None:
            return _NoAnswer(error)
        if not is_probe:
            detail = f"{read.conflict.detail} ({endpoint})"
            # An arbiter that is set up wrongly is an alarm, and no reason for a node not to lead:
            # two votes are a majority without it.
            received = endpoint.role is Role.WITNESS
            self._post(replace(read.conflict, detail=detail, received=received))
        return _NoAnswer(error, read.conflict.kind)

    async def _send(
        self,
        endpoint: _Endpoint,
        outgoing: Outgoing,
        on_new_connection: bool,
        connect_s: float | None,
    ) -> Understood | AskAgain | Refused:
        signed = outgoing.signed
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if signed.signature:
            headers[SIGNATURE_HEADER] = signed.signature
        async with self._session(on_new_connection).post(
            endpoint.url.origin() / "v1" / outgoing.kind,
            data=signed.body,
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_s),
        ) as response:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MOST_BYTES:
                    raise _UnusableAnswerError(f"more than {MOST_BYTES} bytes")
        signature = response.headers.get(SIGNATURE_HEADER, "")
        return self._keeper.read_answer(outgoing, response.status, signature, bytes(body))

    def _session(self, on_new_connection: bool) -> aiohttp.ClientSession:
        """The pool, or one that never uses a connection twice. No proxy, cookie or limit."""
        if on_new_connection not in self._sessions:
            names = (endpoint.name for endpoint in self._all_endpoints())
            resolver = Names(name for name in names if name is not None)
            connector = (
                aiohttp.TCPConnector(
                    resolver=resolver, use_dns_cache=False, limit=0, force_close=True
                )
                if on_new_connection
                else aiohttp.TCPConnector(
                    resolver=resolver, use_dns_cache=False, limit=0, keepalive_timeout=KEPT_S
                )
            )
            self._sessions[on_new_connection] = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._sessions[on_new_connection]

    def _all_endpoints(self) -> list[_Endpoint]:
        return [endpoint for several in self._endpoints.values() for endpoint in several]

    def _doubt(self, endpoint: _Endpoint) -> None:
        if endpoint.name is not None:
            endpoint.name.doubt()

    def _address_lost(self, role: Role) -> Callable[[str], None]:
        def lost(error: str) -> None:
            self._post(AddressLost(role, error))

        return lost

    # --- check --------------------------------------------------------------------------------

    async def _probe(self, endpoint: _Endpoint) -> Probed:
        me = self._keeper.me
        if endpoint.name is not None and not await endpoint.name.refresh():
            table = self._table(endpoint)
            todo = f"Write an address into endpoint of [{table}], or the name into /etc/hosts."
            return Probed(str(endpoint), endpoint.name.error, todo)
        said = await self._say(endpoint, Hello(), PROBE_S)
        if isinstance(said, _NoAnswer):
            todo = self._todo(endpoint, said.conflict)
            return Probed(str(endpoint), said.error, todo, said.conflict)
        assert isinstance(said.answer, HelloAnswer)
        phase = "" if said.answer.phase is None else f", {said.answer.phase}"
        what = f"the {endpoint.role} answers (version {said.answer.version}{phase})"
        if endpoint.role is not Role.WITNESS and said.sender.fingerprint != me.fingerprint:
            what = f"the {endpoint.role} has other members or another partition_policy"
            return Probed(str(endpoint), what, "Use the same configuration file on all nodes.")
        return Probed(str(endpoint), what)

    def _table(self, endpoint: _Endpoint) -> str:
        """The table of the configuration that names this endpoint."""
        return "arbiter" if endpoint.role is Role.WITNESS else self._keeper.me.role

    def _todo(self, endpoint: _Endpoint, conflict: ConflictKind | None) -> str:
        is_witness = endpoint.role is Role.WITNESS
        whose = "the witness" if is_witness else "the other node"
        table = self._table(endpoint)
        name_it = f'Correct [{table}] endpoint = "http://HOST:PORT", the address of {whose}.'
        match conflict:
            case None:
                unit = "failover-agent-witness" if is_witness else "failover-agent"
                return (
                    f"On the {endpoint.role}: systemctl start {unit}, and let port "
                    f"{endpoint.url.port} through its firewall."
                )
            case ConflictKind.NOT_AUTHENTIC:
                return "Copy the file in secret_file from one node to the other; restart the agent."
            case ConflictKind.ENDPOINT_IS_SELF | ConflictKind.WRONG_ROLE:
                return name_it
            case ConflictKind.SAME_ROLE:
                return f"Start it with --role {endpoint.role}; or, if it is this node: {name_it}"
            case ConflictKind.OTHER_CLUSTER if is_witness:
                cluster = self._keeper.cluster
                return f"Add [witness.clusters.{cluster}] to the file of the witness; or: {name_it}"
            case ConflictKind.OTHER_CLUSTER:
                return f'Write cluster = "{self._keeper.cluster}" on both nodes; or: {name_it}'
            case ConflictKind.OTHER_PROTOCOL:
                return "Install the newer of the two versions on both nodes."
            case _:
                assert_never(conflict)


def _what_is_odd(effect: Message, answer: Answer) -> str:
    """Why `answer`, though authentic and in shape, cannot be meant for `effect`; or ""."""
    match effect, answer:
        case SendHeartbeat(), BeatAnswer():
            granted = answer.vote is not None and answer.vote.granted
            return "it grants what was not asked" if granted and not effect.beat.renews else ""
        case SendVoteRequest(), VoteAnswer():
            asked = effect.request.kind, effect.request.term
            same = (answer.kind, answer.asked_term) == asked
            return "" if same else "it answers what was not asked"
        case SendRelease(), ReleaseAnswer():
            same = answer.released_term == effect.request.term
            return "" if same else "it confirms another term"
        case _:
            return "it answers what was not asked"


def _completion(effect: Message, sent_at_s: float, said: Understood | _NoAnswer) -> Event:
    """The one event that answers `effect`."""
    error = said.error if isinstance(said, _NoAnswer) else ""
    answer = None if isinstance(said, _NoAnswer) else said.answer
    match effect:
        case SendHeartbeat():
            if answer is None:
                return HeartbeatFailed(effect.to, sent_at_s, error)
            assert isinstance(answer, BeatAnswer)
            return HeartbeatAnswered(effect.to, sent_at_s, effect.beat.term, answer)
        case SendVoteRequest():
            if answer is None:
                return VoteFailed(effect.to, effect.request.kind, effect.request.term, error)
            assert isinstance(answer, VoteAnswer)
            return VoteAnswered(effect.to, sent_at_s, answer)
        case SendRelease():
            if answer is None:
                return ReleaseFailed(effect.to, effect.request.term, error)
            assert isinstance(answer, ReleaseAnswer)
            return ReleaseAnswered(effect.to, answer)
        case _:
            assert_never(effect)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
