"""A client that attacks, and goes on until it is stopped.

As a program it runs some of `ATTACKS` side by side, from wherever it is started:

    python -m tests.integration.attacks 10.77.0.1 8000 SECONDS ATTACK...

and prints one line of JSON: how often each did what.
"""

import asyncio
import contextlib
import json
import random
import resource
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from tests.integration.hostile import REQUESTS, Target, ask, at_port, read_answer, request, signed

IDLE_CONNECTIONS = 1000
FLOODING = 64
"""Connections of a flood: more of them send no more, as one client is busy with these."""

Attack = Callable[[Target], Awaitable[None]]
"""Goes on until it is cancelled, and counts what it did in `target.tally`."""


async def _for_ever(target: Target, name: str, once: Callable[[], Awaitable[str]]) -> None:
    """Again and again, whatever comes of it."""
    while True:
        try:
            target.tally[f"{name}: {await once()}"] += 1
        except (OSError, EOFError, asyncio.LimitOverrunError):
            target.tally[f"{name}: closed"] += 1
            await asyncio.sleep(0)  # noqa: TID251 - lets others on


async def _side_by_side(number: int, work: Callable[[], Awaitable[None]]) -> None:
    async def one() -> None:
        await work()

    async with asyncio.TaskGroup() as group:
        for _ in range(number):
            group.create_task(one())


async def _converse(target: Target, name: str, raw: bytes) -> None:
    """On one connection, each as soon as the last was answered; a new one where it is closed."""

    async def once() -> str:
        async with target.line() as (reader, writer):
            while True:
                writer.write(raw)
                status, _ = await read_answer(reader)
                target.tally[f"{name}: {status}"] += 1

    await _for_ever(target, name, once)


def _flood(name: str, raw: bytes) -> Attack:
    raw = raw.replace(b"Connection: close\r\n", b"")

    async def attack(target: Target) -> None:
        await _side_by_side(FLOODING, lambda: _converse(target, name, raw))

    return attack


async def pipelines(target: Target) -> None:
    """Requests without a pause, and their answers read by nobody."""
    raw = request().replace(b"Connection: close\r\n", b"") * 500

    async def once() -> str:
        async with target.line() as (_, writer):
            while True:
                writer.write(raw)
                await writer.drain()
                target.tally["pipelined"] += 500

    await _side_by_side(8, lambda: _for_ever(target, "pipelines", once))


async def idlers(target: Target) -> None:
    """A thousand connections that say nothing; each is opened anew where it is closed."""

    async def once() -> str:
        async with target.line() as (reader, _):
            target.tally["idle"] += 1
            await reader.read()
        return "closed"

    async with asyncio.TaskGroup() as group:
        for _ in range(IDLE_CONNECTIONS):
            group.create_task(_for_ever(target, "idle", once))


async def churn(target: Target) -> None:
    """Connections that come and go."""

    async def once() -> str:
        async with target.line():
            return "opened"

    await _side_by_side(16, lambda: _for_ever(target, "churn", once))


def _drip(name: str, first: bytes, drop: bytes) -> Attack:
    """A byte a second, for ever."""

    async def attack(target: Target) -> None:
        async def once() -> str:
            async with target.line() as (reader, writer):
                writer.write(first)
                while not reader.at_eof():
                    writer.write(drop)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(1.0):
                            await reader.read(4096)
            return "closed"

        await _side_by_side(200, lambda: _for_ever(target, name, once))

    return attack


async def deaf(target: Target) -> None:
    """Asks for much, and reads nothing of it."""
    raw = request("GET", "/v1/history?limit=1000") + request() * 200
    raw = raw.replace(b"Connection: close\r\n", b"")

    async def once() -> str:
        async with target.line() as (_, writer):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(raw)
            await asyncio.Event().wait()
        return "never"

    await _side_by_side(200, lambda: _for_ever(target, "deaf", once))


async def uploads(target: Target) -> None:
    """Bodies without an end, where none is wanted and where one is."""
    blob = b"x" * 65536

    async def once() -> str:
        path = random.choice(["/v1/status", "/v1/heartbeat", "/nowhere"])
        async with target.line() as (_, writer):
            writer.write(request("POST", path, f"Content-Length: {2**40}"))
            while True:
                writer.write(blob)
                await writer.drain()
                target.tally["uploaded"] += len(blob)

    await _side_by_side(32, lambda: _for_ever(target, "upload", once))


async def garbage(target: Target) -> None:
    """Everything in `REQUESTS`, and random bytes, over and over."""
    dice = random.Random(5)

    async def once() -> str:
        if dice.random() < 0.3:
            raw = dice.randbytes(dice.randrange(1, 3000)) + b"\r\n\r\n"
        else:
            raw = dice.choice(REQUESTS).raw
        with contextlib.suppress(TimeoutError):
            status, _ = await ask(target, raw, limit_s=5.0)
            return str(status)
        return "silent"

    await _side_by_side(16, lambda: _for_ever(target, "garbage", once))


async def upgrades(target: Target) -> None:
    """A websocket that is not granted, and then bytes without an end."""
    blob = b"\x82\xff" + bytes(65534)
    hello = request("GET", "/v1/status", "Upgrade: websocket", "Connection: Upgrade")

    async def once() -> str:
        async with target.line() as (_, writer):
            writer.write(hello.replace(b"Connection: close\r\n", b""))
            while True:
                writer.write(blob)
                await writer.drain()
                target.tally["after upgrade"] += len(blob)

    await _side_by_side(16, lambda: _for_ever(target, "upgrades", once))


_SIGNED = signed(b'{"protocol":1,"cluster":"failover","sender":{}}' + b" " * 60_000, b"another")

ATTACKS: Mapping[str, Attack] = {
    "status": _flood("status", request()),
    "history": _flood("history", request("GET", "/v1/history?limit=1000")),
    "signed": _flood("signed", _SIGNED),
    "small": _flood("small", signed(b"{}", b"another")),
    "pipelines": pipelines,
    "idlers": idlers,
    "churn": churn,
    "slow headers": _drip("slow headers", b"GET /v1/status HTTP/1.1\r\nX: ", b"y"),
    "slow bodies": _drip(
        "slow bodies", b"POST /v1/vote HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n", b"y"
    ),
    "deaf": deaf,
    "uploads": uploads,
    "garbage": garbage,
    "upgrades": upgrades,
}


async def attack(target: Target, names: list[str], seconds: float) -> Counter[str]:
    """These attacks side by side, for so long; how often what happened."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(_until_cancelled(ATTACKS[name](target)))
    return target.tally


async def _until_cancelled(work: Awaitable[None]) -> None:
    await work


def main(arguments: list[str]) -> None:
    """See above."""
    host, port, seconds, *names = arguments
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    target = at_port(host, int(port), receive_bytes=4096 if "deaf" in names else None)
    tally = asyncio.run(attack(target, names or [*ATTACKS], float(seconds)))
    print(json.dumps(dict(sorted(tally.items()))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
