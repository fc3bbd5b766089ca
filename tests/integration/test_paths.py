"""Two ways to one node, over real sockets: what is said goes over both, the first answer counts.

Each way is a relay before the one node that listens, so that it can be slow, dead or wrong alone.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from failover_agent.adapters.path import MOST_IN_FLIGHT
from failover_agent.adapters.peer import Peers
from failover_agent.core.effects import SendRelease, SendVoteRequest
from failover_agent.core.events import (
    AddressLost,
    ConflictKind,
    ConflictSeen,
    HeartbeatAnswered,
    HeartbeatFailed,
    PathAnswered,
    PathFailed,
    ReleaseAnswered,
    VoteAnswered,
    VoteFailed,
)
from failover_agent.core.messages import Answer, ReleaseRequest, VoteKind, VoteRequest
from failover_agent.core.policy import Role
from failover_agent.core.state import Reason
from failover_agent.web.context import Asked
from tests.integration.nodes import Node, listening, node, restarted, speaking
from tests.lab.until import until_async

pytestmark = pytest.mark.integration

BACKUP = Role.BACKUP
LIMIT_S = 10.0


@dataclass
class Way:
    """A wire to `to`. Closed, it holds back what is said until it is opened again."""

    to: Node
    port: int = 0
    requests: int = 0
    _gate: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._gate.set()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> asyncio.Event:
        """From now on it holds back; the event lets go what was held back until `open`."""
        self._gate = asyncio.Event()
        return self._gate

    def open(self, *, for_all: bool = True) -> None:
        """It carries again; not `for_all`: only what is said from now on."""
        if for_all:
            self._gate.set()
        self._gate = asyncio.Event()
        self._gate.set()

    @asynccontextmanager
    async def laid(self) -> AsyncIterator["Way"]:
        server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self._gate.set()
            for writer in self._writers:
                writer.close()
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _carry(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.append(task)
        far, forth = await asyncio.open_connection("127.0.0.1", self.to.port)
        self._writers += [back, forth]

        async def ahead() -> None:
            while data := await near.read(65536):
                self.requests += 1
                await self._gate.wait()
                forth.write(data)
            forth.close()

        async def behind() -> None:
            while data := await far.read(65536):
                back.write(data)
            back.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(ahead())
            group.create_task(behind())
        for writer in (back, forth):
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@dataclass
class Wired:
    """A primary that speaks over two ways, and the backup at their end."""

    primary: Node
    backup: Node
    lan: Way
    cable: Way
    peers: Peers

    async def beats(self, times: int = 1, deadline_s: float = 10.0) -> None:
        for _ in range(times):
            await self.peers.perform(self.primary.beat(deadline_s))

    async def beats_until_answered(self, group: asyncio.TaskGroup) -> None:
        """Say one, and wait for its event alone."""
        before = len(self.primary.posted)
        group.create_task(self.peers.perform(self.primary.beat()))
        await until_async(lambda: _async(len(self.primary.posted) > before), LIMIT_S)


async def _async(value: object) -> object:
    return value


@asynccontextmanager
async def wired() -> AsyncIterator[Wired]:
    primary = node(Role.PRIMARY)
    async with AsyncExitStack() as stack:
        backup = await stack.enter_async_context(listening(node(BACKUP)))
        lan = await stack.enter_async_context(Way(backup).laid())
        cable = await stack.enter_async_context(Way(backup).laid())
        peers = await stack.enter_async_context(speaking(primary, lan.endpoint, cable.endpoint))
        yield Wired(primary, backup, lan, cable, peers)
        lan.open()
        cable.open()


async def test_a_beat_goes_over_both_ways_and_is_answered_by_one_event() -> None:
    async with wired() as pair:
        await pair.beats()

        [answered] = pair.primary.posted
        assert isinstance(answered, HeartbeatAnswered)
        assert len(pair.backup.asked) == 2, "the same beat over each"
        assert pair.primary.paths == [
            PathAnswered(BACKUP, pair.lan.endpoint),
            PathAnswered(BACKUP, pair.cable.endpoint),
        ] or pair.primary.paths == [
            PathAnswered(BACKUP, pair.cable.endpoint),
            PathAnswered(BACKUP, pair.lan.endpoint),
        ]

        await pair.beats(3)

        assert len(pair.primary.paths) == 2, "told when it changes"
        assert pair.backup.keeper.rejected == {"unknown_run": 2}, "a sequence for each path"


async def test_a_vote_and_a_release_go_over_both_too() -> None:
    async with wired() as pair:
        vote = VoteRequest(pair.primary.me, VoteKind.POLL, 0, 10.0, 10.0, Reason.PEER_SILENT)
        await pair.peers.perform(SendVoteRequest(BACKUP, vote, 5.0))
        release = ReleaseRequest(pair.primary.me, 8, BACKUP, Reason.OPERATOR)
        await pair.peers.perform(SendRelease(BACKUP, release, 5.0))

        voted, released = pair.primary.posted
        assert isinstance(voted, VoteAnswered)
        assert isinstance(released, ReleaseAnswered)
        assert len(pair.backup.asked) == 4


async def test_the_answer_waits_for_no_slower_way_and_no_beat_for_the_one_before() -> None:
    async with wired() as pair:
        await pair.beats()
        pair.cable.close()
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                await pair.beats_until_answered(group)
            assert len(pair.primary.posted) == 4
            assert [event for event in pair.primary.paths if isinstance(event, PathFailed)] == []
            pair.cable.open()

        assert all(isinstance(event, HeartbeatAnswered) for event in pair.primary.posted)
        assert len(pair.primary.posted) == 4, "what comes later over the cable is no second answer"
        assert len(pair.backup.asked) == 8


async def test_a_dead_way_is_told_and_fails_no_beat_and_told_again_when_it_works() -> None:
    async with wired() as pair:
        await pair.beats()
        pair.primary.paths.clear()
        pair.cable.close()
        await pair.beats(2, deadline_s=1.0)
        [failed] = pair.primary.paths
        assert isinstance(failed, PathFailed)
        assert (failed.peer, failed.endpoint) == (BACKUP, pair.cable.endpoint)
        assert failed.error == f"{pair.cable.endpoint} does not answer in time"
        answered = pair.primary.posted[1]
        assert isinstance(answered, HeartbeatAnswered)
        assert failed.silent_since_s < answered.sent_at_s, "since its last answer"

        pair.cable.open()
        await pair.beats()

        assert pair.primary.paths[1:] == [PathAnswered(BACKUP, pair.cable.endpoint)]
        assert all(isinstance(event, HeartbeatAnswered) for event in pair.primary.posted)


async def test_an_old_beat_that_ends_unanswered_is_nothing_against_a_way_that_works() -> None:
    async with wired() as pair:
        await pair.beats()
        before = pair.cable.requests
        held_back = pair.cable.close()
        async with asyncio.TaskGroup() as group:
            group.create_task(pair.beats(deadline_s=3.0))
            await until_async(lambda: _async(pair.cable.requests == before + 1), LIMIT_S)
            pair.cable.open(for_all=False)
            await pair.beats()
        held_back.set()

        assert [event for event in pair.primary.paths if isinstance(event, PathFailed)] == []


async def test_where_all_ways_fail_there_is_one_failure_that_says_why_of_each() -> None:
    async with wired() as pair:
        lan, cable = pair.lan.endpoint, pair.cable.endpoint
        await pair.beats()
        pair.primary.posted.clear()
        pair.lan.close()
        pair.cable.close()

        await pair.beats(deadline_s=0.2)
        vote = VoteRequest(pair.primary.me, VoteKind.POLL, 0, 10.0, 10.0, Reason.PEER_SILENT)
        await pair.peers.perform(SendVoteRequest(BACKUP, vote, 0.2))

        failed, vote_failed = pair.primary.posted
        assert isinstance(failed, HeartbeatFailed)
        assert failed.error == f"{lan} does not answer in time; {cable} does not answer in time"
        assert isinstance(vote_failed, VoteFailed)


async def test_a_refused_connection_is_not_waited_for_and_not_the_answer() -> None:
    primary = node(Role.PRIMARY)
    async with listening(node(BACKUP)) as gone:
        nobody = gone.endpoint
    async with listening(node(BACKUP)) as backup:
        for endpoints in ((nobody, backup.endpoint), (backup.endpoint, nobody)):
            async with speaking(primary, *endpoints) as peers:
                await peers.perform(primary.beat())

    assert [type(event) for event in primary.posted] == [HeartbeatAnswered] * 2


async def test_a_way_that_leads_astray_is_an_alarm_and_spoils_nothing_for_the_other() -> None:
    """Another pair's node of the same secret answers there, beat after beat."""
    primary = node(Role.PRIMARY)
    async with (
        listening(node(BACKUP)) as backup,
        listening(node(BACKUP, cluster="till", node_id="other")) as stranger,
        speaking(primary, backup.endpoint, stranger.endpoint) as peers,
    ):
        for _ in range(5):
            await peers.perform(primary.beat())

        seen = [event for event in primary.posted if isinstance(event, ConflictSeen)]
        answered = [event for event in primary.posted if isinstance(event, HeartbeatAnswered)]
        assert (len(seen), len(answered)) == (5, 5)
        assert {(one.kind, one.endpoint, one.received) for one in seen} == {
            (ConflictKind.OTHER_CLUSTER, stranger.endpoint, False)
        }
        assert len(backup.asked) == 5
        assert backup.keeper.rejected == {"unknown_run": 1}, "its address is not forgotten"


async def test_each_way_finds_a_peer_that_was_restarted_by_itself() -> None:
    primary = node(Role.PRIMARY)
    async with listening(node(BACKUP)) as backup:
        lan, cable = Way(backup), Way(backup)
        async with (
            lan.laid(),
            cable.laid(),
            speaking(primary, lan.endpoint, cable.endpoint) as peers,
        ):
            await peers.perform(primary.beat())
    again = restarted(backup)
    async with (
        listening(again, backup.port),
        lan.laid(),
        cable.laid(),
        speaking(primary, lan.endpoint, cable.endpoint) as peers,
    ):
        await peers.perform(primary.beat())

    assert [type(event) for event in primary.posted] == [HeartbeatAnswered] * 2
    assert len(again.asked) == 2


async def test_each_path_has_its_own_limit_of_beats_under_way() -> None:
    async with wired() as pair:
        await pair.beats()
        pair.cable.close()
        async with asyncio.TaskGroup() as group:
            for _ in range(MOST_IN_FLIGHT + 4):
                await pair.beats_until_answered(group)
            assert all(isinstance(event, HeartbeatAnswered) for event in pair.primary.posted)
            assert pair.cable.requests <= 2 * (MOST_IN_FLIGHT + 5)
            pair.cable.open()


async def test_a_name_that_is_lost_on_one_way_says_nothing_of_the_peer() -> None:
    primary = node(Role.PRIMARY)
    async with (
        listening(node(BACKUP)) as backup,
        speaking(primary, backup.endpoint, "http://backup.example:8000") as peers,
        asyncio.TaskGroup() as group,
    ):
        task = group.create_task(peers.run())
        await peers.perform(primary.beat())
        assert PathFailed in {type(event) for event in primary.paths}
        assert AddressLost not in {type(event) for event in primary.posted}
        task.cancel()


async def test_check_asks_over_each_way_and_names_it() -> None:
    check = node(Role.PRIMARY, run_id="check")
    async with listening(node(BACKUP)) as gone:
        nobody = gone.endpoint
    async with (
        listening(node(BACKUP)) as backup,
        speaking(check, backup.endpoint, nobody) as peers,
    ):
        good, bad = await peers.probe(BACKUP)
        [again] = await peers.probe(BACKUP, frozenset({backup.endpoint}))

    assert (good.endpoint, good.is_fine) == (backup.endpoint, True)
    assert (bad.endpoint, bad.is_fine) == (nobody, False)
    assert again == good


async def test_check_finds_two_nodes_where_there_should_be_two_ways() -> None:
    check = node(Role.PRIMARY, run_id="check")
    async with (
        listening(node(BACKUP)) as backup,
        listening(node(BACKUP, node_id="old")) as old,
        speaking(check, backup.endpoint, old.endpoint) as peers,
    ):
        good, bad = await peers.probe(BACKUP)

    assert good.is_fine
    assert (bad.endpoint, bad.conflict) == (old.endpoint, ConflictKind.SAME_ROLE)
    assert "it is another node than over the endpoint before it" in bad.what
    assert bad.todo


async def test_a_decision_is_asked_of_the_peer_and_not_of_the_path() -> None:
    """One that cannot decide answers nothing over either, and is not a lost path alone."""
    async with wired() as pair:

        async def cannot_save(_: Asked) -> Answer:
            raise TimeoutError("the disk is full")

        pair.backup.rule = cannot_save
        await pair.beats()

        [failed] = pair.primary.posted
        assert isinstance(failed, HeartbeatFailed)
        assert failed.error.count("could not save its decision") == 2
