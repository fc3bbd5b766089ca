"""An etcd in the place of the witness: performs what the core orders of its arbiter.

Orders overlap, each with its own deadline: what they see goes into one view of the register, and
what they write compares the mod_revision, so that none has to wait for another. The member that
answered last is asked first; while it is silent the next one is asked beside it, and whatever
answers first counts. A beat that does not renew reads, so that the sighting is fresh when this node
has to be a candidate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from failover_agent.adapters.arbiters import parse
from failover_agent.adapters.arbiters.gateway import Access, Gateway, Member, NotAnsweredError
from failover_agent.adapters.names import LookUp, look_up
from failover_agent.adapters.peer import Clock, Message, Probed
from failover_agent.core import register
from failover_agent.core.effects import SendHeartbeat, SendRelease, SendVoteRequest
from failover_agent.core.events import (
    Event,
    HeartbeatAnswered,
    HeartbeatFailed,
    ReleaseAnswered,
    ReleaseFailed,
    VoteAnswered,
    VoteFailed,
)
from failover_agent.core.messages import (
    Answer,
    BeatAnswer,
    ReleaseAnswer,
    Request,
    Sender,
    VoteAnswer,
)
from failover_agent.core.register import Overtaken, Read, Snapshot, View, Write

MOST_IN_FLIGHT = 16
"""Orders that wait; one more, and the oldest is given up."""
MOST_MOVES = 8
"""Reads and writes for one order at one member: more, and others change the register too often."""
LONGEST_SILENCE_S = 1.0
"""When the next member is asked beside one that is silent, at the latest."""
PROBE_S = 5.0
ANYBODY = Access()
MANY_REVISIONS = 20_000
"""Some hours of beats."""
COMPACTED = 11
"""The code of "required revision has been compacted"."""


@dataclass(frozen=True, slots=True)
class _Said:
    """`sent_at_s`: when what it answers left."""

    sent_at_s: float
    answer: Answer


@dataclass(frozen=True, slots=True)
class _NoAnswer:
    error: str


class EtcdArbiter:
    """`endpoints` are members of one etcd ("https://host:2379"), `me` this node; `post` is told one
    event for each order. Raises ConfigError when a file of TLS cannot be used.
    """

    def __init__(
        self,
        *,
        endpoints: tuple[str, ...],
        cluster: str,
        me: Sender,
        post: Callable[[Event], object],
        clock: Clock,
        access: Access = ANYBODY,
        look_up: LookUp = look_up,
    ) -> None:
        self._members = [Member(endpoint, look_up) for endpoint in endpoints]
        self._gateway = Gateway(self._members, access)
        self._cluster = cluster
        self._post = post
        self._clock = clock
        self._view = View(register.speaker(me))
        self._stores: dict[Member, str] = {}
        self._waiting: dict[asyncio.Timeout, None] = {}

    async def run(self) -> None:
        """Keep the addresses of host names up to date, forever."""
        await self._gateway.keep_names()

    async def perform(self, effect: Message) -> None:
        """Carry one order out, and post the one event that answers it. Cancelled, it posts none."""
        began_at_s = self._clock.now()
        request = effect.beat if isinstance(effect, SendHeartbeat) else effect.request
        self._view = register.begun(self._view, request)
        said = await self._say(request, effect.deadline_s)
        self._post(_completion(effect, began_at_s, said))

    async def close(self) -> None:
        """End the connections; nothing is to be performed afterwards."""
        await self._gateway.close()

    # --- one order ----------------------------------------------------------------------------

    async def _say(self, request: Request, deadline_s: float) -> _Said | _NoAnswer:
        self._make_room()
        errors: list[str] = []
        try:
            async with asyncio.timeout(deadline_s) as waiting:
                self._waiting[waiting] = None
                try:
                    return await self._ask_in_turn(request, deadline_s, errors)
                finally:
                    self._waiting.pop(waiting, None)
        except TimeoutError:
            for member in self._members:
                member.doubt()
            errors.insert(0, "etcd does not answer in time")
            return _NoAnswer("; ".join(dict.fromkeys(errors)))

    def _make_room(self) -> None:
        """Give the oldest order up when too many wait."""
        if len(self._waiting) >= MOST_IN_FLIGHT:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            if not oldest.expired():
                oldest.reschedule(asyncio.get_running_loop().time())

    async def _ask_in_turn(
        self, request: Request, deadline_s: float, errors: list[str]
    ) -> _Said | _NoAnswer:
        """Ask one member, and the next beside it when the last failed or is silent."""
        members = list(self._members)
        silence_s = min(LONGEST_SILENCE_S, deadline_s / (len(members) + 1))
        waiting: dict[asyncio.Task[_Said | _NoAnswer], Member] = {}
        async with asyncio.TaskGroup() as group:
            while members or waiting:
                if members:
                    member = members.pop(0)
                    waiting[group.create_task(self._converse(member, request))] = member
                done, _ = await asyncio.wait(
                    waiting,
                    timeout=silence_s if members else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    member, said = waiting.pop(task), task.result()
                    if isinstance(said, _NoAnswer):
                        errors.append(said.error)
                        continue
                    for other in waiting:
                        other.cancel()
                    self._members.remove(member)
                    self._members.insert(0, member)
                    return said
        return _NoAnswer("; ".join(dict.fromkeys(errors)))

    async def _converse(self, member: Member, request: Request) -> _Said | _NoAnswer:
        """Read and write at one member until there is an answer."""
        sent_at_s, is_fresh = self._clock.now(), False
        for _ in range(MOST_MOVES):
            now = self._clock.now()
            move = register.next_move(self._view, request, now, is_fresh=is_fresh)
            is_put = False
            try:
                match move:
                    case Read():
                        snapshot = await self._read(member)
                    case Write():
                        is_put, snapshot = await self._write(member, move)
                    case Overtaken():
                        return _NoAnswer("a newer beat overtook this one")
                    case _:
                        return _Said(sent_at_s, move)
                self._check_store(member, snapshot)
            except NotAnsweredError as error:
                return _NoAnswer(str(error))
            except parse.UnusableAnswerError as error:
                return _NoAnswer(f"{member}: {error}")
            self._view = register.saw(self._view, snapshot, asked_at_s=now, now=self._clock.now())
            if is_put:
                assert isinstance(move, Write)
                return _Said(now, move.answer)
            sent_at_s, is_fresh = now, True
        return _NoAnswer(f"{member}: the key changes faster than it can be written")

    async def _read(self, member: Member) -> Snapshot:
        body = parse.read_body(self._cluster)
        return parse.read(await self._gateway.ask(member, "kv/range", body))

    async def _write(self, member: Member, write: Write) -> tuple[bool, Snapshot]:
        body = parse.write_body(self._cluster, write)
        return parse.written(await self._gateway.ask(member, "kv/txn", body), write)

    def _check_store(self, member: Member, snapshot: Snapshot) -> None:
        """Two registers are none: all endpoints have to be of one etcd.

        One that was made anew is believed once everybody that told us of the old one tells of it.
        """
        self._stores[member] = snapshot.store
        others = [one for one, store in self._stores.items() if store != snapshot.store]
        if others:
            raise NotAnsweredError(
                f"{member} and {others[0]} are members of different etcds",
                "Correct endpoint in [arbiter]; if etcd was made anew, restart the agent.",
            )

    # --- check --------------------------------------------------------------------------------

    async def probe(self) -> tuple[Probed, ...]:
        """For `failover-agent check`: does each member answer us, and for itself and its majority?

        Changes nothing anywhere.
        """
        return tuple([await self._probe(member) for member in sorted(self._members, key=str)])

    async def _probe(self, member: Member) -> Probed:
        where = str(member)
        if member.name is not None and not await member.name.refresh():
            todo = "Write an address into endpoint of [arbiter], or the name into /etc/hosts."
            return Probed(where, member.name.error, todo)
        try:
            async with asyncio.timeout(PROBE_S):
                version = await self._gateway.version(member)
                snapshot = await self._read(member)
                self._check_store(member, snapshot)
                is_compacted = await self._is_compacted(member, snapshot)
        except TimeoutError:
            todo = "etcdctl endpoint health --cluster tells whether a majority of its members runs."
            return Probed(where, f"{member} does not answer in time", todo)
        except NotAnsweredError as error:
            return Probed(where, str(error), error.todo)
        except parse.UnusableAnswerError as error:
            return Probed(where, str(error), "Let only failover-agent write under that key.")
        what = f"etcd {version} answers ({_in_words(snapshot)})"
        if not is_compacted:
            todo = "Start it with --auto-compaction-mode=periodic --auto-compaction-retention=1h."
            return Probed(where, f"{what}, but keeps every beat until its disk space ends", todo)
        return Probed(where, what)

    async def _is_compacted(self, member: Member, snapshot: Snapshot) -> bool:
        """Was its history ever cut? Each renewal is a revision; a young etcd may wait with it."""
        if snapshot.revision < MANY_REVISIONS:
            return True
        body = {**parse.read_body(self._cluster), "revision": "1"}
        try:
            await self._gateway.ask(member, "kv/range", body)
        except NotAnsweredError as error:
            if error.code == COMPACTED:
                return True
            raise
        return False


def _in_words(snapshot: Snapshot) -> str:
    entry = snapshot.entry
    if entry is None:
        return "nothing promised yet"
    if entry.released:
        return f"term {entry.term} was given back by the {entry.holder.role}"
    hold = ", on hold" if entry.hold else ""
    return f"term {entry.term} is promised to the {entry.holder.role}{hold}"


def _completion(effect: Message, began_at_s: float, said: _Said | _NoAnswer) -> Event:
    """The one event that answers `effect`."""
    error = said.error if isinstance(said, _NoAnswer) else ""
    answer = None if isinstance(said, _NoAnswer) else said.answer
    sent_at_s = began_at_s if isinstance(said, _NoAnswer) else said.sent_at_s
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
