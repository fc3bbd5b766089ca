"""Waiting, with an end. Nothing else under tests/ sleeps."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

POLL_S = 0.01

T = TypeVar("T")


class LabTimeout(AssertionError):
    """What was waited for did not come true in time."""


def until(
    condition: Callable[[], T | None], limit_s: float, what: str = "", poll_s: float = POLL_S
) -> T:
    """The first truthy value of `condition`. Raises LabTimeout after `limit_s` seconds.

    `condition` is asked at least once after the limit has passed, so that a test process which
    was itself held up does not blame the world.
    """
    end = time.monotonic() + limit_s
    while True:
        late = time.monotonic() >= end
        value = condition()
        if value:
            return value
        if late:
            raise LabTimeout(_complaint(condition, limit_s, what, value))
        time.sleep(poll_s)


async def until_async(
    condition: Callable[[], Awaitable[T]], limit_s: float, what: str = "", poll_s: float = POLL_S
) -> T:
    """`until` for a condition that is awaited."""
    end = time.monotonic() + limit_s
    while True:
        late = time.monotonic() >= end
        value = await condition()
        if value:
            return value
        if late:
            raise LabTimeout(_complaint(condition, limit_s, what, value))
        await asyncio.sleep(poll_s)


def _complaint(condition: object, limit_s: float, what: str, last: object) -> str:
    named = what or getattr(condition, "__name__", repr(condition))
    return f"not within {limit_s:g} s: {named} (last value: {last!r})"
