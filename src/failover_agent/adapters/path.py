"""One way to another node: an address, the messages that wait there, and whether it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from yarl import URL

from failover_agent.adapters.names import LookUp, name_of
from failover_agent.core.events import PathAnswered, PathFailed
from failover_agent.core.policy import Role

MOST_IN_FLIGHT = 16
"""Messages on one path that wait for an answer; one more, and the oldest is given up."""


class Path:
    """Endpoint `number` of the node of `role`, "http://host:port".

    `post` is told when it begins to answer, and when it does not or for another reason.
    """

    def __init__(
        self,
        role: Role,
        number: int,
        url: str,
        look_up: LookUp,
        post: Callable[[PathAnswered | PathFailed], object],
    ) -> None:
        self.role = role
        self.number = number
        self.url = URL(url)
        self._endpoint = url.rstrip("/")
        self.waiting: dict[asyncio.Timeout, None] = {}
        host = self.url.host or ""
        self.name = name_of(host, look_up)
        self._post = post
        self._is_answering: bool | None = None
        self._error = ""
        self._silent_since_s: float | None = None
        self._newest_answered_s = float("-inf")

    def __str__(self) -> str:
        return self._endpoint

    def make_room(self) -> None:
        """Give the oldest message up when too many wait."""
        if len(self.waiting) >= MOST_IN_FLIGHT:
            oldest = next(iter(self.waiting))
            del self.waiting[oldest]
            if not oldest.expired():
                oldest.reschedule(asyncio.get_running_loop().time())

    def doubt(self) -> None:
        """Nobody could be reached: its name may mean another address by now."""
        if self.name is not None:
            self.name.doubt()

    def answered(self, sent_at_s: float, now: float) -> None:
        """What left at `sent_at_s` was answered: it works."""
        self._newest_answered_s = max(self._newest_answered_s, sent_at_s)
        self._silent_since_s = now
        if self._is_answering is not True:
            self._is_answering, self._error = True, ""
            self._post(PathAnswered(self.role, self._endpoint))

    def failed(self, sent_at_s: float, error: str) -> None:
        """What left at `sent_at_s` was not: it does not work, unless something later was."""
        if sent_at_s <= self._newest_answered_s:
            return
        if self._silent_since_s is None:
            self._silent_since_s = sent_at_s
        if self._is_answering is not False or self._error != error:
            self._is_answering, self._error = False, error
            self._post(PathFailed(self.role, self._endpoint, self._silent_since_s, error))
