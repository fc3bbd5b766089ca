"""What everybody may ask on the port: GET /v1/status, /v1/history, /livez, /readyz, /active.

The last three are for load balancers and supervisors: their status code is for everybody, whatever
read_access says, and the reasons are for those who may read.
"""

from __future__ import annotations

import ipaddress
import os
import re

from aiohttp import web

from failover_agent.core.state import Phase
from failover_agent.web.context import Context, ReadAccess, answer, error
from failover_agent.web.status import not_ready_because, status_of

MISSED_CHECKS = 3
"""An agent whose loop took no step for so many check intervals is not alive."""


class PublicApi:
    """Reading: nothing here changes anything. `everybody_reads`: whatever read_access says."""

    def __init__(self, context: Context, *, everybody_reads: bool = False) -> None:
        self._context = context
        self._access: ReadAccess = "open" if everybody_reads else context.read_access

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
        if not self._may_read(http):
            return self._forbidden()
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
        )
        return answer(content)

    async def _history(self, http: web.Request) -> web.Response:
        if not self._may_read(http):
            return self._forbidden()
        limit = http.query.get("limit", "20")
        if not re.fullmatch(r"[1-9][0-9]{0,2}|1000", limit):
            return error(400, "bad_limit", "limit is a whole number from 1 to 1000.")
        return answer({"history": list(self._context.history(int(limit)))})

    async def _livez(self, http: web.Request) -> web.Response:
        ago_s = self._context.stepped_ago_s()
        limit_s = MISSED_CHECKS * self._context.policy.check_heartbeat_interval_s
        because = [] if ago_s <= limit_s else [f"no step was taken for {ago_s:.1f} s"]
        return self._verdict(http, because)

    async def _readyz(self, http: web.Request) -> web.Response:
        context = self._context
        state = context.get_state()
        return self._verdict(http, not_ready_because(state, context.policy, context.now()))

    async def _active(self, http: web.Request) -> web.Response:
        phase = self._context.get_state().phase
        because = [] if phase is Phase.ACTIVE else [f"this node is {phase}"]
        return self._verdict(http, because)

    def _verdict(self, http: web.Request, because: list[str] | tuple[str, ...]) -> web.Response:
        told = list(because) if self._may_read(http) else []
        return answer({"ok": not because, "because": told}, 503 if because else 200)

    def _may_read(self, http: web.Request) -> bool:
        match self._access:
            case "open":
                return True
            case "local":
                return _is_local(http)
            case "secret":
                scheme, _, token = http.headers.get("Authorization", "").partition(" ")
                return scheme.lower() == "bearer" and self._context.keeper.is_reader(token.strip())

    def _forbidden(self) -> web.Response:
        if self._access == "local":
            return error(403, "local_only", "Only this host may read (security.read_access).")
        refusal = error(401, "token_needed", "Reading needs a token (security.read_access).")
        refusal.headers["WWW-Authenticate"] = "Bearer"
        return refusal


def _is_local(http: web.Request) -> bool:
    """Does it come from a loopback address?"""
    try:
        address = ipaddress.ip_address((http.remote or "").partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
