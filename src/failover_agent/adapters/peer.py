"""The other nodes: says what the core orders, and tells it what came of that.

Where there is more than one way to a node each message goes over all of them side by side, with a
sequence on each. The first usable answer is the answer; what the other paths bring after it, or
do not, tells of them alone.

Each message has its own deadline and, while it waits, a connection to itself: a slow one delays no
other. Connections are kept for the next message; one that turns out to be dead costs a message a
second try, on a new one. An answer counts whenever it comes within the deadline.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, assert_never

import aiohttp

from failover_agent.adapters.names import LookUp, Names, look_up
from failover_agent.adapters.path import Path
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
    `node_id`: who answered, "" where that is not told.
    """

    endpoint: str
    what: str
    todo: str = ""
    conflict: ConflictKind | None = None
    node_id: str = ""

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


class Peers:
    """`endpoints`: for each other node, where it listens ("http://host:port"), ten at most.

    `post` is told one event for each order, what changes on a path, and each ConflictSeen and
    AddressLost on the way.
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
        self._paths = {
            role: tuple(Path(role, i, url, look_up, post) for i, url in enumerate(urls))
            for role, urls in endpoints.items()
        }
        self._keeper = keeper
        self._post = post
        self._clock = clock
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def run(self) -> None:
        """Keep the addresses of host names up to date, forever."""
        async with asyncio.TaskGroup() as group:
            for path in self._all_paths():
                if path.name is not None:
                    group.create_task(path.name.keep(self._address_lost(path)))
            await asyncio.Event().wait()

    async def perform(self, effect: Message) -> None:
        """Carry one order out, and post the one event that answers it. Cancelled, it posts none.

        That event waits for no path but the one that answers first; the order ends when each path
        has answered or failed.
        """
        sent_at_s = self._clock.now()
        paths = self._paths[effect.to]
        failed: dict[Path, _NoAnswer] = {}
        is_answered = False

        async def say_over(path: Path) -> None:
            nonlocal is_answered
            said = await self._perform_over(path, effect)
            if isinstance(said, _NoAnswer):
                failed[path] = said
                path.failed(sent_at_s, said.error)
                return
            if not is_answered:
                is_answered = True
                self._post(_completion(effect, sent_at_s, said))
            path.answered(sent_at_s, self._clock.now())

        async with asyncio.TaskGroup() as group:
            for path in paths[1:]:
                group.create_task(say_over(path), name=f"{type(effect).__name__} over {path}")
            await say_over(paths[0])
        if not is_answered:
            errors = dict.fromkeys(failed[path].error for path in paths)
            self._post(_completion(effect, sent_at_s, _NoAnswer("; ".join(errors))))

    async def _perform_over(self, path: Path, effect: Message) -> Understood | _NoAnswer:
        """What came of it on one path; an answer that cannot be meant for it is none."""
        if isinstance(effect, SendHeartbeat):
            said = await self._say(path, effect.beat, effect.deadline_s, self._beat_connect_s)
        else:
            said = await self._say(path, effect.request, effect.deadline_s)
        if isinstance(said, Understood) and (odd := _what_is_odd(effect, said.answer)):
            return _NoAnswer(f"{path}: its answer is malformed: {odd}")
        return said

    async def probe(
        self, role: Role, endpoints: frozenset[str] | None = None
    ) -> tuple[Probed, ...]:
        """For `failover-agent check`: is the peer of this role there, over each of its endpoints,
        or over those named? Changes nothing anywhere.
        """
        paths = (p for p in self._paths[role] if endpoints is None or str(p) in endpoints)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._probe(path)) for path in paths]
        found = [task.result() for task in asked]
        first = next((one.node_id for one in found if one.is_fine), "")
        return tuple(_of_one_node(one, first) for one in found)

    async def close(self) -> None:
        """End the connections; nothing is to be performed afterwards."""
        for session in self._sessions.values():
            await session.close()

    # --- one message --------------------------------------------------------------------------

    async def _say(
        self,
        path: Path,
        request: Request,
        deadline_s: float,
        connect_s: float | None = None,
    ) -> Understood | _NoAnswer:
        path.make_room()
        try:
            async with asyncio.timeout(deadline_s) as waiting:
                path.waiting[waiting] = None
                try:
                    return await self._converse(path, request, connect_s)
                finally:
                    path.waiting.pop(waiting, None)
        except TimeoutError:
            path.doubt()
            return _NoAnswer(f"{path} does not answer in time")
        except aiohttp.ClientConnectorDNSError as error:
            return _NoAnswer(str(error.os_error))
        except aiohttp.ClientConnectorError as error:
            path.doubt()
            number = error.os_error.errno
            reason = os.strerror(number) if number else str(error.os_error)
            return _NoAnswer(f"no connection to {path}: {reason}")
        except aiohttp.ClientConnectionError:
            return _NoAnswer(f"{path} closes the connection")
        except (aiohttp.ClientError, _UnusableAnswerError, OSError) as error:
            return _NoAnswer(f"{path} does not answer as an agent does: {error}")

    async def _converse(
        self, path: Path, request: Request, connect_s: float | None
    ) -> Understood | _NoAnswer:
        """Say it; again to one that did not know us, and once more where the line was dead."""
        on_new_connection = False
        for _ in range(TRIES):
            outgoing = self._keeper.request(path.role, request, endpoint=path.number)
            try:
                read = await self._send(path, outgoing, on_new_connection, connect_s)
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
                return self._refused(path, read, is_probe=isinstance(request, Hello))
        return _NoAnswer(f"{path} does not take us in: it forgets its own run")

    def _refused(self, path: Path, read: Refused, *, is_probe: bool) -> _NoAnswer:
        error = f"{path}: {read.detail}"
        if read.conflict is None:
            return _NoAnswer(error)
        if not is_probe:
            detail = f"{read.conflict.detail} ({path})"
            # An arbiter that is set up wrongly is an alarm, and no reason for a node not to lead:
            # two votes are a majority without it.
            received = path.role is Role.WITNESS
            seen = replace(read.conflict, detail=detail, received=received, endpoint=str(path))
            self._post(seen)
        return _NoAnswer(error, read.conflict.kind)

    async def _send(
        self,
        path: Path,
        outgoing: Outgoing,
        on_new_connection: bool,
        connect_s: float | None,
    ) -> Understood | AskAgain | Refused:
        signed = outgoing.signed
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if signed.signature:
            headers[SIGNATURE_HEADER] = signed.signature
        async with self._session(on_new_connection).post(
            path.url.origin() / "v1" / outgoing.kind,
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
            names = (path.name for path in self._all_paths())
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

    def _all_paths(self) -> list[Path]:
        return [path for several in self._paths.values() for path in several]

    def _address_lost(self, path: Path) -> Callable[[str], None]:
        """Of one of several the messages tell it, and the peer may be heard over the others."""
        is_only_one = len(self._paths[path.role]) == 1

        def lost(error: str) -> None:
            if is_only_one:
                self._post(AddressLost(path.role, error))

        return lost

    # --- check --------------------------------------------------------------------------------

    async def _probe(self, path: Path) -> Probed:
        me = self._keeper.me
        if path.name is not None and not await path.name.refresh():
            table = self._table(path)
            todo = f"Write an address into endpoint of [{table}], or the name into /etc/hosts."
            return Probed(str(path), path.name.error, todo)
        said = await self._say(path, Hello(), PROBE_S)
        if isinstance(said, _NoAnswer):
            todo = self._todo(path, said.conflict)
            return Probed(str(path), said.error, todo, said.conflict)
        assert isinstance(said.answer, HelloAnswer)
        phase = "" if said.answer.phase is None else f", {said.answer.phase}"
        what = f"the {path.role} answers (version {said.answer.version}{phase})"
        if path.role is not Role.WITNESS and said.sender.fingerprint != me.fingerprint:
            what = f"the {path.role} has other members or another partition_policy"
            return Probed(str(path), what, "Use the same configuration file on all nodes.")
        return Probed(str(path), what, node_id=said.sender.node_id)

    def _table(self, path: Path) -> str:
        """The table of the configuration that names this path."""
        return "arbiter" if path.role is Role.WITNESS else self._keeper.me.role

    def _todo(self, path: Path, conflict: ConflictKind | None) -> str:
        is_witness = path.role is Role.WITNESS
        whose = "the witness" if is_witness else "the other node"
        table = self._table(path)
        name_it = f'Correct [{table}] endpoint = "http://HOST:PORT", the address of {whose}.'
        match conflict:
            case None:
                unit = "failover-agent-witness" if is_witness else "failover-agent"
                return (
                    f"On the {path.role}: systemctl start {unit}, and let port "
                    f"{path.url.port} through its firewall."
                )
            case ConflictKind.NOT_AUTHENTIC:
                return "Copy the file in secret_file from one node to the other; restart the agent."
            case ConflictKind.ENDPOINT_IS_SELF | ConflictKind.WRONG_ROLE:
                return name_it
            case ConflictKind.SAME_ROLE:
                return f"Start it with --role {path.role}; or, if it is this node: {name_it}"
            case ConflictKind.OTHER_CLUSTER if is_witness:
                cluster = self._keeper.cluster
                return f"Add [witness.clusters.{cluster}] to the file of the witness; or: {name_it}"
            case ConflictKind.OTHER_CLUSTER:
                return f'Write cluster = "{self._keeper.cluster}" on both nodes; or: {name_it}'
            case ConflictKind.OTHER_PROTOCOL:
                return "Install the newer of the two versions on both nodes."
            case _:
                assert_never(conflict)


def _of_one_node(probed: Probed, first: str) -> Probed:
    """Several ways lead to one node: its vote is one, and theirs would be two (V9)."""
    if not probed.is_fine or probed.node_id == first:
        return probed
    what = f"{probed.what}, but it is another node than over the endpoint before it"
    todo = "Let every endpoint lead to one and the same node, or take this one out of the list."
    return replace(probed, what=what, todo=todo, conflict=ConflictKind.SAME_ROLE)


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
