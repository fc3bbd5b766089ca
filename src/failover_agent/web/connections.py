"""At most so many connections, so that nobody who can reach the port can use up what we have.

Beyond that those that never asked anything are closed first, then the one that has been idle
longest, then the oldest. One that does not finish its first request's headers in 10 seconds is
closed too. What a stranger can do is to take connections from others who are idle, whom their next
request connects again.
"""

from __future__ import annotations

import asyncio
import itertools
import math

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from aiohttp.web_protocol import RequestHandler

MOST_CONNECTIONS = 256
FIRST_REQUEST_S = 10.0

_MUTE = -1


class Connections:
    """Makes a handler for each connection that the loop accepts. `server` is set before that.

    `most`: so many stay open.
    """

    def __init__(self, most: int) -> None:
        self.server: web.Server | None = None
        self.most = most
        self._numbers = itertools.count()
        self._ranks: dict[RequestHandler, float] = {}

    def __call__(self) -> RequestHandler:
        """The protocol factory of `create_server`."""
        assert self.server is not None
        loop = asyncio.get_running_loop()
        handler = self.server()
        # The loop makes the connection known to the server in its next round: count after that.
        loop.call_soon(loop.call_soon, self._close_surplus)
        loop.call_later(FIRST_REQUEST_S, self._close_if_mute, handler)
        return handler

    def middleware(self) -> Middleware:
        """Has to be the outermost one of the application."""

        @web.middleware
        async def note_who_asks(request: web.Request, handler: Handler) -> web.StreamResponse:
            self._ranks[request.protocol] = math.inf
            try:
                return await handler(request)
            finally:
                self._ranks[request.protocol] = next(self._numbers)

        return note_who_asks

    def _close_surplus(self) -> None:
        assert self.server is not None
        there = self.server.connections
        if len(self._ranks) > 2 * self.most:
            self._ranks = {one: self._ranks[one] for one in there if one in self._ranks}
        surplus = len(there) - self.most
        if surplus <= 0:
            return
        for handler in sorted(there, key=self._rank)[:surplus]:
            handler.force_close()

    def _close_if_mute(self, handler: RequestHandler) -> None:
        if self._rank(handler) == _MUTE:
            handler.force_close()

    def _rank(self, handler: RequestHandler) -> float:
        """The lowest is closed first; of equal ones the oldest."""
        return self._ranks.get(handler, _MUTE)
