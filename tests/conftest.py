"""What every test is run with."""

import asyncio
import os
from collections.abc import Callable, Generator, Mapping

import hypothesis
import looptime
import pytest

KIND = 10  # nice(2): what only computes leaves the processors to what has to be on time

# How long an example takes says something of the machine, and nothing of the code. The examples
# are the same each time, except for `make fuzz`, which is there to find new ones.
hypothesis.settings.register_profile(
    "steady",
    deadline=None,
    derandomize=not os.environ.get("FUZZ_EXAMPLES"),
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("steady")


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Files run side by side: a simulation must not starve the two hosts of a lab."""
    is_timed = item.get_closest_marker("lab") or item.get_closest_marker("integration")
    if os.geteuid() == 0:  # Nobody else may take a kindness back.
        os.setpriority(os.PRIO_PROCESS, 0, 0 if is_timed else KIND)
    return (yield)
