"""POST /v1/command on the control socket: what an operator orders. Guarded by the file's mode."""

from __future__ import annotations

import json

from aiohttp import web

from failover_agent.core.effects import ReplyToOperator
from failover_agent.core.events import CommandKind, CommandReceived
from failover_agent.web.context import Context, answer, error


class OperatorApi:
    """Orders, and nothing else: reading is as on the port (public_api.py)."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def routes(self) -> list[web.RouteDef]:
        """Where commands are taken."""
        return [web.post("/v1/command", self._command)]

    async def _command(self, http: web.Request) -> web.Response:
        command = command_of(await http.read())
        if command is None:
            known = ", ".join(CommandKind)
            return error(400, "bad_command", f'Write {{"command": NAME}} with one of: {known}.')
        try:
            reply = await self._context.ask(lambda number: CommandReceived(number, command))
        except TimeoutError:
            return error(503, "no_decision", "The agent did not decide in time.")
        assert isinstance(reply, ReplyToOperator)
        return answer({"accepted": reply.accepted, "sentence": reply.sentence})


def command_of(body: bytes) -> CommandKind | None:
    """What is ordered; None where that is no order."""
    try:
        content = json.loads(body)
        return CommandKind(content["command"]) if set(content) == {"command"} else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
