"""At the address of the etcd somebody else answers: nothing is granted, and a sentence says why."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from failover_agent.core.messages import VoteKind
from tests.integration.etcd import error_of, side

pytestmark = pytest.mark.integration

LONG = b"x" * 100_000
FOREIGN = b'{"header": {"cluster_id": "1", "revision": "1"}, "kvs": [{"mod_revision": "9"}]}'


def http(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


@asynccontextmanager
async def stranger(answer: bytes) -> AsyncIterator[str]:
    """Says the same to everybody, and hangs up. Its endpoint."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closes the connection"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not answer as an etcd does"),
        (http(b""), "does not answer as an etcd does (no JSON)"),
        (http(b"[]"), "does not answer as an etcd does (no JSON)"),
        (http(b"[" * 60_000), "does not answer as an etcd does (no JSON)"),
        (http(b"{}"), "what it answers is not understood"),
        (http(FOREIGN), "what it answers is not understood"),
        (http(LONG), "does not answer as an etcd does (more than 65536 bytes)"),
        (http(b"hello", "404 Not Found"), "no etcd answers there (HTTP 404: hello)"),
        (http(b"", "302 Found"), "no etcd answers there (HTTP 302)"),
    ],
    ids=["silent", "ssh", "empty", "list", "deep", "no header", "kvs", "long", "404", "302"],
)
async def test_a_stranger_is_not_an_arbiter(answer: bytes, words: str) -> None:
    async with stranger(answer) as endpoint, side((endpoint,), deadline_s=5.0) as primary:
        for effect in (
            primary.beat(3, renews=True),
            primary.question(VoteKind.POLL),
            primary.question(VoteKind.CANDIDACY, 4),
        ):
            error = error_of(await primary.perform(effect))
            assert words in error
            assert endpoint in error
        (probed,) = await primary.arbiter.probe()

    assert not probed.is_fine
    assert probed.todo.endswith((".", "?"))
