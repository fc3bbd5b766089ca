"""The thirteen histories that broke weaker wordings, at the end of section 4 of the design.

Two at once unless said otherwise; the judges of the world see that. Each test is named after its
history, and passes with what was built instead.
"""

from dataclasses import replace
from typing import Any

import pytest

from failover_agent.core.effects import SendVoteRequest, StartContainers
from failover_agent.core.messages import VoteKind
from failover_agent.core.policy import LoneStart, Role
from failover_agent.core.state import Phase
from failover_agent.simulation.facts import Fact, Ordered
from failover_agent.simulation.fence import Outcome
from failover_agent.simulation.product import Product
from failover_agent.simulation.world import World, build_trio
from tests.simulation.pairs import Pair, make_policy
from tests.simulation.trios import (
    INTERVAL,
    START,
    STARTUP_GRACE,
    STOP_AFTER,
    TAKEOVER,
    T,
    Trio,
    a_trio_at_rest,
    lease_policy,
)

pytestmark = pytest.mark.simulation

TWICE: dict[str, Any] = {
    "heartbeat_timeout_s": 2 * T,
    "stop_budget_s": 2.0,
    "kill_budget_s": 0.8,
}
"""T raised on the primary."""

AS_BEFORE: dict[str, Any] = {
    "heartbeat_timeout_s": T,
    "stop_budget_s": 1.0,
    "kill_budget_s": 0.4,
}


def test_history_1_t_raised_on_one_node_only(core: Product) -> None:
    for etcd in (False, True):
        trio = a_trio_at_rest(core, etcd=etcd, backup=AS_BEFORE, **TWICE)
        trio.world.cut("primary", "backup")
        trio.running_s(2 * T + 1.0)
        trio.isolate("primary")

        took_s = trio.serves_within("backup", 2 * T * 1.03 + 2 * INTERVAL + 2 * START + 0.5)
        assert took_s > T + INTERVAL
        trio.heal_wires()
        trio.must_go_on("backup", 3 * T)


def test_history_2_both_nodes_started_as_primary(core: Product) -> None:
    world = build_trio("two primaries", lease_policy(), core=core, backup={"role": Role.PRIMARY})
    for name, other in (("primary", "backup"), ("backup", "primary")):
        world.hosts[name].endpoints = {Role.BACKUP: other, Role.WITNESS: "witness"}
    trio = Trio(core)
    trio.settle(world)
    trio.boot_all()
    trio.running_s(3 * STARTUP_GRACE + 3 * T)
    assert trio.world.agent("primary").state.alarms
    assert trio.world.agent("backup").state.alarms

    trio.world.cut("primary", "backup")
    trio.running_s(4 * T)
    (active,) = (name for name in world.hosts if world.serves(name))
    trio.isolate(active)
    trio.running_s(4 * T)
    trio.heal_wires()
    trio.somebody_serves_within(4 * T)


def test_history_3_a_fence_success_is_no_vote_beside_an_arbiter(core: Product) -> None:
    trio = a_trio_at_rest(core, has_fence=True)
    trio.world.hosts["backup"].fence.outcome = Outcome.LIES
    done_since = trio.diary.since()
    trio.world.cut("primary", "backup")
    trio.running_s(3 * T)
    trio.world.cut("backup", "witness")
    trio.running_s(3 * T)

    assert done_since() == []
    trio.heal_wires()
    trio.must_go_on("primary", 2 * T)


class FreezesInStart:
    """Agent and guard of the primary are frozen right before its first start call is answered."""

    def __init__(self, trio: Trio) -> None:
        self._world = trio.world
        trio.world.chronicle.watchers.append(self)

    def see(self, fact: Fact) -> None:
        match fact:
            case Ordered("primary", StartContainers()):
                self._world.scheduler.after(0.69, self._freeze)
            case _:
                pass

    def _freeze(self) -> None:
        self._world.freeze("primary")
        self._world.freeze_guard("primary")


def test_history_4_an_agent_frozen_before_a_start_is_thawed_after_its_lease(core: Product) -> None:
    """Its guard is frozen with it, so nothing but the deadline of the start call is left (H4)."""
    trio = Trio(core)
    trio.take(0.7, 0.3)
    FreezesInStart(trio)
    trio.boot_all()
    trio.world.run_until(lambda: trio.world.serves("backup"), 3 * STARTUP_GRACE + 2 * T + TAKEOVER)
    done_since = trio.diary.since()
    trio.world.thaw("primary")
    trio.running_s(INTERVAL)
    trio.world.thaw_guard("primary")
    trio.running_s(2.0)

    assert trio.serves("backup")
    assert ("+", "primary", "web") not in done_since()


def test_history_4_with_a_guard_the_frozen_agent_is_killed_first(core: Product) -> None:
    trio = Trio(core)
    trio.take(0.8, 0.3)
    trio.boot_all()
    trio.phase_within("primary", Phase.PROMOTING, 3 * STARTUP_GRACE + 2 * T)
    trio.running_s(0.4)
    agent = trio.world.agent("primary")
    trio.world.freeze("primary")
    trio.running_s(T)

    assert agent.is_dead
    assert trio.diary.lines[:2] == [("+", "primary", "db"), ("-", "primary", "db")]
    server = trio.somebody_serves_within(TAKEOVER + 2.0)
    trio.must_go_on(server, 2 * T)


def test_history_5_a_witness_back_with_an_empty_disk_while_the_agent_restarts_and_the_wire_is_cut(
    core: Product,
) -> None:
    trio = a_trio_at_rest(core)
    done_since = trio.diary.since()
    trio.world.cut("primary", "backup")
    trio.running_s(1.5 * T)
    trio.world.kill_agent("primary")
    trio.restart_witness(empty=True)
    trio.running_s(STOP_AFTER - 2 * INTERVAL)
    trio.world.start_agent("primary")
    trio.must_go_on("primary", 3 * T)

    assert done_since() == []


def test_history_6_guard_and_agent_killed_late_in_a_lease_and_back_a_second_later(
    core: Product,
) -> None:
    trio = a_trio_at_rest(core)
    trio.isolate("primary")
    trio.running_s(STOP_AFTER - INTERVAL - 0.1)
    trio.world.kill_agent("primary")
    trio.world.kill_guard("primary", supervisor_s=1.0)

    trio.serves_within("backup", TAKEOVER)
    trio.heal_wires()
    trio.must_go_on("backup", 2 * T)


def test_history_7_only_the_wire_between_the_nodes_is_cut(core: Product) -> None:
    """Weaker wordings: an outage."""
    for etcd in (False, True):
        for both_ways in (True, False):
            for one, other in (("primary", "backup"), ("backup", "primary")):
                trio = a_trio_at_rest(core, etcd=etcd)
                done_since = trio.diary.since()
                trio.world.cut(one, other, both_ways=both_ways)
                trio.must_go_on("primary", 4 * T)
                trio.heal_wires()
                trio.must_go_on("primary", 2 * T)
                assert done_since() == []


class CutsAtCandidacy:
    """The backup is cut off at the very moment at which it asks for a term it has taken."""

    def __init__(self, trio: Trio) -> None:
        self._trio = trio
        self.has_cut = False
        trio.world.chronicle.watchers.append(self)

    def see(self, fact: Fact) -> None:
        match fact:
            case Ordered("backup", SendVoteRequest(request=request)):
                if request.kind is VoteKind.CANDIDACY and not self.has_cut:
                    self.has_cut = True
                    self._trio.isolate("backup")
            case _:
                pass


def test_history_8_that_wire_is_healed_and_then_the_witness_dies(core: Product) -> None:
    """Weaker wordings: an outage, where the backup has seen a term above that of the holder."""
    trio = a_trio_at_rest(core)
    trio.isolate("primary")
    cuts = CutsAtCandidacy(trio)
    trio.world.run_until(lambda: cuts.has_cut, 2 * T)
    trio.world.mend("primary", "witness")
    trio.world.run_until(lambda: trio.serves("primary"), 2 * T)
    trio.heal_wires()
    trio.must_go_on("primary", 2 * T)

    trio.world.crash_witness()
    trio.must_go_on("primary", 4 * T)


def test_history_9_an_active_that_is_heard_but_hears_nothing(core: Product) -> None:
    """Weaker wordings: nobody active at the end."""
    trio = a_trio_at_rest(core)
    for other in ("backup", "witness"):
        trio.world.cut(other, "primary", both_ways=False)

    trio.serves_within("backup", STOP_AFTER + 2 * INTERVAL + 2 * START + 2.0)
    trio.must_go_on("backup", 3 * T)
    trio.heal_wires()
    trio.must_go_on("backup", 3 * T)


def test_history_10_a_standbys_report_is_no_renewal(core: Product) -> None:
    """Weaker wordings: nobody active for ever, where the last holder is back and cannot lead."""
    for etcd in (False, True):
        trio = a_trio_at_rest(core, etcd=etcd)
        trio.world.crash_host("primary")
        trio.running_s(INTERVAL)
        trio.world.boot("primary", agent=False)
        trio.world.remove_container("primary", "db")
        trio.world.start_agent("primary")

        trio.serves_within("backup", STARTUP_GRACE + 2 * T)


def test_history_11_peer_and_arbiter_restarted_within_one_t(core: Product) -> None:
    trio = a_trio_at_rest(core, backup=AS_BEFORE, **TWICE)
    trio.isolate("primary")
    trio.world.kill_agent("backup")
    trio.world.start_agent("backup")
    trio.restart_witness()

    trio.serves_within("backup", 2 * T * 1.03 + 2 * INTERVAL + 2 * START + 0.5)


def test_history_12_equal_terms_at_first_contact_in_a_plain_pair(core: Product) -> None:
    pair = Pair(core, lone_start=LoneStart.START)
    pair.world.cut("primary", "backup")
    pair.world.boot("primary")
    pair.world.boot("backup")
    pair.running_s(STARTUP_GRACE + 2 * T)
    pair.world.mend("primary", "backup")

    pair.serves_within("primary", 3.0)
    pair.running_s(2 * T)
    assert pair.serves("primary")


def with_its_arbiter(world: World, name: str) -> None:
    """The agent comes back with an arbiter in its configuration."""
    host = world.hosts[name]
    world.kill_agent(name)
    lease = lease_policy(role=host.policy.role)
    host.policy = replace(lease, fingerprint="with an arbiter")
    world.start_agent(name)


def test_history_13_the_arbiter_added_to_one_nodes_configuration_only(core: Product) -> None:
    trio = Trio(core)
    world = build_trio("half", make_policy(heartbeat_interval_s=INTERVAL), core=core)
    trio.settle(world)
    trio.boot_all()
    trio.serves_within("primary", 3 * STARTUP_GRACE + 2 * T)
    trio.running_s(STARTUP_GRACE)
    done_since = trio.diary.since()
    with_its_arbiter(world, "backup")
    trio.running_s(2 * T)
    assert "fingerprint_differs" in world.agent("primary").state.alarms
    world.cut("primary", "backup")
    trio.running_s(4 * T)
    world.mend("primary", "backup")
    trio.running_s(2 * T)
    assert done_since() == []

    with_its_arbiter(world, "primary")
    trio.somebody_serves_within(STARTUP_GRACE + 4 * T)
    trio.running_s(2 * T)
    trio.somebody_serves_within(T)
