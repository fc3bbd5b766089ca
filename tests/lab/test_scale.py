"""Many containers in one group, and many events that are none of our business.

Two dozen here, so that it does not take long; with 200 it is `bench/scale.py`, by hand.
"""

from collections.abc import Iterator

import pytest

from tests.lab import crowd
from tests.lab.lab import Lab
from tests.lab.until import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]

CONTAINERS, EVENTS = 24, 1000
LIMIT_S = 120.0
T_S = 6.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """All run on host-a, and host-b could take them."""
    with Lab(crowd.sleepers(CONTAINERS), third_host=True) as made:
        crowd.start(made, heartbeat_timeout=T_S, restart_grace_period=10.0)
        until(lambda: crowd.has_ready_peer(made.a), LIMIT_S, "all run on host-a")
        yield made


def test_a_storm_of_events_moves_nothing_and_hides_no_death(lab: Lab) -> None:
    before = crowd.lives(lab.a)
    middle = lab.a.services["app-012"]

    storm = crowd.Storm(lab.a)
    try:
        until(lambda: storm.said >= EVENTS // 2, LIMIT_S, "half of the storm")
        middle.kill()
        until(lambda: middle.state == "running", LIMIT_S, "it is repaired in the storm")
        until(lambda: storm.said >= EVENTS, LIMIT_S, "all of the storm")
    finally:
        storm.end()

    assert storm.longest_age_s < T_S, "the beats went on"
    after = crowd.lives(lab.a)
    assert [one.name for one, other in zip(before, after, strict=True) if one != other] == [
        middle.name
    ]
    until(lambda: crowd.has_ready_peer(lab.a), LIMIT_S, "all is well")


def test_one_beyond_repair_moves_all_in_order_and_none_runs_twice(lab: Lab) -> None:
    middle = lab.a.services["app-012"]

    middle.break_start()
    middle.kill()
    until(lambda: crowd.is_serving(lab.b), LIMIT_S, "all run on host-b")

    crowd.assert_started_in_order(lab.b)
    crowd.assert_never_two(crowd.lives(lab.b), crowd.lives(lab.a))


def test_after_a_crash_of_the_host_all_move_in_order(lab: Lab) -> None:
    lab.a.services["app-012"].mend_start()
    until(lambda: crowd.has_ready_peer(lab.b), LIMIT_S, "host-a could take them back")

    lab.b.crash()
    until(lambda: crowd.is_serving(lab.a), LIMIT_S, "all run on host-a")

    crowd.assert_started_in_order(lab.a)
