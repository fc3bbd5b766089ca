"""What the web is handed, and all that it knows: by a node, and by a witness."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from aiohttp import web

from failover_agent.core.ballot import Ballot
from failover_agent.core.effects import ReplyToOperator
from failover_agent.core.events import (
    CommandReceived,
    ConflictSeen,
    Event,
    HeartbeatReceived,
    ReleaseReceived,
    VoteRequested,
)
from failover_agent.core.messages import Answer, Request
from failover_agent.core.policy import Policy
from failover_agent.core.state import State
from failover_agent.protocol.auth import Keeper

ReadAccess = Literal["open", "secret", "local"]
"""Who may read status and history: everybody, who has the token, or programs on this host."""

Asked = HeartbeatReceived | VoteRequested | ReleaseReceived | CommandReceived
Ask = Callable[[Callable[[int], Asked]], Awaitable[Answer | ReplyToOperator]]
"""What the core answers to the event made with a fresh request id; TimeoutError without one."""


@dataclass(frozen=True, slots=True)
class Context:
    """`now` is on CLOCK_BOOTTIME. `stepped_ago_s`: how long ago the loop last took a step.
    `history(limit)`: the newest entries, oldest first. `arbiter_kind`: as it is configured.
    """

    keeper: Keeper
    policy: Policy
    version: str
    read_access: ReadAccess
    now: Callable[[], float]
    get_state: Callable[[], State]
    ask: Ask
    post: Callable[[Event], object]
    history: Callable[[int], Sequence[Mapping[str, object]]]
    stepped_ago_s: Callable[[], float]
    arbiter_kind: str | None = None


class WitnessedPair(Protocol):
    """One pair of a witness. `ask` raises TimeoutError where it could not decide in time."""

    @property
    def keeper(self) -> Keeper: ...
    async def ask(self, request: Request) -> Answer: ...
    def conflict(self, seen: ConflictSeen) -> None: ...


@dataclass(frozen=True, slots=True)
class WitnessContext:
    """`now` is on CLOCK_BOOTTIME. `pairs`: by cluster; nobody else is answered. `rejected` counts
    what was for none of them. `look`: each of them as it is now. `is_reader`: may whoever shows
    this token read?
    """

    pairs: Mapping[str, WitnessedPair]
    rejected: Counter[str]
    version: str
    read_access: ReadAccess
    is_reader: Callable[[str], bool]
    now: Callable[[], float]
    started_at_s: float
    look: Callable[[], Sequence[Ballot]]
    not_ready_because: Callable[[], Sequence[str]]
    stepped_ago_s: Callable[[], float]


def answer(content: Mapping[str, Any], status: int = 200) -> web.Response:
    """JSON, one line, ended as a shell likes it."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"
    return web.json_response(text=text, status=status)


def error(status: int, code: str, detail: str) -> web.Response:
    """The one shape of all errors."""
    return answer({"error": code, "detail": detail}, status)
