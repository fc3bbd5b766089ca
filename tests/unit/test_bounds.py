"""The closed-form bounds, against figures worked out by hand from the design, section 4."""

from dataclasses import replace

import pytest

from failover_agent.core import bounds
from failover_agent.core.bounds import NEVER_S, Measured
from failover_agent.core.policy import PartitionPolicy, Policy, Role

EXACT = Measured(rtt_s=0, fsync_s=0, wake_s=0, kill_s=0)
SLOW = Measured(rtt_s=0.1, fsync_s=0.2, wake_s=0.4, kill_s=0.3)

PAIR = Policy(role=Role.BACKUP, containers=("web",))
TRIO = replace(PAIR, arbiter=Role.WITNESS)
CAREFUL = replace(PAIR, partition_policy=PartitionPolicy.CONSISTENCY)


def about(seconds: float) -> object:
    return pytest.approx(seconds, abs=1e-9)


def test_a_takeover_with_the_defaults_takes_ten_seconds_and_a_third() -> None:
    """The figure in the design: 10.3 s at T = 10."""
    assert f"{bounds.takeover_s(TRIO, Measured()):.1f}" == "10.3"


def test_a_takeover_waits_for_the_promise_of_a_slow_clock_and_asks_twice() -> None:
    assert bounds.takeover_s(TRIO, EXACT) == about(10.201)
    assert bounds.takeover_s(TRIO, SLOW) == about(10.201 + 0.1 + 0.4 + 2 * 0.1 + 2 * 0.2)
    assert bounds.takeover_s(replace(TRIO, heartbeat_timeout_s=3), EXACT) == about(3 * 1.0201)


def test_a_register_is_seen_an_interval_later() -> None:
    assert bounds.takeover_s(TRIO, EXACT, is_register=True) == about(10.201 + 1.01)
    assert bounds.takeover_s(TRIO, SLOW, is_register=True) == about(
        bounds.takeover_s(TRIO, SLOW) + 1.01 + 0.4 + 0.1 + 0.2
    )


def test_a_fence_comes_before_the_first_start() -> None:
    fenced = replace(TRIO, has_fence=True)

    assert bounds.takeover_s(fenced, EXACT, fence_timeout_s=30) == about(40.201)
    assert bounds.takeover_s(TRIO, EXACT, fence_timeout_s=30) == about(10.201)
    assert bounds.takeover_s(replace(PAIR, has_fence=True), EXACT, fence_timeout_s=5) == about(
        15.201
    )


def test_in_a_plain_pair_silence_is_the_vote_or_nothing_is() -> None:
    assert bounds.takeover_s(PAIR, SLOW) == about(10.201 + 0.1 + 0.4 + 2 * 0.2)
    assert bounds.takeover_s(CAREFUL, EXACT) == NEVER_S
    fenced = replace(CAREFUL, has_fence=True)
    assert bounds.takeover_s(fenced, EXACT, fence_timeout_s=7) == about(17.201)


def test_a_node_that_boots_alone_asks_the_arbiter_or_waits_for_its_grace() -> None:
    assert bounds.lone_start_s(TRIO, SLOW) == about(10.201 + 0.4 + 2 * 0.1 + 2 * 0.2)
    assert bounds.lone_start_s(PAIR, EXACT) == about(20.2)
    assert bounds.lone_start_s(replace(PAIR, startup_grace_period_s=1), EXACT) == about(10.201)
    fenced = replace(PAIR, has_fence=True)
    assert bounds.lone_start_s(fenced, EXACT, fence_timeout_s=5) == about(30.3 + 5)
    first = replace(fenced, role=Role.PRIMARY)
    assert bounds.lone_start_s(first, EXACT, fence_timeout_s=5) == about(20.2 + 5)


def test_an_isolated_active_stops_before_its_lease_ends_and_before_anybody_starts() -> None:
    begins_s, ends_s = bounds.stop_window_s(TRIO)

    assert (begins_s, ends_s) == (about(7.4), about(9.9))
    assert bounds.stop_window_s(PAIR) == (NEVER_S, NEVER_S)


@pytest.mark.parametrize("timeout_s", [1.0, 2.0, 3.0, 10.0, 3600.0])
@pytest.mark.parametrize("drift", [0.0, 0.01, 0.05])
def test_nobody_may_start_before_the_old_one_has_stopped(timeout_s: float, drift: float) -> None:
    """Real time, from when the last answered beat left: ours may run slow, the voter's fast."""
    policy = replace(TRIO, heartbeat_timeout_s=timeout_s, clock_drift=drift)

    stopped_s = bounds.stop_window_s(policy)[1] * (1 + drift)
    promise_ends_s = policy.promise_length_s / (1 + drift)

    assert stopped_s <= promise_ends_s
    assert promise_ends_s <= bounds.takeover_s(policy, EXACT)


def test_an_agent_may_be_away_until_it_would_be_killed() -> None:
    assert bounds.absence_s(TRIO) == about(9.9 - 1 - 1)
    assert bounds.absence_s(PAIR) == about(9.0)


def test_with_an_arbiter_never_two_while_agent_or_guard_is_there() -> None:
    assert bounds.overlap_s(TRIO) == 0
    assert bounds.overlap_s(TRIO, unguarded_s=0.5) == about(1.5)
    assert bounds.overlap_s(PAIR) == NEVER_S
    assert bounds.overlap_s(CAREFUL) == 0
    assert bounds.overlap_s(replace(PAIR, has_fence=True)) == 0


def test_a_short_lease_needs_machines_that_keep_up() -> None:
    short = replace(
        TRIO,
        heartbeat_timeout_s=1,
        heartbeat_interval_s=0.1,
        stop_budget_s=0.5,
        kill_budget_s=0.25,
    )

    assert bounds.fits(short, Measured())
    assert bounds.fits(TRIO, SLOW)
    for slow in (
        Measured(rtt_s=0.2),
        Measured(fsync_s=0.2),
        Measured(wake_s=0.2),
        Measured(kill_s=0.25),
    ):
        assert not bounds.fits(short, slow)
