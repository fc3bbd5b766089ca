"""What a witness answers: to the nodes of each pair, and to readers."""

from __future__ import annotations

import os
from dataclasses import replace

from aiohttp import web

from failover_agent.core.events import ConflictKind, ConflictSeen
from failover_agent.protocol.auth import MALFORMED, Denied
from failover_agent.protocol.envelope import cluster_of
from failover_agent.protocol.wire import Answer, Hello, HelloAnswer, Kind, MalformedMessageError
from failover_agent.protocol.wire import Request as Message
from failover_agent.web import peer_api
from failover_agent.web.context import WitnessContext, WitnessedPair, answer, error
from failover_agent.web.reading import Readers
from failover_agent.web.witness_status import status_of

STEPS_AGO_S = 10.0
"""A witness whose rounds took longer than this is not alive."""


class WitnessPeerApi:
    """POST /v1/heartbeat, /v1/vote, /v1/release, /v1/hello, for each pair by its own secret."""

    def __init__(self, context: WitnessContext) -> None:
        self._context = context
        self._refusals = peer_api.Refusals(context.now)

    def routes(self) -> list[web.RouteDef]:
        """Where the nodes speak to us."""
        return [web.post(f"/v1/{kind}", self._converse) for kind in Kind]

    async def _converse(self, http: web.Request) -> web.Response:
        kind, signature, body = await peer_api.read(http)
        try:
            cluster = cluster_of(body)
        except MalformedMessageError as malformed:
            self._refusals.note(MALFORMED, http.remote)
            return self._refuse(400, MALFORMED, str(malformed))
        pair = self._context.pairs.get(cluster)
        if pair is None:
            detail = "This witness does not serve that cluster."
            return self._refuse(409, ConflictKind.OTHER_CLUSTER, detail)
        judged = pair.keeper.admit(kind, signature, body, self._context.now())
        if isinstance(judged, Denied):
            self._refusals.note(judged.error, http.remote)
            return _deny(pair, judged, http.remote)
        try:
            told = await self._answer_to(pair, judged.request)
        except TimeoutError:
            return peer_api.no_decision(pair.keeper, judged)
        return peer_api.send(200, pair.keeper.answer(judged.receipt, told))

    async def _answer_to(self, pair: WitnessedPair, request: Message) -> Answer:
        if isinstance(request, Hello):
            return HelloAnswer(self._context.version, phase=None)
        return await pair.ask(request)

    def _refuse(self, status: int, code: str, detail: str) -> web.Response:
        """Nobody knows whose secret it should be signed with, nor is it an alarm: it is counted."""
        self._context.rejected[code] += 1
        return error(status, code, detail)


def _deny(pair: WitnessedPair, denied: Denied, remote: str | None) -> web.Response:
    """Refuse, and alarm where the refusal shows a wrong set-up."""
    if denied.conflict is not None:
        pair.conflict(_received(denied.conflict, remote))
    if denied.receipt is None:
        return error(denied.status, denied.error, denied.detail)
    refusal = pair.keeper.refusal(
        denied.receipt, denied.status, denied.error, denied.detail, denied.rival
    )
    return peer_api.send(denied.status, refusal)


def _received(seen: ConflictSeen, remote: str | None) -> ConflictSeen:
    return replace(seen, detail=f"{seen.detail} (a message from {remote})", received=True)


class WitnessPublicApi:
    """GET /v1/status, /v1/history, /livez, /readyz, /active.

    `everybody_reads`: whatever read_access says.
    """

    def __init__(self, context: WitnessContext, *, everybody_reads: bool = False) -> None:
        self._context = context
        access = "open" if everybody_reads else context.read_access
        self._readers = Readers(access, context.is_reader)

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
        content = status_of(
            context.look(),
            context.now(),
            started_at_s=context.started_at_s,
            version=context.version,
            pid=os.getpid(),
            rejected=context.rejected,
        )
        return answer(content)

    async def _history(self, http: web.Request) -> web.Response:
        """It is told in changes of phase, and a witness has none: its log has a line a term."""
        readers = self._readers
        return answer({"history": []}) if readers.may_read(http) else readers.forbidden()

    async def _livez(self, http: web.Request) -> web.Response:
        ago_s = self._context.stepped_ago_s()
        because = [] if ago_s <= STEPS_AGO_S else [f"no step was taken for {ago_s:.1f} s"]
        return self._readers.verdict(http, because)

    async def _readyz(self, http: web.Request) -> web.Response:
        return self._readers.verdict(http, self._context.not_ready_because())

    async def _active(self, http: web.Request) -> web.Response:
        return self._readers.verdict(http, ["this node is a witness"])
