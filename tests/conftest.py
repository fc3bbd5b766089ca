"""What every test is run with."""

import asyncio
from collections.abc import Callable, Mapping

import looptime
import pytest


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Under the mark `virtual_time` the loop jumps over waiting; without it, time is real.

    looptime's own pytest plugins are switched off in pyproject.toml: they ask each plain test for
    an event loop, which warns from Python 3.12 on and leaves an open loop behind.
    """
    if item.get_closest_marker("virtual_time"):
        return {"virtual": looptime.new_event_loop}
    return {"real": asyncio.new_event_loop}
