"""What everybody may ask on the port: GET /v1/status, /v1/history, /livez, /readyz, /active.

The last three are for load balancers and supervisors: their status code is for everybody, whatever
read_access says, and the reasons are for those who may read.
"""

from __future__ import annotations

import os
import re

from aiohttp import web

from failover_agent.core.state import Phase
from failover_agent.web.context import Context, answer, error
from failover_agent.web.reading import Readers
from failover_agent.web.status import not_ready_because, status_of

MISSED_CHECKS = 3
"""An agent whose loop took no step for so many check intervals is not alive."""


class PublicApi:
    """Reading: nothing here changes anything. `everybody_reads`: whatever read_access says."""

    def __init__(self, context: Context, *, everybody_reads: bool = False) -> None:
        self._context = context
        access = "open" if everybody_reads else context.read_access
        self._readers = Readers(access, context.keeper.is_reader)

    def routes(self) -> list[web.RouteDef]:
        """The addresses that answer a GET, and a HEAD."""
        return [
            web.get("/v1/status", self._status),
            web.get("/v1/history", self._history),
            web.get("/livez", self._livez),
            web.get("/readyz", self._readyz),
            web.get("/active", self._active),
        ]

    async def _status(self, http: web.Request) -> web.Response:
        if not self._readers.may_read(http):
            return self._readers.forbidden()
        context = self._context
        keeper = context.keeper
        content = status_of(
            context.get_state(),
            context.policy,
            context.now(),
            cluster=keeper.cluster,
            version=context.version,
            pid=os.getpid(),
            rejected=keeper.rejected,
            arbiter_kind=context.arbiter_kind,
        )
        return answer(content)

    async def _history(self, http: web.Request) -> web.Response:
        if not self._readers.may_read(http):
            return self._readers.forbidden()
        limit = http.query.get("limit", "20")
        if not re.fullmatch(r"[1-9][0-9]{0,2}|1000", limit):
            return error(400, "bad_limit", "limit is a whole number from 1 to 1000.")
        return answer({"history": list(self._context.history(int(limit)))})

    async def _livez(self, http: web.Request) -> web.Response:
        ago_s = self._context.stepped_ago_s()
        limit_s = MISSED_CHECKS * self._context.policy.check_heartbeat_interval_s
        because = [] if ago_s <= limit_s else [f"no step was taken for {ago_s:.1f} s"]
        return self._readers.verdict(http, because)

    async def _readyz(self, http: web.Request) -> web.Response:
        context = self._context
        state = context.get_state()
        return self._readers.verdict(http, not_ready_because(state, context.policy, context.now()))

    async def _active(self, http: web.Request) -> web.Response:
        phase = self._context.get_state().phase
        because = [] if phase is Phase.ACTIVE else [f"this node is {phase}"]
        return self._readers.verdict(http, because)
