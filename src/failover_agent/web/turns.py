"""When a request is handled: read to its end, and one in each round of the loop.

Messages of nodes have turns of their own, apart from everybody else's. So a flood waits in a queue:
whoever sends it, in each round the agent's own steps, deadlines and answers come too.
"""

from __future__ import annotations

import asyncio
from collections import deque

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from failover_agent.protocol.wire import MOST_BYTES

BODY_S = 10.0


class Turns:
    """Lets one begin in each round of the loop, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_taken = False

    async def wait(self) -> None:
        """Until it is our turn: at once, where nobody has had it in this round."""
        loop = asyncio.get_running_loop()
        if not self._is_taken:
            self._is_taken = True
            loop.call_soon(self._pass_on)
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _pass_on(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._pass_on)
                return
        self._is_taken = False


def whole_and_in_turn() -> Middleware:
    """A request is read to its end, then waits for its turn; has to be the innermost one.

    Raises HTTPRequestEntityTooLarge, and TimeoutError for a body that stays away.
    """
    messages, others = Turns(), Turns()

    @web.middleware
    async def take(request: web.Request, handler: Handler) -> web.StreamResponse:
        if (request.content_length or 0) > MOST_BYTES:
            raise web.HTTPRequestEntityTooLarge(MOST_BYTES, request.content_length or 0)
        if request.can_read_body:
            async with asyncio.timeout(BODY_S):
                await request.read()
        await (messages if request.method == "POST" else others).wait()
        return await handler(request)

    return take
