"""What those who can reach the port may use up: so much, and no more.

1. At most `most` connections. For one more, one is closed of the address that has the most of them:
   first one that never asked anything, then the one that has been idle longest, then the oldest.
   One on which a message of ours was heard goes last of all, so a stranger takes connections from
   itself, then from other strangers, and from the other nodes never.
2. A connection says its first request within 10 seconds, sends a request whole and takes its answer
   within 20, and idles for 75. At the end of that it is gone, whatever it has not read yet.
3. Between two answers it sends one message and 64 KiB more at most: bodies, headers, requests
   without a pause. One that sends more is closed, so memory is bounded by rule 1.
4. Long answers that nobody reads are bounded together; beyond that they are refused (503).

How many are handled at once is turns.py.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from aiohttp.web_protocol import RequestHandler

from failover_agent.protocol.wire import MOST_BYTES, Kind
from failover_agent.web.context import error

MOST_CONNECTIONS = 256
FIRST_REQUEST_S = 10.0
REQUEST_S = 20.0
"""From its headers to the last byte of its answer: a body, and the 5 seconds of a decision."""
IDLE_S = 75.0
LINGER_S = 2.0
"""What is left of a body that was refused is read for so long, so that the refusal arrives."""
LAST_S = 10.0
"""To take the last answer of a connection."""
MOST_UNANSWERED_BYTES = MOST_BYTES + 64 * 1024
LONG_BYTES = 64 * 1024
MOST_LONG_BYTES = 8 * 2**20
COMPLAIN_EVERY_S = 60.0
NAME = "failover-agent"

_MUTE = -1


@dataclass(slots=True)
class _Line:
    """One connection. `rank`: _MUTE, or when its last request ended, or infinite within one."""

    transport: asyncio.Transport
    address: str
    timer: asyncio.TimerHandle
    rank: float = _MUTE
    is_ours: bool = False
    unanswered: int = 0


class Connections:
    """Makes a handler for each connection that the loop accepts. `server` is set before that.

    `most`: so many stay open.
    """

    def __init__(self, most: int) -> None:
        self.server: web.Server | None = None
        self.most = most
        self._numbers = itertools.count()
        self._lines: dict[RequestHandler, _Line] = {}
        self._long_bytes = 0
        self._complain_at_s = -math.inf

    def __call__(self) -> RequestHandler:
        """The protocol factory of `create_server`."""
        assert self.server is not None
        return _Handler(self, self.server)

    def __len__(self) -> int:
        return len(self._lines)

    # --- one connection -----------------------------------------------------------------------

    def opened(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """A connection was accepted; another one may have to go for it."""
        # An answer counts as taken once the system has all of it.
        transport.set_write_buffer_limits(high=0)
        timer = self._abort_after(transport, FIRST_REQUEST_S)
        self._lines[handler] = _Line(transport, _address(transport), timer)
        if len(self._lines) > self.most:
            self._close_one_for(handler)

    def lost(self, handler: RequestHandler) -> None:
        """It is gone."""
        line = self._lines.pop(handler, None)
        if line is not None:
            line.timer.cancel()

    def may_send(self, handler: RequestHandler, size: int) -> bool:
        """May it send so much more? Where not, it is closed."""
        line = self._lines.get(handler)
        if line is None:
            return False
        line.unanswered += size
        if line.unanswered > MOST_UNANSWERED_BYTES:
            line.transport.abort()
            return False
        return True

    def ends(self, handler: RequestHandler) -> None:
        """Its last answer is on its way: it has not for ever to take it."""
        line = self._lines.get(handler)
        if line is not None:
            self._limit(line, LAST_S)

    def may_complain(self) -> bool:
        """True once a minute: a fault of ours that strangers can repeat is not logged each time."""
        now = asyncio.get_running_loop().time()
        if now < self._complain_at_s:
            return False
        self._complain_at_s = now + COMPLAIN_EVERY_S
        return True

    def _limit(self, line: _Line, after_s: float) -> None:
        line.timer.cancel()
        line.timer = self._abort_after(line.transport, after_s)

    def _abort_after(self, transport: asyncio.Transport, after_s: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(after_s, transport.abort)

    def _close_one_for(self, newcomer: RequestHandler) -> None:
        """Not counted from now on, whenever the loop says that it has gone."""
        crowd = Counter(line.address for line in self._lines.values() if not line.is_ours)

        def rank(handler: RequestHandler) -> tuple[bool, int, float]:
            line = self._lines[handler]
            return line.is_ours, -crowd[line.address], line.rank

        others = (handler for handler in self._lines if handler is not newcomer)
        handler = min(others, key=rank)  # Of equal ones the oldest: a dict keeps the order.
        line = self._lines.pop(handler)
        line.timer.cancel()
        line.transport.abort()

    # --- one request --------------------------------------------------------------------------

    def middleware(self) -> Middleware:
        """From the headers to the last byte of the answer; has to be the outermost one."""

        @web.middleware
        async def mind(request: web.Request, handler: Handler) -> web.StreamResponse:
            line = self._lines.get(request.protocol)
            if line is None:
                raise web.HTTPServiceUnavailable  # It is closed, and nobody hears this.
            line.rank = math.inf
            self._limit(line, REQUEST_S)
            try:
                response = await handler(request)
                await self._answer(request, response)
                line.is_ours |= _was_heard(request, response)
                return response
            finally:
                line.rank = next(self._numbers)
                line.unanswered = 0
                if self._lines.get(request.protocol) is line:
                    self._limit(line, IDLE_S)

        return mind

    async def _answer(self, request: web.Request, response: web.StreamResponse) -> None:
        """Until the last byte is taken. aiohttp sees then that nothing is left to do."""
        size = (response.content_length or 0) if request.method != "HEAD" else 0
        long = size if size > LONG_BYTES else 0
        if long and self._long_bytes + long > MOST_LONG_BYTES:
            response, long = error(503, "busy", "Too many long answers wait to be read."), 0
        self._long_bytes += long
        try:
            await response.prepare(request)
            await response.write_eof()
        except ConnectionError:
            pass  # Nobody is there any more; aiohttp finds out by itself.
        finally:
            self._long_bytes -= long


class _Handler(RequestHandler):
    """aiohttp's, which asks `connections` what it may do."""

    __slots__ = ("_connections",)

    def __init__(self, connections: Connections, server: web.Server) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]
            auto_decompress=False,
            keepalive_timeout=IDLE_S,
            lingering_time=LINGER_S,
        )
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A stranger has come."""
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        self._connections.opened(self, transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """It has gone."""
        self._connections.lost(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """It has said something."""
        if self._connections.may_send(self, len(data)):
            super().data_received(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP is no line in our log; a fault of ours is, and tells nobody else."""
        _ = message
        if status != 400:
            self.log_exception("Error handling request from %s", request.remote, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        if status == 400:
            refusal = error(400, "malformed", "This is no HTTP request.")
        else:
            refusal = error(500, "internal", "A fault of this program: its log tells more.")
        refusal.headers["Server"] = NAME
        refusal.force_close()
        self._connections.ends(self)
        return refusal

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Not each time."""
        if self._connections.may_complain():
            super().log_exception(*args, **kw)


def _was_heard(request: web.Request, response: web.StreamResponse) -> bool:
    """Was it a message of ours? A hello is none: it is answered as often as it comes, and so to
    whoever has recorded one.
    """
    is_hello = request.path.endswith(f"/{Kind.HELLO}")
    return request.method == "POST" and response.status == 200 and not is_hello


async def name_us(_: web.Request, response: web.StreamResponse) -> None:
    """What we are is no secret; in which version, and by whose help, nobody has to know."""
    response.headers["Server"] = NAME


def _address(transport: asyncio.Transport) -> str:
    """Whose connection it is: an address, and of IPv6 the network that one host has to itself."""
    peer = transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        return ""
    try:
        address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    except ValueError:
        return str(peer[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
