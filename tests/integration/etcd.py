"""Real etcds, and a node's side of one: what its core would order, and what comes of it."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from failover_agent.adapters.arbiters import Access, EtcdArbiter
from failover_agent.adapters.clock import Clock
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
    Beat,
    ReleaseRequest,
    Sender,
    Vote,
    VoteKind,
    VoteRequest,
)
from failover_agent.core.policy import Role
from failover_agent.core.state import Health, Phase, Readiness, Reason
from tests.lab.process import stat
from tests.lab.until import until, until_async
from tests.ports import free_ports

CLOCK = Clock()
CLUSTER = "shop"
KEY = f"failover-agent/{CLUSTER}"
DEADLINE_S = 8.0


def program(name: str) -> str:
    """Its path. Nothing is skipped where it is missing."""
    path = shutil.which(name)
    assert path, f"{name} is missing: scripts/install-packages installs it"
    return path


class Member:
    """One etcd process, and its data in `folder`."""

    def __init__(
        self, name: str, folder: Path, scheme: str, options: Sequence[str], ports: tuple[int, int]
    ) -> None:
        self.name = name
        self.folder = folder
        self.port, peer_port = ports
        self.endpoint = f"{scheme}://127.0.0.1:{self.port}"
        self.peer_url = f"http://127.0.0.1:{peer_port}"
        self._options = tuple(options)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, initial_cluster: str) -> None:
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(program("etcd"), "--name", self.name, "--data-dir", self.data),
                    *("--listen-client-urls", self.endpoint),
                    *("--advertise-client-urls", self.endpoint),
                    *("--listen-peer-urls", self.peer_url),
                    *("--initial-advertise-peer-urls", self.peer_url),
                    *("--initial-cluster", initial_cluster),
                    *("--heartbeat-interval", "50", "--election-timeout", "500"),
                    *self._options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def data(self) -> Path:
        return self.folder / self.name

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        until(lambda: stat(self.pid)[:1] == ["T"], 30, "frozen")

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


class Etcd:
    """A cluster. `options` are for each member, `client` for etcdctl."""

    def __init__(
        self,
        folder: Path,
        count: int,
        *,
        scheme: str = "http",
        options: Sequence[str] = (),
        client: Sequence[str] = (),
    ) -> None:
        free = free_ports(2 * count)
        self.members = [
            Member(f"etcd-{n}", folder, scheme, options, ports)
            for n, ports in enumerate(zip(free[:count], free[count:], strict=True))
        ]
        self.client = tuple(client)

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(member.endpoint for member in self.members)

    def start(self, *members: Member) -> None:
        """Returns when each answers for a majority."""
        initial_cluster = ",".join(f"{one.name}={one.peer_url}" for one in self.members)
        for member in members or self.members:
            member.start(initial_cluster)
        self.wait_healthy(*members)

    def wait_healthy(self, *members: Member) -> None:
        endpoints = [member.endpoint for member in members or self.members]
        until(lambda: self._is_healthy(endpoints), 40, "etcd is healthy")

    def _is_healthy(self, endpoints: list[str]) -> bool:
        return self._run(endpoints, "--command-timeout=2s", "endpoint", "health").returncode == 0

    def ctl(self, *arguments: str) -> str:
        """etcdctl, at all endpoints."""
        done = self._run(list(self.endpoints), *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def leader(self) -> Member:
        """The member that leads, when it is asked itself."""
        return until(self._leader, 30, "a leader")

    def _leader(self) -> Member | None:
        for member in self.members:
            done = self._run([member.endpoint], "endpoint", "status", "--write-out=json")
            if done.returncode != 0:
                continue
            status = json.loads(done.stdout)[0]["Status"]
            if status.get("leader") == status["header"]["member_id"]:
                return member
        return None

    def member_id(self, member: Member) -> str:
        """As etcdctl wants it."""
        told = json.loads(self.ctl("member", "list", "--write-out=json"))
        ids = {one["name"]: one["ID"] for one in told["members"]}
        return f"{ids[member.name]:x}"

    def value(self) -> dict[str, Any]:
        """What lies under the key, as a person finds it."""
        told: dict[str, Any] = json.loads(self.ctl("get", "--print-value-only", KEY))
        return told

    def end(self) -> None:
        for member in self.members:
            member.kill()

    def _run(self, endpoints: list[str], *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [program("etcdctl"), "--endpoints", ",".join(endpoints), *self.client, *arguments],
            env={**os.environ, "ETCDCTL_API": "3"},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )


@contextmanager
def etcd(
    folder: Path,
    count: int = 1,
    *,
    scheme: str = "http",
    options: Sequence[str] = (),
    client: Sequence[str] = (),
) -> Iterator[Etcd]:
    """A running etcd of `count` members, ended at the end."""
    cluster = Etcd(folder, count, scheme=scheme, options=options, client=client)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()


# --- a node's side ------------------------------------------------------------------------------


@dataclass
class Side:
    """What a node orders of its arbiter, one after another or side by side."""

    me: Sender
    lease_s: float
    deadline_s: float = DEADLINE_S
    posted: list[Event] = field(default_factory=list)
    beats: int = 0
    _arbiter: EtcdArbiter | None = None

    def speak_to(self, endpoints: tuple[str, ...], access: Access) -> EtcdArbiter:
        self._arbiter = EtcdArbiter(
            endpoints=endpoints,
            cluster=CLUSTER,
            me=self.me,
            post=self.posted.append,
            clock=CLOCK,
            access=access,
        )
        return self._arbiter

    @property
    def arbiter(self) -> EtcdArbiter:
        assert self._arbiter is not None
        return self._arbiter

    def beat(self, term: int = 0, *, renews: bool = False, hold: bool = False) -> SendHeartbeat:
        self.beats += 1
        beat = Beat(
            sender=self.me,
            number=self.beats,
            phase=Phase.ACTIVE if renews else Phase.STANDBY,
            term=term,
            renews=renews,
            hold=hold,
            lease_s=self.lease_s,
            longest_lease_s=self.lease_s,
            holder=None,
            released=True,
            leading_for_s=None,
            health=Health.OK,
            running=0,
            readiness=Readiness.READY,
            not_ready_because=(),
            may_lead=True,
        )
        return SendHeartbeat(Role.WITNESS, beat, self.deadline_s)

    def question(
        self, kind: VoteKind, term: int = 0, reason: Reason = Reason.PEER_SILENT
    ) -> SendVoteRequest:
        request = VoteRequest(self.me, kind, term, self.lease_s, self.lease_s, reason)
        return SendVoteRequest(Role.WITNESS, request, self.deadline_s)

    async def perform(self, effect: SendHeartbeat | SendVoteRequest | SendRelease) -> Event:
        """The one event that answers it."""
        before = len(self.posted)
        await self.arbiter.perform(effect)
        assert len(self.posted) == before + 1
        return self.posted[before]

    async def renews(self, term: int, *, hold: bool = False) -> Vote:
        return vote_of(await self.perform(self.beat(term, renews=True, hold=hold)))

    async def looks(self) -> Vote:
        """A beat of a node that holds nothing."""
        return vote_of(await self.perform(self.beat()))

    async def polls(self, reason: Reason = Reason.PEER_SILENT) -> Vote:
        return vote_of(await self.perform(self.question(VoteKind.POLL, 0, reason)))

    async def asks(self, term: int, reason: Reason = Reason.PEER_SILENT) -> Vote:
        return vote_of(await self.perform(self.question(VoteKind.CANDIDACY, term, reason)))

    async def releases(self, term: int) -> ReleaseAnswered:
        request = ReleaseRequest(self.me, term, None, Reason.OPERATOR)
        event = await self.perform(SendRelease(Role.WITNESS, request, self.deadline_s))
        assert isinstance(event, ReleaseAnswered), event
        return event

    async def wins(self, term: int) -> None:
        """Asks until it is granted, as a candidate does."""

        async def granted() -> bool:
            event = await self.perform(self.question(VoteKind.CANDIDACY, term))
            return isinstance(event, VoteAnswered) and event.answer.vote.granted

        await until_async(granted, 30, f"{self.me.role} wins term {term}")


def vote_of(event: Event) -> Vote:
    assert isinstance(event, HeartbeatAnswered | VoteAnswered), event
    vote = event.answer.vote
    assert vote is not None
    return vote


def error_of(event: Event) -> str:
    assert isinstance(event, HeartbeatFailed | VoteFailed | ReleaseFailed), event
    return event.error


@asynccontextmanager
async def side(
    endpoints: Sequence[str],
    role: Role = Role.PRIMARY,
    *,
    lease_s: float = 1.0,
    deadline_s: float = DEADLINE_S,
    access: Access | None = None,
) -> AsyncIterator[Side]:
    """A node of this role that speaks to `endpoints`."""
    me = Sender(role, f"node-{role}", "run-1", "fingerprint")
    node = Side(me, lease_s, deadline_s)
    arbiter = node.speak_to(tuple(endpoints), access or Access())
    try:
        yield node
    finally:
        await arbiter.close()


async def wait_s(length_s: float) -> None:
    """Until so much has passed on the clock that promises are measured by."""
    end_s = CLOCK.now() + length_s

    async def is_over() -> bool:
        return CLOCK.now() >= end_s

    await until_async(is_over, length_s + 30)


# --- a wire that loses answers ------------------------------------------------------------------


class Wire:
    """Relays TCP to an etcd; `swallow` answers more are lost after etcd has given them."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.swallow = 0
        self.swallowed = 0
        self.endpoint = ""

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._to)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._requests(reader, to_writer))
                await self._answers(to_reader, writer)
                to_writer.close()
        except* OSError:
            pass  # One side has gone, and that ends the other.
        finally:
            writer.close()
            to_writer.close()

    async def _requests(self, reader: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            to.write(chunk)
            await to.drain()
        to.close()

    async def _answers(self, reader: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            if self.swallow:
                self.swallow -= 1
                self.swallowed += 1
                break
            to.write(chunk)
            await to.drain()
        to.close()


@asynccontextmanager
async def wire(member: Member) -> AsyncIterator[Wire]:
    """A wire to `member`, by its own endpoint."""
    relay = Wire(member.port)
    server = await asyncio.start_server(relay.relay, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    relay.endpoint = f"http://127.0.0.1:{port}"
    try:
        yield relay
    finally:
        server.close()


# --- certificates ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Authority:
    """One that signs: `ca` is its certificate."""

    folder: Path
    name: str

    @property
    def ca(self) -> Path:
        return self.folder / f"{self.name}.pem"

    def sign(
        self, subject: str, *, names: str = "IP:127.0.0.1,DNS:localhost", days: int = 2
    ) -> tuple[Path, Path]:
        """A certificate for 127.0.0.1 with its key. An empty subject has no common name.

        Of -1 days: it ended yesterday.
        """
        stem = self.folder / f"{self.name}-{subject or 'nameless'}"
        key, request, certificate = (stem.with_suffix(end) for end in (".key", ".csr", ".crt"))
        extensions = stem.with_suffix(".ext")
        extensions.write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n")
        _make_key(key)
        name = f"/CN={subject}" if subject else "/O=failover-agent"
        _openssl("req", "-new", "-key", str(key), "-subj", name, "-out", str(request))
        _openssl(
            *("x509", "-req", "-in", str(request), "-out", str(certificate), "-days", str(days)),
            *("-CA", str(self.ca), "-CAkey", str(self.ca.with_suffix(".key"))),
            *("-CAcreateserial", "-extfile", str(extensions)),
        )
        return certificate, key


def authority(folder: Path, name: str) -> Authority:
    """A new one."""
    made = Authority(folder, name)
    key = made.ca.with_suffix(".key")
    _make_key(key)
    _openssl(
        *("req", "-x509", "-new", "-key", str(key), "-subj", f"/CN={name}", "-days", "2"),
        *("-out", str(made.ca), "-addext", "basicConstraints=critical,CA:true"),
    )
    return made


def _make_key(path: Path) -> None:
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(path))


def _openssl(*arguments: str) -> None:
    done = subprocess.run(
        [program("openssl"), *arguments], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
