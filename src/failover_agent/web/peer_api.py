"""POST /v1/heartbeat, /v1/vote, /v1/release: what the other node says. /v1/hello is for `check`."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from aiohttp import web

from failover_agent.core import reports
from failover_agent.core.effects import ReplyToOperator
from failover_agent.core.events import (
    ConflictKind,
    HeartbeatReceived,
    ReleaseReceived,
    VoteRequested,
)
from failover_agent.core.messages import Beat, ReleaseRequest, VoteRequest
from failover_agent.protocol.auth import MALFORMED, REPLAYED, Denied, Heard, Keeper, Signed
from failover_agent.protocol.envelope import SIGNATURE_HEADER, Rival
from failover_agent.protocol.wire import Answer, Hello, HelloAnswer, Kind, Request
from failover_agent.web.context import Asked, Context, error

TELL_EVERY_S = 60.0
ODD = frozenset({MALFORMED, REPLAYED, ConflictKind.NOT_AUTHENTIC.value})
"""What an operator should look into; the rest is an alarm, or part of every restart."""

log = logging.getLogger(__name__)


class Refusals:
    """Tells the log of odd messages, in a line a minute at most: a flood fills no disk."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._untold = 0
        self._tell_at_s = -math.inf

    def note(self, code: str, remote: str | None) -> None:
        """A message from there was refused."""
        if code not in ODD:
            return
        self._untold += 1
        now = self._now()
        if now >= self._tell_at_s:
            sentence = "refused, and nothing was changed by them (counters.rejected in the status)"
            fields = {"error": code, "from": remote, "messages": self._untold, "sentence": sentence}
            log.warning("rejected", extra={"fields": fields})
            self._untold, self._tell_at_s = 0, now + TELL_EVERY_S


class PeerApi:
    """Verify, parse, ask, and sign what is answered."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._refusals = Refusals(context.now)

    def routes(self) -> list[web.RouteDef]:
        """Where the other node speaks to us."""
        return [web.post(f"/v1/{kind}", self._converse) for kind in Kind]

    async def _converse(self, http: web.Request) -> web.Response:
        kind, signature, body = await read(http)
        judged = self._context.keeper.admit(kind, signature, body, self._context.now())
        if isinstance(judged, Denied):
            return self._deny(judged, http.remote)
        try:
            answer = await self._answer_to(judged.request)
        except TimeoutError:
            return no_decision(self._context.keeper, judged)
        return send(200, self._context.keeper.answer(judged.receipt, answer))

    async def _answer_to(self, request: Request) -> Answer:
        if isinstance(request, Hello):
            return HelloAnswer(self._context.version, self._context.get_state().phase)
        answer = await self._context.ask(lambda request_id: _event(request_id, request))
        assert not isinstance(answer, ReplyToOperator)
        return answer

    def _deny(self, denied: Denied, remote: str | None) -> web.Response:
        """Refuse, and tell the core where the refusal shows a wrong set-up."""
        self._refusals.note(denied.error, remote)
        if denied.conflict is not None:
            detail = f"{denied.conflict.detail} (a message from {remote})"
            self._context.post(replace(denied.conflict, detail=detail, received=True))
        if denied.receipt is None:
            return error(denied.status, denied.error, denied.detail)
        rival = denied.rival
        if rival is None and denied.error == ConflictKind.SAME_ROLE:
            rival = self._this_node()
        keeper = self._context.keeper
        refusal = keeper.refusal(denied.receipt, denied.status, denied.error, denied.detail, rival)
        return send(denied.status, refusal)

    def _this_node(self) -> Rival:
        state, policy = self._context.get_state(), self._context.policy
        may_lead = not reports.active_conflict(state, self._context.now(), policy)
        return Rival(state.node_id, state.is_holding, may_lead)


def _event(request_id: int, request: Beat | VoteRequest | ReleaseRequest) -> Asked:
    match request:
        case Beat():
            return HeartbeatReceived(request_id, request)
        case VoteRequest():
            return VoteRequested(request_id, request)
        case ReleaseRequest():
            return ReleaseReceived(request_id, request)
        case _:
            assert_never(request)


async def read(http: web.Request) -> tuple[Kind, str, bytes]:
    """What was asked, its signature, and its body."""
    body = await http.read()
    return Kind(http.path.rpartition("/")[2]), http.headers.get(SIGNATURE_HEADER, ""), body


def no_decision(keeper: Keeper, heard: Heard) -> web.Response:
    """The answer to one who should try again."""
    detail = f"this {keeper.me.role} did not decide in time, or could not save its decision"
    return send(503, keeper.refusal(heard.receipt, 503, "no_decision", detail))


def send(status: int, signed: Signed) -> web.Response:
    """An answer, or a refusal that is bound to its request."""
    headers = {SIGNATURE_HEADER: signed.signature} if signed.signature else {}
    return web.Response(
        status=status, body=signed.body, headers=headers, content_type="application/json"
    )
