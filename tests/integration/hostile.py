"""What strangers send to a node and to a witness: those who mean no good, or know no better.

`REQUESTS` are single requests, each with what may come of it; attacks.py sends them for long.
"""

import asyncio
import contextlib
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from failover_agent.protocol.envelope import SIGNATURE_HEADER, sign_request
from failover_agent.protocol.wire import MOST_BYTES

ANSWER_S = 30.0
CLOSED = 0
"""In the place of a status: the connection was closed without an answer."""


@dataclass
class Target:
    """Where to attack; `connect` opens another connection."""

    connect: Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
    tally: Counter[str] = field(default_factory=Counter)

    @contextlib.asynccontextmanager
    async def line(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection, torn down at the end without a word."""
        reader, writer = await self.connect()
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


def at_port(host: str, port: int, *, receive_bytes: int | None = None, source: str = "") -> Target:
    """`receive_bytes`: the socket's buffer, where the window is to be tiny. `source`: an address of
    ours to come from.
    """

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        one.setblocking(False)
        if receive_bytes is not None:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        try:
            if source:
                one.bind((source, 0))
            await asyncio.get_running_loop().sock_connect(one, (host, port))
            return await asyncio.open_connection(sock=one, limit=2**20)
        except OSError:
            one.close()
            raise

    return Target(connect)


def at_socket(path: str) -> Target:
    """The control socket."""
    return Target(partial(asyncio.open_unix_connection, path, limit=2**20))


# --- one request ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hostile:
    """`raw` is what is sent; `may` are the statuses that it may be answered with."""

    name: str
    raw: bytes
    may: frozenset[int]


def request(
    method: str = "GET", path: str = "/v1/status", *headers: str, body: bytes = b""
) -> bytes:
    """Its last word is `Connection: close`, so the end of the answer can be seen."""
    lines = [f"{method} {path} HTTP/1.1", "Host: node", *headers, "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def posted(body: bytes, *headers: str, path: str = "/v1/heartbeat") -> bytes:
    """A message, with its length."""
    return request("POST", path, f"Content-Length: {len(body)}", *headers, body=body)


def signed(body: bytes, secret: bytes, path: str = "/v1/heartbeat") -> bytes:
    """A message of one who has that secret."""
    return posted(body, f"{SIGNATURE_HEADER}: {sign_request(secret, body)}", path=path)


def _all() -> list[Hostile]:
    dice = random.Random(4)
    chunked = "Transfer-Encoding: chunked"
    refused, refused_or_gone = {400}, {400, CLOSED}
    cases: list[tuple[str, bytes, set[int]]] = [
        ("random bytes", dice.randbytes(4000) + b"\r\n\r\n", refused_or_gone),
        ("zeros", bytes(4000), refused_or_gone),
        ("only line ends", b"\r\n" * 3000 + b"x\r\n\r\n", refused_or_gone),
        ("HTTP/0.9", b"GET /v1/status\r\n\r\n", {200, 400}),
        ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", refused_or_gone),
        ("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + dice.randbytes(506), {400}),
        ("HTTP/9.9", b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", refused),
        ("a nonsense version", b"GET / HTTP/1.1x\r\nHost: x\r\n\r\n", refused),
        ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", refused_or_gone),
        (
            "length and chunks",
            request("POST", "/v1/vote", "Content-Length: 4", chunked, body=b"0\r\n\r\n"),
            refused,
        ),
        (
            "two lengths",
            request("POST", "/v1/vote", "Content-Length: 4", "Content-Length: 0", body=b"abcd"),
            refused,
        ),
        ("a negative length", request("POST", "/v1/vote", "Content-Length: -1"), refused),
        ("a signed length", request("POST", "/v1/vote", "Content-Length: +4"), refused),
        ("a length of words", request("POST", "/v1/vote", "Content-Length: 4 4"), refused),
        ("an absurd length", request("POST", "/v1/vote", f"Content-Length: {10**40}"), refused),
        ("a bad chunk", request("POST", "/v1/vote", chunked, body=b"zz\r\n"), {400}),
        ("an absurd chunk", request("POST", "/v1/vote", chunked, body=b"f" * 40 + b"\r\n"), {400}),
        (
            "a coding that is none",
            request("POST", "/v1/vote", "Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
            refused,
        ),
        (
            "chunks not at the end",
            request("POST", "/v1/vote", "Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"),
            refused,
        ),
        ("a space before the colon", request("GET", "/v1/status", "X : y"), refused),
        ("a folded header", request("GET", "/v1/status", "X: y", " z"), refused_or_gone),
        ("a header without a name", request("GET", "/v1/status", ": y"), refused),
        ("a NUL in a header", request("GET", "/v1/status", "X: a\0b"), refused),
        ("bare line feeds", b"GET /v1/status HTTP/1.1\nHost: x\nX : y\n\n", refused_or_gone),
        ("10,000 headers", request("GET", "/v1/status", *["X: y"] * 10_000), refused),
        ("a header of 1 MB", request("GET", "/v1/status", "X: " + "y" * 2**20), refused),
        ("a path of 1 MB", request("GET", "/" + "x" * 2**20), refused),
        ("a query of 1 MB", request("GET", "/v1/history?limit=" + "1" * 2**20), refused),
        ("a method of 10,000 letters", request("X" * 10_000, "/"), refused),
        ("a long query", request("GET", "/v1/history?limit=" + "1" * 6000), {200, 400}),
        ("a query of pairs", request("GET", "/v1/status?" + "a=b&" * 1500), {200}),
        ("path traversal", request("GET", "/../../../etc/passwd"), {404}),
        ("path traversal, hidden", request("GET", "/v1/%2e%2e/%2e%2e/etc/passwd"), {404}),
        ("path traversal, doubly", request("GET", "/v1/status/..%252f..%252fetc/passwd"), {404}),
        ("a NUL in the path", request("GET", "/v1/status%00"), {404}),
        ("bytes in the path", request("GET", "/v1/\xff\xfe"), {400, 404}),
        ("a whole address", request("GET", "http://elsewhere/v1/status"), {200, 400, 404}),
        ("OPTIONS", request("OPTIONS", "/v1/status"), {405}),
        ("OPTIONS of all", request("OPTIONS", "*"), {400, 404}),
        ("PUT", request("PUT", "/v1/status"), {405}),
        ("DELETE", request("DELETE", "/v1/history"), {405}),
        ("TRACE", request("TRACE", "/v1/status"), {400, 405}),
        ("CONNECT", request("CONNECT", "elsewhere:443"), {400, 404, 405}),
        ("HEAD", request("HEAD", "/v1/status"), {200}),
        ("a GET with a body", posted(b"x" * 1000).replace(b"POST", b"GET", 1), {404, 405}),
        (
            "a websocket",
            request(
                *("GET", "/v1/status", "Connection: Upgrade", "Upgrade: websocket"),
                *("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"),
            ),
            {200},
        ),
        ("HTTP/2, asked for", request("GET", "/v1/status", "Upgrade: h2c"), {200}),
        ("an unknown expectation", posted(b"{}", "Expect: the worst"), {417, 404}),
        ("no JSON", posted(b"beat"), {400, 401, 404}),
        ("no signature", posted(b"{}"), {400, 401, 404}),
        (
            "two signatures",
            signed(b"{}", b"another").replace(b"Host", b"Failover-Signature", 1),
            {400, 401, 404},
        ),
        (
            "a signature of 8,000 letters",
            posted(b"{}", f"{SIGNATURE_HEADER}: {'f' * 8000}"),
            {400, 401, 404},
        ),
        ("a signature of bytes", posted(b"{}", f"{SIGNATURE_HEADER}: \xff\xfe"), {400, 401, 404}),
        ("another secret", signed(b'{"cluster": "shop"}', b"another"), {401, 404}),
        ("too much, by its length", posted(b"x" * (MOST_BYTES + 1)), {413, 404}),
        (
            "too much, in chunks",
            request("POST", "/v1/heartbeat", chunked, body=b"fff\r\n" + b"x" * 4095 + b"\r\n")
            + (b"fff\r\n" + b"x" * 4095 + b"\r\n") * (MOST_BYTES // 4095 + 1)
            + b"0\r\n\r\n",
            {413, 404},
        ),
        (
            "a bomb of zeros",
            posted(_bomb(), "Content-Encoding: gzip"),
            {400, 401, 404},
        ),
        (
            "many small chunks",
            request("POST", "/v1/heartbeat", chunked, body=b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n"),
            {400, 401, 404},
        ),
    ]
    return [Hostile(name, raw, frozenset(may)) for name, raw, may in cases]


def _bomb() -> bytes:
    """50 MB, as 50 kB."""
    import gzip

    return gzip.compress(bytes(50 * 2**20))


REQUESTS = _all()


async def ask(target: Target, raw: bytes, limit_s: float = ANSWER_S) -> tuple[int, bytes]:
    """The status and the body of the first answer; CLOSED and nothing where none came."""
    async with asyncio.timeout(limit_s), target.line() as (reader, writer):
        try:
            writer.write(raw)
            return await read_answer(reader)
        except (OSError, EOFError):
            return CLOSED, b""


async def read_to_the_end(reader: asyncio.StreamReader) -> bytes:
    """All that a connection still says. An abort is an end too."""
    told = bytearray()
    try:
        while more := await reader.read(65536):
            told += more
    except ConnectionResetError:
        pass
    return bytes(told)


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next answer of a connection; raises OSError or EOFError where it is closed."""
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if status == 100:
        return await read_answer(reader)
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    with contextlib.suppress(asyncio.IncompleteReadError, OSError):  # the body of a HEAD
        return status, await reader.readexactly(length)
    return status, b""
