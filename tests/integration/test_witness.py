"""A real witness, its record on a real disk, and nodes that speak to it as they do."""

import asyncio
import itertools
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from failover_agent.adapters import record
from failover_agent.adapters.peer import Peers
from failover_agent.adapters.record import RecordStore, read_host, read_record
from failover_agent.core.effects import SendHeartbeat, SendRelease, SendVoteRequest
from failover_agent.core.events import (
    ConflictKind,
    ConflictSeen,
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
    Refusal,
    ReleaseAnswer,
    ReleaseRequest,
    Request,
    Sender,
    Vote,
    VoteAnswer,
    VoteKind,
    VoteRequest,
)
from failover_agent.core.policy import Role
from failover_agent.core.state import FOREVER, Holder, Reason
from failover_agent.protocol.auth import Keeper, Receipt, Signed
from failover_agent.protocol.wire import LARGEST_STEP
from failover_agent.web.app import serve_witness, serve_witness_operator
from failover_agent.web.context import WitnessContext, WitnessedPair
from failover_agent.witness import Pair, Witness
from tests.integration.nodes import CLOCK, SECRET, Node, beat_of, node, speaking
from tests.lab.until import until_async

pytestmark = pytest.mark.integration

T = 3.0
"""Short, because a witness without a record makes its first candidate wait."""
RUNS = itertools.count(1)


@dataclass
class House:
    """A witness that listens, and what it stands on."""

    state_dir: Path
    secrets: Mapping[str, bytes | None] = field(default_factory=lambda: {"shop": SECRET})
    pairs: dict[str, WitnessedPair] = field(default_factory=dict)
    witness: Witness = field(init=False)
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def context(self) -> WitnessContext:
        return WitnessContext(
            pairs=self.pairs,
            rejected=self.witness.rejected,
            version="0.1.0",
            read_access="open",
            is_reader=lambda _: False,
            now=CLOCK.now,
            started_at_s=CLOCK.now(),
            look=self.witness.look,
            not_ready_because=self.witness.not_ready_because,
            stepped_ago_s=self.witness.stepped_ago_s,
        )

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["House"]:
        """The process of a witness, from its start to its end."""
        with _opened(self.state_dir, self.secrets) as pairs:
            self.witness = Witness(pairs, clock=CLOCK)
            self.pairs = dict(self.witness.pairs)
            context = self.context()
            async with serve_witness(context, bind="127.0.0.1", port=self.port) as self.port:
                yield self


@contextmanager
def _opened(state_dir: Path, secrets: Mapping[str, bytes | None]) -> Iterator[list[Pair]]:
    run_id = f"w{next(RUNS)}"
    stores = [
        RecordStore.open(
            state_dir / name, cluster=name, role=Role.WITNESS, host=read_host(), deadline_s=30.0
        )
        for name in secrets
    ]
    try:
        yield [
            Pair(name, store, secret=secret, run_id=run_id, clock=CLOCK, timeout_s=T)
            for (name, secret), store in zip(secrets.items(), stores, strict=True)
        ]
    finally:
        for store in stores:
            store.close()


class Voice:
    """A node that speaks to the witness, and to nobody else."""

    def __init__(self, of: Node, peers: Peers) -> None:
        self.node = of
        self._peers = peers

    async def beats(self, deadline_s: float = 5.0, **fields: Any) -> BeatAnswer | HeartbeatFailed:
        beat = replace(beat_of(self.node.me), lease_s=T, longest_lease_s=T, **fields)
        await self._peers.perform(SendHeartbeat(Role.WITNESS, beat, deadline_s))
        event = self.node.posted[-1]
        if isinstance(event, HeartbeatAnswered):
            assert (event.to, event.term) == (Role.WITNESS, beat.term)
            return event.answer
        assert isinstance(event, HeartbeatFailed)
        return event

    async def renews(self, term: int = 7, **fields: Any) -> Vote:
        answer = await self.beats(renews=True, term=term, **fields)
        assert isinstance(answer, BeatAnswer), answer
        assert (answer.sender.role, answer.beat) == (Role.WITNESS, None)
        assert answer.vote is not None
        return answer.vote

    async def asks(
        self,
        kind: VoteKind = VoteKind.CANDIDACY,
        term: int = 8,
        reason: Reason = Reason.PEER_SILENT,
    ) -> Vote | VoteFailed:
        request = VoteRequest(self.node.me, kind, term, T, T, reason)
        await self._peers.perform(SendVoteRequest(Role.WITNESS, request, 5.0))
        event = self.node.posted[-1]
        if isinstance(event, VoteAnswered):
            return event.answer.vote
        assert isinstance(event, VoteFailed)
        return event

    async def releases(self, term: int = 7) -> ReleaseAnswered | ReleaseFailed:
        request = ReleaseRequest(self.node.me, term, Role.BACKUP, Reason.OPERATOR)
        await self._peers.perform(SendRelease(Role.WITNESS, request, 5.0))
        event = self.node.posted[-1]
        assert isinstance(event, ReleaseAnswered | ReleaseFailed)
        return event

    async def probes(self) -> tuple[bool, str, str]:
        [found] = await self._peers.probe(Role.WITNESS)
        return found.is_fine, found.what, found.todo


@asynccontextmanager
async def _voice(house: House | str, role: Role = Role.PRIMARY, **who: Any) -> AsyncIterator[Voice]:
    one = node(role, **who)
    endpoint = house if isinstance(house, str) else house.endpoint
    async with speaking(one, witness=endpoint) as peers:
        yield Voice(one, peers)


def _granted(said: Vote | VoteFailed) -> bool:
    return isinstance(said, Vote) and said.granted


def _async(condition: Callable[[], object]) -> Callable[[], Awaitable[object]]:
    async def asked() -> object:
        return condition()

    return asked


# --- a voter --------------------------------------------------------------------------------------


async def test_it_grants_renews_and_takes_a_term_back(tmp_path: Path) -> None:
    async with (
        House(tmp_path).listening() as house,
        _voice(house) as primary,
        _voice(house, Role.BACKUP) as backup,
    ):
        # Without a record the first vote of all waits for T.
        first = await primary.asks(term=1)
        assert isinstance(first, Vote)
        assert first.refusal is Refusal.JUST_STARTED

        async def granted() -> bool:
            return _granted(await primary.asks(term=1))

        await until_async(granted, 30)
        renewed = await primary.renews(1)
        assert (renewed.granted, renewed.term) == (True, 1)
        assert renewed.holder == Holder(Role.PRIMARY, primary.node.me.node_id)

        refused = await backup.asks(VoteKind.POLL, 0)
        assert isinstance(refused, Vote)
        assert refused.refusal is Refusal.PROMISED
        word = await backup.beats(term=0)
        assert isinstance(word, BeatAnswer)
        assert word.vote is not None
        assert (word.vote.granted, word.vote.holder) == (False, renewed.holder)

        released = await primary.releases(1)
        assert isinstance(released, ReleaseAnswered)
        assert _granted(await backup.asks(term=2))


async def test_a_hold_is_endless_and_ends_by_the_word_of_an_operator(tmp_path: Path) -> None:
    async with (
        House(tmp_path).listening() as house,
        _voice(house) as primary,
        _voice(house, Role.BACKUP) as backup,
    ):
        assert (await primary.renews(hold=True)).remaining_s == FOREVER
        refused = await backup.asks()
        assert isinstance(refused, Vote)
        assert refused.refusal in (Refusal.PROMISED, Refusal.JUST_STARTED)

        async def taken_over() -> bool:
            return _granted(await backup.asks(reason=Reason.OPERATOR))

        await until_async(taken_over, 30)


async def test_after_a_restart_its_word_stands(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.listening(), _voice(house) as primary:
        assert (await primary.renews()).granted
        assert (await primary.renews(hold=True)).granted
    saved = read_record(tmp_path / "shop")
    assert saved is not None
    assert (saved.role, saved.durable.term, saved.durable.hold) == (Role.WITNESS, 7, True)

    async with (
        house.listening(),
        _voice(house, run_id="run-2") as primary,
        _voice(house, Role.BACKUP) as backup,
    ):
        word = await backup.beats(term=0)
        assert isinstance(word, BeatAnswer)
        assert word.vote is not None
        assert (word.vote.term, word.vote.remaining_s) == (7, FOREVER)
        assert (await primary.renews()).granted


async def test_a_node_is_understood_within_one_beat_of_a_witness_that_was_restarted(
    tmp_path: Path,
) -> None:
    house = House(tmp_path)
    async with AsyncExitStack() as stack:
        async with house.listening():
            primary = await stack.enter_async_context(_voice(house))
            assert (await primary.renews()).granted
        async with house.listening():
            assert (await primary.renews()).granted


async def test_with_an_empty_disk_it_gives_its_vote_to_nobody_new_for_a_while(
    tmp_path: Path,
) -> None:
    house = House(tmp_path / "one")
    async with house.listening(), _voice(house) as primary:
        assert (await primary.renews()).granted
    shutil.rmtree(house.state_dir)

    async with (
        house.listening(),
        _voice(house, run_id="run-2") as primary,
        _voice(house, Role.BACKUP) as backup,
    ):
        early = await backup.asks()
        assert isinstance(early, Vote)
        assert early.refusal is Refusal.JUST_STARTED
        assert (await primary.renews()).granted, "a running service does not wait"


# --- the disk -------------------------------------------------------------------------------------


@contextmanager
def _small_disk(at: Path) -> Iterator[Path]:
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "small", at], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", at], check=True)


def _fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return filler


async def test_a_full_disk_stops_no_running_service_and_gives_no_new_vote(tmp_path: Path) -> None:
    with _small_disk(tmp_path / "disk") as disk:
        async with (
            House(disk).listening() as house,
            _voice(house) as primary,
        ):
            assert (await primary.renews()).granted
            filler = _fill(disk)

            failed = await primary.asks(term=9)
            assert isinstance(failed, VoteFailed)
            assert "this witness did not decide in time, or could not save" in failed.error
            assert (await primary.renews()).granted
            status = await _status(house)
            assert status["alarms"][0]["code"] == "record_not_writable"
            assert await _code(house, "/readyz") == 503

            filler.unlink()
            assert _granted(await primary.asks(term=9))
            codes = {alarm["code"] for alarm in (await _status(house))["alarms"]}
            assert codes <= {"record_lost"}
            assert await _code(house, "/readyz") == 200


async def test_a_hung_disk_holds_up_one_save_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, stuck = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    write = record._write

    def hang(path: Path, content: record.Record) -> None:
        if content.cluster == "shop" and content.durable.term > 7:
            loop.call_soon_threadsafe(stuck.set)
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(30)
        write(path, content)

    async with (
        House(tmp_path, {"shop": SECRET, "mill": SECRET}).listening() as house,
        _voice(house) as primary,
        _voice(house, cluster="mill") as miller,
    ):
        assert (await primary.renews()).granted
        monkeypatch.setattr(record, "_write", hang)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(primary.asks(term=9))
            await asyncio.wait_for(stuck.wait(), 10)
            for _ in range(3):
                assert (await primary.renews()).granted
            assert (await miller.renews(12)).granted
            assert not waiting.done()
            gate.set()
        assert _granted(waiting.result())


# --- many pairs -----------------------------------------------------------------------------------


async def test_two_hundred_pairs_have_each_a_voter_and_a_secret_of_their_own(
    tmp_path: Path,
) -> None:
    secrets = {f"pair-{number}": f"secret {number}".encode() for number in range(200)}
    async with House(tmp_path, secrets).listening() as house, AsyncExitStack() as stack:
        voices = [
            await stack.enter_async_context(_voice(house, cluster=name, secret=secret))
            for name, secret in secrets.items()
        ]

        async def renewed(voice: Voice, term: int) -> bool:
            answer = await voice.beats(renews=True, term=term)
            return (
                isinstance(answer, BeatAnswer) and answer.vote is not None and answer.vote.granted
            )

        async with asyncio.TaskGroup() as group:
            for term, voice in enumerate(voices, 1):
                group.create_task(until_async(partial(renewed, voice, term), 30))
        status = await _status(house)
        assert [one["term"] for one in status["clusters"]] == list(range(1, 201))


async def test_the_secret_of_one_pair_opens_no_other(tmp_path: Path) -> None:
    secrets = {"shop": SECRET, "mill": b"another secret"}
    async with (
        House(tmp_path, secrets).listening() as house,
        _voice(house, cluster="mill", secret=SECRET) as stranger,
    ):
        failed = await stranger.beats(renews=True)

        assert isinstance(failed, HeartbeatFailed)
        [seen] = [event for event in stranger.node.posted if isinstance(event, ConflictSeen)]
        assert (seen.kind, seen.received) == (ConflictKind.NOT_AUTHENTIC, True)
        assert house.witness.pairs["mill"].keeper.rejected == {"not_authentic": 1}
        assert (await _status(house))["clusters"][1]["term"] == 0


async def test_a_cluster_that_is_not_served_is_told_so_and_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    async with House(tmp_path).listening() as house:
        for number in range(19):
            async with _voice(house, cluster=f"stray-{number}") as stray:
                await stray.beats()
        async with _voice(house, cluster="stray-19") as last:
            failed = await last.beats()
        assert isinstance(failed, HeartbeatFailed)
        assert failed.error.endswith("the witness does not serve this cluster")
        [seen] = [event for event in last.node.posted if isinstance(event, ConflictSeen)]
        assert (seen.kind, seen.received) == (ConflictKind.OTHER_CLUSTER, True)
        status = await _status(house)
        assert status["counters"]["rejected"] == {"other_cluster": 20}
        assert (len(status["clusters"]), status["alarms"]) == (1, [])


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"cluster": 7}', b'{"cluster": "shop"}'])
async def test_a_stranger_changes_nothing(tmp_path: Path, body: bytes) -> None:
    async with House(tmp_path).listening() as house, aiohttp.ClientSession() as session:
        for kind in ("heartbeat", "vote", "release", "hello"):
            async with session.post(f"{house.endpoint}/v1/{kind}", data=body) as response:
                assert response.status in (400, 401)
        assert (await _status(house))["clusters"][0]["term"] == 0


async def test_two_primaries_are_alarmed_and_the_first_is_served(tmp_path: Path) -> None:
    async with (
        House(tmp_path).listening() as house,
        _voice(house) as first,
        _voice(house, node_id="other", run_id="run-2") as second,
    ):
        assert (await first.renews()).granted
        assert isinstance(await second.beats(renews=True), HeartbeatFailed)
        assert (await first.renews()).granted

        [seen] = [event for event in second.node.posted if isinstance(event, ConflictSeen)]
        assert (seen.kind, seen.holding) == (ConflictKind.SAME_ROLE, True)
        alarms = {one["code"]: one["sentence"] for one in (await _status(house))["alarms"]}
        assert alarms["same_role"].startswith("shop: two nodes say that they are the primary")


async def test_what_is_meant_for_another_role_is_refused(tmp_path: Path) -> None:
    """The peer's endpoint names the witness."""
    async with House(tmp_path).listening() as house:
        primary = node(Role.PRIMARY)
        async with speaking(primary, house.endpoint) as peers:
            await peers.perform(primary.beat())

    kinds = [event.kind for event in primary.posted if isinstance(event, ConflictSeen)]
    assert kinds == [ConflictKind.WRONG_ROLE]


async def test_check_finds_the_witness_or_says_what_mends_it(tmp_path: Path) -> None:
    async with House(tmp_path).listening() as house:
        async with _voice(house) as check:
            assert await check.probes() == (True, "the witness answers (version 0.1.0)", "")
        async with _voice(house, cluster="mill") as check:
            fine, what, todo = await check.probes()
            assert not fine
            assert what.endswith("the witness does not serve this cluster")
            assert todo.startswith("Add [witness.clusters.mill] to the file of the witness")
        async with _voice(house, secret=b"another") as check:
            assert (await check.probes())[2].startswith("Copy the file in secret_file")
        endpoint = house.endpoint
    async with _voice(endpoint) as check:
        fine, _, todo = await check.probes()
        assert (fine, todo[:58]) == (
            False,
            "On the witness: systemctl start failover-agent-witness, an",
        )


# --- readers --------------------------------------------------------------------------------------


async def _status(house: House) -> dict[str, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{house.endpoint}/v1/status") as response,
    ):
        told: dict[str, Any] = await response.json()
        return told


async def _code(house: House, path: str) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{house.endpoint}{path}") as response,
    ):
        return response.status


async def test_readers_and_balancers_are_answered(tmp_path: Path) -> None:
    async with House(tmp_path).listening() as house:
        assert [await _code(house, path) for path in ("/livez", "/readyz", "/active")] == [
            *(200, 200, 503)
        ]
        status = await _status(house)
        assert (status["role"], status["phase"], status["cluster"]) == ("witness", None, "shop")
        assert await _code(house, "/v1/history") == 200
        socket = tmp_path / "witness.sock"
        async with (
            serve_witness_operator(house.context(), control_socket=socket),
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session,
            session.get("http://witness/v1/status") as response,
        ):
            assert (await response.json())["node_id"] == status["node_id"]
        assert not socket.exists()


# --- a witness that lies --------------------------------------------------------------------------


@dataclass
class Liar:
    """Has the secret, and answers as it likes."""

    keeper: Keeper
    says: Callable[[Request], Awaitable[Answer]]

    async def ask(self, request: Request) -> Answer:
        return await self.says(request)

    def conflict(self, seen: ConflictSeen) -> None:
        pass


class _OfAnotherCluster(Keeper):
    def answer(self, receipt: Receipt, answer: Answer) -> Signed:  # type: ignore[override]
        self.cluster = "till"
        try:
            return super().answer(receipt, answer)
        finally:
            self.cluster = "shop"


@asynccontextmanager
async def _lying(
    says: Callable[[Request], Awaitable[Answer]], kind: type[Keeper] = Keeper
) -> AsyncIterator[str]:
    keeper = kind(
        cluster="shop",
        me=LIAR,
        secret=SECRET,
        peers=frozenset({Role.PRIMARY, Role.BACKUP}),
        living_for_s=10.0,
    )
    context = WitnessContext(
        pairs={"shop": Liar(keeper, says)},
        rejected=Counter(),
        version="0.1.0",
        read_access="open",
        is_reader=lambda _: False,
        now=CLOCK.now,
        started_at_s=CLOCK.now(),
        look=tuple,
        not_ready_because=tuple,
        stepped_ago_s=lambda: 0.0,
    )
    async with serve_witness(context, bind="127.0.0.1", port=0) as port:
        yield f"http://127.0.0.1:{port}"


LIAR = Sender(Role.WITNESS, "liar", "l1", "")
ME = Holder(Role.PRIMARY, "id-of-primary")
YES = Vote(granted=True, term=7, holder=ME, remaining_s=1.0)


def _always(answer: Answer) -> Callable[[Request], Awaitable[Answer]]:
    async def says(_: Request) -> Answer:
        return answer

    return says


@pytest.mark.parametrize(
    ("vote", "complaint"),
    [
        (replace(YES, remaining_s=-1.0), "vote.remaining_s"),
        (replace(YES, remaining_s=1e9), "vote.remaining_s"),
        (replace(YES, term=-7), "vote.term"),
        (replace(YES, term=2**60), "vote.term"),
        (replace(YES, term=LARGEST_STEP + 8), f"term: {LARGEST_STEP + 8} is absurd"),
        (replace(YES, refusal=Refusal.PROMISED), "vote: it is granted and refused"),
        (replace(YES, holder=Holder(Role.PRIMARY, "x" * 65)), "vote.holder.node_id"),
        (None, "vote: an arbiter always says"),
    ],
)
async def test_an_answer_that_lies_in_shape_is_no_answer(vote: Vote | None, complaint: str) -> None:
    async with _lying(_always(BeatAnswer(LIAR, None, vote))) as liar, _voice(liar) as primary:
        failed = await primary.beats(renews=True)

        assert isinstance(failed, HeartbeatFailed)
        assert f"its answer is malformed: {complaint}" in failed.error
        assert len(primary.node.posted) == 1


async def test_an_arbiter_that_speaks_as_a_node_is_not_believed() -> None:
    answer = BeatAnswer(LIAR, beat_of(LIAR), YES)
    async with _lying(_always(answer)) as liar, _voice(liar) as primary:
        failed = await primary.beats(renews=True)

        assert isinstance(failed, HeartbeatFailed)
        assert "beat: a witness has none" in failed.error


async def test_a_grant_that_nobody_asked_for_is_no_answer() -> None:
    async with _lying(_always(BeatAnswer(LIAR, None, YES))) as liar, _voice(liar) as primary:
        failed = await primary.beats(renews=False)

        assert isinstance(failed, HeartbeatFailed)
        assert "it grants what was not asked" in failed.error


@pytest.mark.parametrize(("kind", "term"), [(VoteKind.POLL, 8), (VoteKind.CANDIDACY, 7)])
async def test_a_vote_for_another_question_is_no_answer(kind: VoteKind, term: int) -> None:
    answer = VoteAnswer(LIAR, kind, term, YES, None)
    async with _lying(_always(answer)) as liar, _voice(liar) as primary:
        failed = await primary.asks(VoteKind.CANDIDACY, 8)

        assert isinstance(failed, VoteFailed)
        assert "it answers what was not asked" in failed.error


async def test_a_confirmation_of_another_release_is_no_answer() -> None:
    async with _lying(_always(ReleaseAnswer(LIAR, 6, 7))) as liar, _voice(liar) as primary:
        failed = await primary.releases(7)

        assert isinstance(failed, ReleaseFailed)
        assert "it confirms another term" in failed.error


async def test_an_answer_of_another_cluster_is_an_alarm_and_no_vote() -> None:
    says = _always(BeatAnswer(LIAR, None, YES))
    async with _lying(says, _OfAnotherCluster) as liar, _voice(liar) as primary:
        assert isinstance(await primary.beats(renews=True), HeartbeatFailed)

        [seen] = [event for event in primary.node.posted if isinstance(event, ConflictSeen)]
        assert seen.kind is ConflictKind.OTHER_CLUSTER


async def test_an_answer_that_comes_too_late_is_no_answer() -> None:
    gate = asyncio.Event()
    heard: list[Request] = []

    async def says(request: Request) -> Answer:
        heard.append(request)
        if len(heard) == 1:
            await gate.wait()
        return BeatAnswer(LIAR, None, YES)

    async with _lying(says) as liar, _voice(liar) as primary:
        late = await primary.beats(deadline_s=0.2, renews=True)
        gate.set()
        assert isinstance(late, HeartbeatFailed)
        assert late.error == f"{liar} does not answer in time"
        assert isinstance(await primary.beats(renews=True), BeatAnswer)
        assert [type(event) for event in primary.node.posted] == [
            *(HeartbeatFailed, HeartbeatAnswered)
        ]


async def test_an_answer_that_comes_twice_counts_once(tmp_path: Path) -> None:
    """A wire that says everything twice, into a connection that is kept."""
    async with House(tmp_path).listening() as house:

        async def echo(near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
            far, forth = await asyncio.open_connection("127.0.0.1", house.port)
            while request := await near.read(65536):
                forth.write(request)
                answer = await far.read(65536)
                back.write(answer + answer)
            forth.close()
            back.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, _voice(endpoint) as primary:
            for number in range(4):
                answer = await primary.beats(renews=True, term=7 + number)
                if isinstance(answer, BeatAnswer):
                    assert answer.vote is not None
                    assert answer.vote.term == 7 + number, "an old answer passed for a new one"
            answered = [e for e in primary.node.posted if isinstance(e, HeartbeatAnswered)]
            assert 1 <= len(answered) <= 4
