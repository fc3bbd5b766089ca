"""How many pairs one witness holds on one core, and how long an answer takes.

    python bench/witness.py [--pairs 100,500,1000] [--seconds 10]

The witness is the real one (server, signatures, records on this disk) in a process of its own, kept
to one core. Each node of each pair has a connection that it keeps, and says a signed beat once a
second, at a moment of its own: one node renews its lease, the other reports. Each answer is judged
as a node would, signature and all. A beat that is due while the one before is not answered yet
is left out and counted (a node would open a second connection). Latency is from when a beat was due
until its answer was there, so it holds the delays of the client too, which is a Python process on
another core.

Printed for each number of pairs: beats answered a second, latency, how much of a core the witness
used and how much the client, processor time for each answer (which other programs on the machine
change least), the memory of the witness, and what went wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from failover_agent.adapters.clock import Clock
from failover_agent.adapters.record import RecordStore, read_host
from failover_agent.core.messages import Beat, BeatAnswer, Sender
from failover_agent.core.policy import Role
from failover_agent.core.state import Health, Phase, Readiness
from failover_agent.protocol.auth import AskAgain, Keeper, Outgoing, Understood
from failover_agent.protocol.envelope import SIGNATURE_HEADER
from failover_agent.web.app import serve_witness
from failover_agent.web.context import WitnessContext
from failover_agent.witness import Pair, Witness

INTERVAL_S = 1.0
LEASE_S = 10.0
WARM_UP_S = 6.0
"""The first beat of each pair makes the witness write a record."""
CLOCK = Clock()
HEADER = SIGNATURE_HEADER.lower().encode()


def _secret(number: int) -> bytes:
    return f"secret of pair {number}".encode()


def _cluster(number: int) -> str:
    return f"pair-{number}"


# --- the witness ----------------------------------------------------------------------------------


async def _serve(pairs: int, state_dir: Path) -> None:
    logging.disable()
    run_id = secrets.token_hex(8)
    host = read_host()
    with ExitStack() as stack:
        served = []
        for number in range(pairs):
            store = RecordStore.open(
                state_dir / _cluster(number),
                cluster=_cluster(number),
                role=Role.WITNESS,
                host=host,
                deadline_s=5.0,
            )
            stack.callback(store.close)
            pair = Pair(
                _cluster(number),
                store,
                secret=_secret(number),
                run_id=run_id,
                clock=CLOCK,
                timeout_s=LEASE_S,
            )
            served.append(pair)
        witness = Witness(served, clock=CLOCK)
        context = WitnessContext(
            pairs=dict(witness.pairs),
            rejected=witness.rejected,
            version="bench",
            read_access="open",
            is_reader=lambda _: False,
            now=CLOCK.now,
            started_at_s=CLOCK.now(),
            look=witness.look,
            not_ready_because=witness.not_ready_because,
            stepped_ago_s=witness.stepped_ago_s,
        )
        async with serve_witness(context, bind="127.0.0.1", port=0) as port:
            print(port, flush=True)
            await witness.run()


# --- its nodes ------------------------------------------------------------------------------------


class Node(asyncio.Protocol):
    """One node: a connection, and the beats on it that wait for an answer, in order."""

    def __init__(self, number: int, role: Role, tally: Tally) -> None:
        me = Sender(role, f"{role}-{number}", f"run-{number}", "fingerprint")
        self._keeper = Keeper(
            cluster=_cluster(number),
            me=me,
            secret=_secret(number),
            peers=frozenset(),
            arbiters=frozenset({Role.WITNESS}),
            living_for_s=LEASE_S,
        )
        self._tally = tally
        self._waiting: list[tuple[float, Outgoing]] = []
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._beat = Beat(
            sender=me,
            number=0,
            phase=Phase.ACTIVE if role is Role.PRIMARY else Phase.STANDBY,
            term=1,
            renews=role is Role.PRIMARY,
            hold=False,
            lease_s=LEASE_S,
            longest_lease_s=LEASE_S,
            holder=Role.PRIMARY,
            released=False,
            leading_for_s=812.4,
            health=Health.OK,
            running=2,
            readiness=Readiness.READY,
            not_ready_because=(),
            may_lead=True,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        self._tally.errors["connection lost"] += len(self._waiting)
        self._transport = None

    def say(self, due_s: float) -> None:
        """The next beat, which was due at that moment."""
        if self._waiting:
            self._tally.errors["not answered before the next"] += 1
            return
        self._beat = replace(self._beat, number=self._beat.number + 1)
        self._send(due_s)

    def _send(self, due_s: float) -> None:
        if self._transport is None:
            return
        sent = self._keeper.request(Role.WITNESS, self._beat)
        self._waiting.append((due_s, sent))
        self._transport.write(
            b"POST /v1/heartbeat HTTP/1.1\r\nHost: witness:8000\r\nAccept: */*\r\n"
            b"Accept-Encoding: identity\r\nUser-Agent: Python/3.11 aiohttp/3.14\r\n"
            b"Content-Type: application/json\r\nFailover-Signature: "
            + sent.signed.signature.encode()
            + b"\r\nContent-Length: %d\r\n\r\n" % len(sent.signed.body)
            + sent.signed.body
        )

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            first, *lines = bytes(self._buffer[:end]).split(b"\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(b":") for line in lines)
            }
            whole = end + 4 + int(headers[b"content-length"])
            if len(self._buffer) < whole:
                return
            body = bytes(self._buffer[end + 4 : whole])
            del self._buffer[:whole]
            signature = headers.get(HEADER, b"").decode()
            self._answered(int(first.split()[1]), signature, body)

    def _answered(self, status: int, signature: str, body: bytes) -> None:
        due_s, sent = self._waiting.pop(0)
        read = self._keeper.read_answer(sent, status, signature, body)
        if isinstance(read, AskAgain):
            self._send(due_s)
        elif isinstance(read, Understood):
            assert isinstance(read.answer, BeatAnswer)
            assert read.answer.vote is not None
            if read.answer.vote.granted != self._beat.renews:
                self._tally.errors[str(read.answer.vote.refusal)] += 1
            self._tally.latencies_s.append(time.monotonic() - due_s)
        else:
            self._tally.errors[read.detail] += 1


def _same(node: Node) -> Node:
    return node


class Tally:
    """What came of the beats since the last reset."""

    def __init__(self) -> None:
        self.latencies_s: list[float] = []
        self.errors: Counter[str] = Counter()

    def reset(self) -> None:
        self.latencies_s.clear()
        self.errors.clear()


async def _beat_for_ever(node: Node, first_s: float) -> None:
    due_s = first_s
    while True:
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        node.say(due_s)
        due_s += INTERVAL_S


async def _load(port: int, pid: int, pairs: int, seconds: float) -> str:
    """One row of the table."""
    tally = Tally()
    loop = asyncio.get_running_loop()
    nodes = [
        Node(number, role, tally) for number in range(pairs) for role in (Role.PRIMARY, Role.BACKUP)
    ]
    for node in nodes:
        await loop.create_connection(partial(_same, node), "127.0.0.1", port)
    async with asyncio.TaskGroup() as group:
        tasks = []
        for node in nodes:
            first_s = time.monotonic() + random.uniform(0, INTERVAL_S)
            tasks.append(group.create_task(_beat_for_ever(node, first_s)))
        await asyncio.sleep(WARM_UP_S)
        tally.reset()
        began_s, before = time.monotonic(), (_used_s(pid), _used_s(os.getpid()))
        await asyncio.sleep(seconds)
        lasted_s = time.monotonic() - began_s
        used = [_used_s(one) - was for one, was in zip((pid, os.getpid()), before, strict=True)]
        shares = " ".join(f"{100 * used_s / lasted_s:6.0f} %" for used_s in used)
        shares += f" {1e6 * used[0] / max(1, len(tally.latencies_s)):8.0f}"
        row = _row(pairs, tally, lasted_s, shares, _memory_mb(pid))
        for task in tasks:
            task.cancel()
    return row


def _row(pairs: int, tally: Tally, lasted_s: float, shares: str, memory_mb: float) -> str:
    ordered = sorted(tally.latencies_s) or [float("nan")]

    def at(share: float) -> str:
        return f"{1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]:8.1f}"

    errors = ", ".join(f"{count} {what}" for what, count in tally.errors.most_common(3)) or "none"
    return (
        f"{pairs:6} {len(tally.latencies_s) / lasted_s:10.0f} {at(0.5)} {at(0.99)} {at(1.0)} "
        f"{shares} {memory_mb:7.0f}   {errors}"
    )


def _used_s(pid: int) -> float:
    """The processor time that the witness has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mb(pid: int) -> float:
    line = next(
        line
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        if line.startswith("Pss:")
    )
    return int(line.split()[1]) / 1024


def _measure(pairs: int, seconds: float) -> str:
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as state_dir:
        command = [sys.executable, __file__, "--serve", str(pairs), "--state-dir", state_dir]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                os.sched_setaffinity(server.pid, {cores[0]})
                os.sched_setaffinity(0, set(cores[1:]) or set(cores))
                port = int(server.stdout.readline())
                return asyncio.run(_load(port, server.pid, pairs, seconds))
            finally:
                server.kill()
                os.sched_setaffinity(0, set(cores))


def _need_files() -> None:
    """A connection for each node, and a lock for each record."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", default="100,500,1000")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--state-dir", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    _need_files()
    if given.serve is not None:
        asyncio.run(_serve(given.serve, given.state_dir))
        return
    print(f"$ python bench/witness.py --pairs {given.pairs} --seconds {given.seconds:g}")
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load before {load}")
    print(" pairs  answers/s   p50 ms   p99 ms   max ms  witness  client  us each      MB   errors")
    for pairs in (int(one) for one in given.pairs.split(",")):
        print(_measure(pairs, given.seconds), flush=True)


if __name__ == "__main__":
    main()
