"""fence_command on whole clusters: it succeeds, fails, is late, hangs, or lies."""

import pytest

from failover_agent.core.state import Phase
from failover_agent.simulation.fence import TIMEOUT_S, Outcome
from failover_agent.simulation.product import Product
from tests.simulation.pairs import STARTUP_GRACE, Pair, a_pair_at_rest
from tests.simulation.pairs import T as PLAIN_T
from tests.simulation.trios import INTERVAL, TAKEOVER, T, Trio, a_trio_at_rest

pytestmark = pytest.mark.simulation

FENCED = 2.5
"""A fence that succeeds takes no longer."""


def runs_of(pair: Pair, host: str) -> int:
    """How often its fence_command ran."""
    return pair.world.hosts[host].fence.runs


# --- beside an arbiter ----------------------------------------------------------------------------


def test_a_first_start_and_a_handover_fence_nobody(core: Product) -> None:
    for etcd in (False, True):
        trio = a_trio_at_rest(core, etcd=etcd, has_fence=True)
        trio.world.terminate("primary")
        trio.serves_within("backup", 4.0)
        trio.world.start_agent("primary")
        trio.must_go_on("backup", 2 * T)

        assert (runs_of(trio, "primary"), runs_of(trio, "backup")) == (0, 0)
        assert trio.world.hosts["primary"].boot == 1


def test_a_peer_that_stops_what_docker_started_is_not_fenced_in_the_middle_of_it(
    core: Product,
) -> None:
    trio = Trio(core, has_fence=True)
    trio.boot_all()
    for name in ("db", "web"):
        trio.world.run_by_hand("backup", name)
        trio.world.hosts["backup"].engine.containers[name].restart_policy = "always"
    trio.world.run_by_hand("primary", "db")
    trio.somebody_serves_within(STARTUP_GRACE + 3 * T)

    assert (runs_of(trio, "primary"), runs_of(trio, "backup")) == (0, 0)


def test_the_silent_peer_is_fenced_before_anything_is_started(core: Product) -> None:
    trio = a_trio_at_rest(core, has_fence=True)
    trio.isolate("primary")
    trio.phase_within("backup", Phase.FENCING, TAKEOVER)
    assert not trio.world.runs("backup")

    trio.serves_within("backup", FENCED + 1.0)
    assert not trio.world.hosts["primary"].is_on


def test_what_is_not_fenced_is_not_succeeded(core: Product) -> None:
    for outcome in (Outcome.FAILS, Outcome.HANGS):
        trio = a_trio_at_rest(core, has_fence=True)
        trio.world.hosts["backup"].fence.outcome = outcome
        trio.world.crash_host("primary")
        trio.running_s(T + 2 * TIMEOUT_S)
        assert not trio.world.runs("backup")
        assert "fence_failed" in trio.world.agent("backup").state.alarms
        assert runs_of(trio, "backup") > 1

        trio.world.hosts["backup"].fence.outcome = Outcome.SUCCEEDS
        trio.serves_within("backup", 2 * TIMEOUT_S + FENCED + 8.0)


def test_a_peer_that_is_back_and_votes_needs_no_fence(core: Product) -> None:
    trio = a_trio_at_rest(core, has_fence=True)
    trio.world.hosts["backup"].fence.outcome = Outcome.FAILS
    trio.world.crash_host("primary")
    trio.phase_within("backup", Phase.FENCING, TAKEOVER)
    trio.world.boot("primary")

    trio.somebody_serves_within(STARTUP_GRACE + 2 * T)


def test_a_late_fence_hits_one_that_stands_by_and_changes_nothing(core: Product) -> None:
    trio = a_trio_at_rest(core, has_fence=True)
    trio.world.hosts["backup"].fence.outcome = Outcome.LATE
    trio.isolate("primary")
    trio.phase_within("backup", Phase.FENCING, TAKEOVER)
    trio.running_s(TIMEOUT_S + INTERVAL)
    trio.heal_wires()
    trio.world.hosts["backup"].fence.outcome = Outcome.SUCCEEDS
    trio.running_s(2 * TIMEOUT_S + 2 * T)
    for host in trio.world.hosts:
        if not trio.world.hosts[host].is_on:
            trio.world.boot(host)

    server = trio.somebody_serves_within(STARTUP_GRACE + 3 * T + FENCED)
    trio.must_go_on(server, 2 * T)


def test_a_lease_that_ends_while_the_fence_runs_starts_nothing(core: Product) -> None:
    trio = a_trio_at_rest(core, has_fence=True)
    trio.world.hosts["backup"].fence.outcome = Outcome.HANGS
    trio.world.crash_host("primary")
    trio.phase_within("backup", Phase.FENCING, TAKEOVER)
    trio.world.cut("backup", "witness")
    trio.running_s(2 * TIMEOUT_S)

    assert not trio.world.runs("backup")
    assert trio.world.phase("backup") is not Phase.FENCING


# --- in a plain pair ------------------------------------------------------------------------------


def test_in_a_plain_pair_a_cut_wire_makes_no_two_where_one_is_fenced(core: Product) -> None:
    pair = a_pair_at_rest(core, has_fence=True)
    pair.world.cut("primary", "backup")
    pair.serves_within("backup", 1.03 * PLAIN_T + FENCED + 1.5)
    assert not pair.world.hosts["primary"].is_on

    pair.world.mend("primary", "backup")
    pair.world.boot("primary")
    pair.running_s(STARTUP_GRACE + 3 * PLAIN_T)
    assert pair.serves("backup")


def test_in_a_plain_pair_a_fence_that_failed_has_fenced_nobody(core: Product) -> None:
    for outcome in (Outcome.FAILS, Outcome.HANGS):
        pair = a_pair_at_rest(core, has_fence=True)
        pair.world.hosts["backup"].fence.outcome = outcome
        done_since = pair.diary.since()
        pair.world.cut("primary", "backup")
        pair.running_s(3 * PLAIN_T + 2 * TIMEOUT_S)
        pair.world.mend("primary", "backup")
        pair.running_s(2 * PLAIN_T)

        assert done_since() == []
        assert runs_of(pair, "backup") > 1


def test_in_a_plain_pair_two_that_boot_while_cut_do_not_fence_each_other(core: Product) -> None:
    pair = Pair(core, has_fence=True)
    pair.world.cut("primary", "backup")
    pair.world.boot("primary")
    pair.world.boot("backup")
    pair.serves_within("primary", STARTUP_GRACE + PLAIN_T + FENCED + 2.0)

    assert runs_of(pair, "backup") == 0
