"""With a witness: lost packets and busy processors, with T = 10 s and, for the record, T = 1 s.

Two trios side by side, so that both meet the same weather.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.faults import burning
from tests.lab.pair import assert_never_two, pass_time, term
from tests.lab.trio import Trio
from tests.lab.truth import now_s

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

MINUTE_S = 60.0


def timings(interval_s: float, timeout_s: float) -> dict[str, Any]:
    return {
        "heartbeat_interval": interval_s,
        "check_heartbeat_interval": interval_s,
        "heartbeat_timeout": timeout_s,
        "restart_grace_period": 30.0,
    }


@pytest.fixture(scope="module")
def slow() -> Iterator[Trio]:
    with Trio.build("witness", **timings(1.0, 10.0)) as trio:
        yield trio


@pytest.fixture(scope="module")
def fast() -> Iterator[Trio]:
    with Trio.build("witness", **timings(0.1, 1.0)) as trio:
        yield trio


def terms_passed(trio: Trio, before: int) -> int:
    """How many attempts to become active there were."""
    return max(term(node) for node in trio.nodes) - before


def ride_out(slow: Trio, fast: Trio, seconds: float, what: str) -> int:
    """Time passes; never two in either; the number of new terms of the slow one."""
    before = {trio: max(term(node) for node in trio.nodes) for trio in (slow, fast)}
    since_s = now_s()
    pass_time(seconds)
    counts = {}
    for trio in (slow, fast):
        trio.lab.network.heal()
        trio.settle()
        assert_never_two(trio.lab, since_s)
        counts[trio] = terms_passed(trio, before[trio])
    print(f"{what}: new terms with T = 10 s: {counts[slow]}, with T = 1 s: {counts[fast]}")
    return counts[slow]


def test_no_failover_in_a_minute_of_20_percent_loss_on_busy_processors(
    slow: Trio, fast: Trio
) -> None:
    """Both at once: that is worse than each alone."""
    slow.settle()
    fast.settle()
    for trio in (slow, fast):
        trio.lab.network.loss(20)
    with burning(slow.lab.c):
        assert ride_out(slow, fast, MINUTE_S, "a minute of 20 % loss on busy processors") == 0


def test_40_percent_loss_is_counted(slow: Trio, fast: Trio) -> None:
    slow.settle()
    fast.settle()
    for trio in (slow, fast):
        trio.lab.network.loss(40)
    ride_out(slow, fast, MINUTE_S / 4, "15 s of 40 % loss")
