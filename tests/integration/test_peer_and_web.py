"""What one node says and the other hears, over real sockets."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from failover_agent.adapters import names
from failover_agent.adapters.path import MOST_IN_FLIGHT
from failover_agent.adapters.peer import Peers
from failover_agent.core.effects import SendRelease, SendVoteRequest
from failover_agent.core.events import (
    AddressLost,
    ConflictKind,
    ConflictSeen,
    HeartbeatAnswered,
    HeartbeatFailed,
    HeartbeatReceived,
    ReleaseAnswered,
    ReleaseFailed,
    VoteAnswered,
    VoteFailed,
)
from failover_agent.core.messages import (
    Answer,
    BeatAnswer,
    ReleaseRequest,
    VoteKind,
    VoteRequest,
)
from failover_agent.core.policy import Role
from failover_agent.core.state import Phase, Reason
from failover_agent.protocol.envelope import SIGNATURE_HEADER
from failover_agent.protocol.wire import MOST_BYTES
from failover_agent.web.context import Asked
from tests.integration.nodes import (
    Node,
    Relay,
    beat_of,
    listening,
    node,
    restarted,
    speaking,
)
from tests.lab.until import until_async

pytestmark = pytest.mark.integration


@asynccontextmanager
async def _pair() -> AsyncIterator[tuple[Node, Node, Peers]]:
    """A primary that speaks, and a backup that listens."""
    primary = node(Role.PRIMARY)
    async with (
        listening(node(Role.BACKUP)) as backup,
        speaking(primary, backup.endpoint) as peers,
    ):
        yield primary, backup, peers


# --- orders and what comes of them ----------------------------------------------------------------


async def test_a_beat_is_answered_by_one_event() -> None:
    async with _pair() as (primary, backup, peers):
        await peers.perform(primary.beat())

        [answered] = primary.posted
        assert isinstance(answered, HeartbeatAnswered)
        assert (answered.to, answered.term) == (Role.BACKUP, 7)
        assert answered.answer == BeatAnswer(backup.me, beat_of(backup.me), None)
        [heard] = backup.asked
        assert isinstance(heard, HeartbeatReceived)
        assert heard.beat == beat_of(primary.me)


async def test_a_vote_and_a_release_are_answered_too() -> None:
    async with _pair() as (primary, _, peers):
        vote = VoteRequest(primary.me, VoteKind.CANDIDACY, 8, 10.0, 10.0, Reason.PEER_SILENT)
        await peers.perform(SendVoteRequest(Role.BACKUP, vote, 5.0))
        release = ReleaseRequest(primary.me, 8, Role.BACKUP, Reason.OPERATOR)
        await peers.perform(SendRelease(Role.BACKUP, release, 5.0))

        voted, released = primary.posted
        assert isinstance(voted, VoteAnswered)
        assert (voted.answer.kind, voted.answer.asked_term) == (VoteKind.CANDIDACY, 8)
        assert isinstance(released, ReleaseAnswered)
        assert released.answer.released_term == 8


async def test_nobody_listens() -> None:
    primary = node(Role.PRIMARY)
    async with listening(node(Role.BACKUP)) as backup:
        endpoint = backup.endpoint
    async with speaking(primary, endpoint) as peers:
        await peers.perform(primary.beat())
        vote = VoteRequest(primary.me, VoteKind.POLL, 0, 10.0, 10.0, Reason.PEER_SILENT)
        await peers.perform(SendVoteRequest(Role.BACKUP, vote, 5.0))
        release = ReleaseRequest(primary.me, 8, None, Reason.OPERATOR)
        await peers.perform(SendRelease(Role.BACKUP, release, 5.0))

    failed, vote_failed, release_failed = primary.posted
    assert isinstance(failed, HeartbeatFailed)
    assert failed.error == f"no connection to {endpoint}: Connection refused"
    assert isinstance(vote_failed, VoteFailed)
    assert (vote_failed.kind, vote_failed.term) == (VoteKind.POLL, 0)
    assert isinstance(release_failed, ReleaseFailed)
    assert release_failed.term == 8


async def test_a_decision_that_does_not_come_is_a_failure_with_its_reason() -> None:
    async with _pair() as (primary, backup, peers):

        async def cannot_save(_: Asked) -> Answer:
            raise TimeoutError("the disk is full")

        backup.rule = cannot_save
        await peers.perform(primary.beat())

        [failed] = primary.posted
        assert isinstance(failed, HeartbeatFailed)
        assert "could not save its decision" in failed.error


# --- time -----------------------------------------------------------------------------------------


class _Gate:
    """A rule that answers nobody before it is opened, except who comes after `kept` others."""

    def __init__(self, of: Node, kept: int) -> None:
        self._of = of
        self._kept = kept
        self._open = asyncio.Event()

    def open(self) -> None:
        self._open.set()

    async def __call__(self, event: Asked) -> Answer:
        if event.request_id <= self._kept:
            await self._open.wait()
        answer = await self._of.answer(event)
        assert isinstance(answer, BeatAnswer)
        return answer


async def test_a_slow_beat_delays_nothing_and_still_counts() -> None:
    async with _pair() as (primary, backup, peers):
        backup.rule = gate = _Gate(backup, kept=1)
        async with asyncio.TaskGroup() as group:
            group.create_task(peers.perform(primary.beat()))
            await until_async(_async(lambda: backup.asked), 30)
            for _ in range(3):
                await peers.perform(primary.beat())
            assert len(primary.posted) == 3
            gate.open()

        assert len(primary.posted) == 4
        assert all(isinstance(event, HeartbeatAnswered) for event in primary.posted)
        sent = [event.sent_at_s for event in primary.posted if isinstance(event, HeartbeatAnswered)]
        assert sent[-1] == min(sent)


async def test_a_beat_is_given_up_at_its_deadline() -> None:
    async with _pair() as (primary, backup, peers):
        backup.rule = gate = _Gate(backup, kept=1)

        await peers.perform(primary.beat(deadline_s=0.1))

        [failed] = primary.posted
        assert isinstance(failed, HeartbeatFailed)
        assert failed.error == f"{backup.endpoint} does not answer in time"
        gate.open()


async def test_a_beat_does_not_wait_long_for_a_connection_it_would_be_stale_on() -> None:
    """A full queue of connections answers as a host does that is down: not at all."""
    primary = node(Role.PRIMARY)
    with socket.socket() as full, socket.socket() as one, socket.socket() as another:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for first in (one, another):
            first.setblocking(False)
            first.connect_ex(full.getsockname())
        endpoint = f"http://127.0.0.1:{full.getsockname()[1]}"
        async with speaking(primary, endpoint, beat_connect_s=0.1) as peers:
            await peers.perform(primary.beat(deadline_s=3600.0))

    [failed] = primary.posted
    assert isinstance(failed, HeartbeatFailed)
    assert failed.error == f"{endpoint} does not answer in time"


async def test_when_too_many_wait_the_oldest_is_given_up() -> None:
    async with _pair() as (primary, backup, peers):
        backup.rule = gate = _Gate(backup, kept=100)
        async with asyncio.TaskGroup() as group:
            for _ in range(MOST_IN_FLIGHT):
                group.create_task(peers.perform(primary.beat()))
            await until_async(_async(lambda: len(backup.asked) == MOST_IN_FLIGHT), 30)
            assert primary.posted == []
            group.create_task(peers.perform(primary.beat()))
            await until_async(_async(lambda: primary.posted), 30)
            [failed] = primary.posted
            assert isinstance(failed, HeartbeatFailed)
            gate.open()

        assert len(primary.posted) == MOST_IN_FLIGHT + 1


async def test_connections_are_kept_and_each_waiting_beat_has_its_own() -> None:
    primary = node(Role.PRIMARY)
    async with (
        listening(node(Role.BACKUP)) as backup,
        Relay(backup).listening() as relay,
        speaking(primary, relay.endpoint) as peers,
    ):
        for _ in range(5):
            await peers.perform(primary.beat())
        assert relay.connections == 1

        backup.rule = gate = _Gate(backup, kept=6)
        async with asyncio.TaskGroup() as group:
            group.create_task(peers.perform(primary.beat()))
            await until_async(_async(lambda: len(backup.asked) == 6), 30)
            await peers.perform(primary.beat())
            gate.open()
        assert relay.connections == 2


async def test_a_connection_that_turns_out_to_be_dead_costs_no_beat() -> None:
    primary = node(Role.PRIMARY)
    async with (
        listening(node(Role.BACKUP)) as backup,
        Relay(backup).listening() as relay,
        speaking(primary, relay.endpoint) as peers,
    ):
        await peers.perform(primary.beat())
        await peers.perform(primary.beat())
        relay.drops_second_requests = True

        await peers.perform(primary.beat())

        assert [type(event) for event in primary.posted] == [HeartbeatAnswered] * 3


async def test_a_peer_that_was_restarted_is_understood_within_one_beat() -> None:
    primary = node(Role.PRIMARY)
    async with listening(node(Role.BACKUP)) as backup, speaking(primary, backup.endpoint) as peers:
        await peers.perform(primary.beat())
        port = backup.port
    again = restarted(backup)
    async with listening(again, port), speaking(primary, again.endpoint) as peers:
        await peers.perform(primary.beat())

    assert [type(event) for event in primary.posted] == [HeartbeatAnswered] * 2
    assert len(again.asked) == 1


async def test_a_restarted_sender_is_understood_within_one_beat() -> None:
    async with _pair() as (primary, backup, peers):
        await peers.perform(primary.beat())
        again = restarted(primary)
        async with speaking(again, backup.endpoint) as more_peers:
            await more_peers.perform(again.beat())

        assert [type(event) for event in again.posted] == [HeartbeatAnswered]
        assert len(backup.asked) == 2


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with _pair() as (primary, _, peers):
        await peers.perform(primary.beat())

        assert [type(event) for event in primary.posted] == [HeartbeatAnswered]


# --- what is refused ------------------------------------------------------------------------------


async def test_a_recorded_beat_is_refused_and_changes_nothing() -> None:
    primary = node(Role.PRIMARY)
    async with (
        listening(node(Role.BACKUP)) as backup,
        Relay(backup).listening() as relay,
        speaking(primary, relay.endpoint) as peers,
    ):
        await peers.perform(primary.beat())
        recorded = relay.requests[-1]

        status, refusal = await _send_bytes(backup.port, recorded)

        assert (status, refusal["error"]) == (409, "replayed")
        assert len(backup.asked) == 1
        assert backup.posted == []
        assert backup.keeper.rejected["replayed"] == 1


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"", 401, "not_authentic"),
        (b"{}", 401, "not_authentic"),
        (b"x" * (MOST_BYTES + 1), 413, "too_large"),
    ],
)
async def test_a_stranger_is_refused_and_changes_nothing(
    body: bytes, status: int, error: str
) -> None:
    async with listening(node(Role.BACKUP)) as backup, aiohttp.ClientSession() as session:
        for kind in ("heartbeat", "vote", "release", "hello"):
            url = f"{backup.endpoint}/v1/{kind}"
            async with session.post(url, data=body) as response:
                assert (response.status, (await response.json())["error"]) == (status, error)
                assert SIGNATURE_HEADER not in response.headers

        assert (backup.asked, backup.posted) == ([], [])


async def test_without_a_secret_a_malformed_message_is_400() -> None:
    open_one = node(Role.BACKUP, secret=None)
    async with listening(open_one) as backup, aiohttp.ClientSession() as session:
        async with session.post(f"{backup.endpoint}/v1/vote", data=b'{"a":1}') as response:
            refusal = await response.json()

        assert (response.status, refusal["error"]) == (400, "malformed")
        assert refusal["detail"] == "protocol: Field required"
        assert backup.keeper.rejected["malformed"] == 1


async def test_a_pair_without_a_secret_works_as_well() -> None:
    primary = node(Role.PRIMARY, secret=None)
    async with (
        listening(node(Role.BACKUP, secret=None)) as backup,
        speaking(primary, backup.endpoint) as peers,
    ):
        await peers.perform(primary.beat())

    assert [type(event) for event in primary.posted] == [HeartbeatAnswered]


async def _conflict(primary: Node, endpoint: str) -> ConflictSeen:
    """What `primary` posts of a beat to `endpoint`: a conflict, then the failure."""
    async with speaking(primary, endpoint) as peers:
        await peers.perform(primary.beat())
    seen, failed = [event for event in primary.posted if not _is_received(event, endpoint)]
    assert isinstance(failed, HeartbeatFailed)
    assert isinstance(seen, ConflictSeen)
    assert seen.detail.endswith(f"({endpoint})")
    return seen


def _is_received(event: object, endpoint: str) -> bool:
    return isinstance(event, ConflictSeen) and endpoint not in event.detail


async def test_another_secret_is_an_alarm_for_the_sender() -> None:
    async with listening(node(Role.BACKUP, secret=b"another secret")) as backup:
        seen = await _conflict(node(Role.PRIMARY), backup.endpoint)

        assert seen.kind is ConflictKind.NOT_AUTHENTIC
        assert (backup.asked, backup.posted) == ([], [])
        assert backup.keeper.rejected["not_authentic"] == 1


async def test_another_cluster_is_an_alarm_for_both() -> None:
    async with listening(node(Role.BACKUP, cluster="till")) as backup:
        seen = await _conflict(node(Role.PRIMARY), backup.endpoint)

        [received] = backup.posted
        assert isinstance(received, ConflictSeen)
        assert seen.kind is received.kind is ConflictKind.OTHER_CLUSTER
        assert received.detail.endswith("(a message from 127.0.0.1)")


async def test_an_endpoint_that_leads_to_ourselves_is_an_alarm() -> None:
    async with listening(node(Role.PRIMARY)) as primary:
        seen = await _conflict(primary, primary.endpoint)

    assert seen.kind is ConflictKind.ENDPOINT_IS_SELF
    assert primary.asked == []


async def test_two_primaries_tell_each_other_whether_they_hold() -> None:
    active = node(Role.PRIMARY, node_id="other", phase=Phase.ACTIVE)
    async with listening(active):
        primary = node(Role.PRIMARY)
        seen = await _conflict(primary, active.endpoint)

        assert (seen.kind, seen.node_id) == (ConflictKind.SAME_ROLE, "other")
        assert (seen.holding, seen.may_lead) == (True, True)
        [received] = active.posted
        assert isinstance(received, ConflictSeen)
        assert (received.kind, received.node_id) == (ConflictKind.SAME_ROLE, primary.me.node_id)
        assert (received.holding, received.may_lead) == (False, True)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"",
    ],
)
async def test_whatever_else_listens_there_a_beat_only_fails(nonsense: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(nonsense)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    primary = node(Role.PRIMARY)
    async with server, speaking(primary, endpoint) as peers:
        await peers.perform(primary.beat())

    [failed] = primary.posted
    assert isinstance(failed, HeartbeatFailed)
    assert failed.error.startswith(endpoint)


# --- host names -----------------------------------------------------------------------------------


async def test_a_host_name_is_looked_up_beside_the_beats() -> None:
    primary = node(Role.PRIMARY)
    dns = {"backup.example": "127.0.0.1"}
    async with listening(node(Role.BACKUP)) as backup:
        endpoint = f"http://backup.example:{backup.port}"
        async with speaking(primary, endpoint, look_up=dns) as peers, _running(peers):
            await peers.perform(primary.beat())
            dns.clear()
            await peers.perform(primary.beat())

    assert [type(event) for event in primary.posted] == [HeartbeatAnswered] * 2


async def test_a_host_that_moved_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "RETRY_S", (0.01,))
    primary = node(Role.PRIMARY)
    dns = {"backup.example": "127.0.0.1"}
    async with listening(node(Role.BACKUP), bind="127.0.0.2") as backup:
        endpoint = f"http://backup.example:{backup.port}"
        async with speaking(primary, endpoint, look_up=dns) as peers, _running(peers):
            await peers.perform(primary.beat())
            assert isinstance(primary.posted[-1], HeartbeatFailed)
            dns["backup.example"] = "127.0.0.2"

            async def is_answered() -> bool:
                await peers.perform(primary.beat())
                return isinstance(primary.posted[-1], HeartbeatAnswered)

            await until_async(is_answered, 30)


async def test_a_host_name_that_never_had_an_address_is_told() -> None:
    primary = node(Role.PRIMARY)
    async with speaking(primary, "http://backup.example:8000") as peers, _running(peers):
        await peers.perform(primary.beat())
        await until_async(_async(lambda: len(primary.posted) >= 2), 30)

    lost = next(event for event in primary.posted if isinstance(event, AddressLost))
    failed = next(event for event in primary.posted if isinstance(event, HeartbeatFailed))
    assert lost.peer is Role.BACKUP
    assert lost.error == "backup.example does not resolve: Name or service not known"
    assert failed.error == lost.error


@asynccontextmanager
async def _running(peers: Peers) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(peers.run())
        yield
        task.cancel()


# --- check ----------------------------------------------------------------------------------------


async def _probe(of: Node, endpoint: str) -> tuple[bool, str, str]:
    async with speaking(of, endpoint) as peers:
        [found] = await peers.probe(Role.BACKUP)
    assert found.endpoint == endpoint
    assert of.posted == []
    return found.is_fine, found.what, found.todo


async def test_check_finds_the_peer_and_leaves_the_agents_alone() -> None:
    async with _pair() as (primary, backup, peers):
        await peers.perform(primary.beat())
        check = node(Role.PRIMARY, run_id="check")

        found = await _probe(check, backup.endpoint)

        assert found == (True, "the backup answers (version 0.1.0, standby)", "")
        await peers.perform(primary.beat())
        assert [type(event) for event in primary.posted] == [HeartbeatAnswered] * 2
        assert len(backup.asked) == 2


async def test_check_says_what_is_wrong_and_what_mends_it() -> None:
    check = node(Role.PRIMARY, run_id="check")
    async with listening(node(Role.BACKUP, secret=b"another secret")) as backup:
        fine, what, todo = await _probe(check, backup.endpoint)
        assert (fine, "give both nodes the same secret" in what) == (False, True)
        assert todo.startswith("Copy the file in secret_file")
    fine, what, todo = await _probe(check, backup.endpoint)
    assert (fine, what.startswith("no connection to")) == (False, True)
    assert todo.startswith("On the backup: systemctl start failover-agent")
    async with listening(node(Role.BACKUP, cluster="till")) as backup:
        fine, _, todo = await _probe(check, backup.endpoint)
        assert (fine, todo.startswith('Write cluster = "shop"')) == (False, True)
    async with listening(node(Role.PRIMARY)) as itself:
        fine, _, todo = await _probe(check, itself.endpoint)
        assert (fine, todo.startswith("Correct [primary] endpoint")) == (False, True)
    async with listening(node(Role.PRIMARY, node_id="other")) as other:
        fine, _, todo = await _probe(check, other.endpoint)
        assert (fine, todo.startswith("Start it with --role backup")) == (False, True)
    fine, what, todo = await _probe(check, "http://backup.example:8000")
    assert (fine, what) == (
        False,
        "backup.example does not resolve: Name or service not known",
    )
    assert todo.startswith("Write an address into endpoint of [primary]")


# --- helpers --------------------------------------------------------------------------------------


def _async(condition: Callable[[], object]) -> Callable[[], Awaitable[object]]:
    async def asked() -> object:
        return condition()

    return asked


async def _send_bytes(port: int, request: bytes) -> tuple[int, dict[str, object]]:
    """A request as it was recorded, and the answer to it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2])
        for line in head.splitlines()
        if line.lower().startswith(b"content-length")
    )
    body = await reader.readexactly(length)
    writer.close()
    return int(head.split()[1]), json.loads(body)
