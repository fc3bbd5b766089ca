"""With a real etcd as the arbiter: one member beside the nodes, and a member on each host."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.pair import LIMIT_S, alarms, pass_time
from tests.lab.trio import Trio
from tests.lab.truth import now_s
from tests.lab.until import until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

TIMEOUT_S = 3.0
SETTINGS: dict[str, Any] = {"heartbeat_timeout": TIMEOUT_S, "restart_grace_period": 30.0}


@pytest.fixture(scope="module")
def one() -> Iterator[Trio]:
    with Trio.build("etcd", **SETTINGS) as trio:
        yield trio


@pytest.fixture(scope="module")
def three() -> Iterator[Trio]:
    with Trio.build("three etcd", **SETTINGS) as trio:
        yield trio


class TestOneMember:
    """On the third host."""

    @pytest.fixture
    def shared(self, one: Trio) -> Trio:
        return one

    def test_a_crashed_active_is_replaced_in_time(self, trio: Trio) -> None:
        active, standby = trio.ends()
        since_s = now_s()
        active.crash()
        trio.wait_back(since_s, "etcd: host crash", standby)
        assert trio.settle() is standby

    def test_an_isolated_active_stops_and_the_other_takes_over_in_time(self, trio: Trio) -> None:
        active, standby = trio.ends()
        since_s = now_s()
        trio.lab.network.isolate(active)
        trio.wait_back(since_s, "etcd: the active isolated", standby)
        assert trio.settle() is standby

    def test_a_cut_between_the_nodes_moves_nothing(self, trio: Trio) -> None:
        active, standby = trio.ends()
        since_s = now_s()
        trio.lab.network.cut_both(active, standby)
        trio.watch_unmoved(active, 1.5 * TIMEOUT_S, since_s)

    @pytest.mark.parametrize("how", ["kill", "freeze"])
    def test_etcd_that_is_killed_or_frozen_moves_nothing_and_is_an_alarm(
        self, trio: Trio, how: str
    ) -> None:
        active, _ = trio.ends()
        assert trio.etcd is not None
        [member] = trio.etcd.members
        since_s = now_s()
        getattr(member, how)()
        until(lambda: "redundancy_lost" in alarms(active), LIMIT_S, "the alarm")
        trio.watch_unmoved(active, TIMEOUT_S, since_s)
        assert trio.settle() is active
        assert not trio.lab.truth.starts(since_s)

    def test_a_power_cut_of_all_ends_with_one_active(self, trio: Trio) -> None:
        nodes = [*trio.nodes, trio.lab.c]
        for node in nodes:
            node.crash()
        for node in nodes:
            trio.come_back(node)
        trio.settle()


class TestThreeMembers:
    """One on each host: the active one's own is lost with it."""

    @pytest.fixture
    def shared(self, three: Trio) -> Trio:
        return three

    def test_a_crashed_active_is_replaced_in_time_by_two_members_of_three(self, trio: Trio) -> None:
        """With it goes a member, at times the leader: etcd's own election adds to the bound."""
        active, standby = trio.ends()
        since_s = now_s()
        active.crash()
        trio.wait_back(since_s, "three etcd: host crash", standby, more_s=TIMEOUT_S)
        assert trio.settle() is standby

    def test_a_member_that_is_killed_or_frozen_moves_nothing(self, trio: Trio) -> None:
        active, _ = trio.ends()
        assert trio.etcd is not None
        since_s = now_s()
        for member in trio.etcd.members:
            member.freeze()
            pass_time(0.8 * TIMEOUT_S)
            member.thaw()
            trio.etcd.wait_healthy()
        trio.watch_unmoved(active, 0.5 * TIMEOUT_S, since_s)

    def test_without_its_quorum_nothing_moves_and_nobody_takes_over(self, trio: Trio) -> None:
        active, standby = trio.ends()
        assert trio.etcd is not None
        others = [member for member in trio.etcd.members if member.host is not standby.host]
        since_s = now_s()
        for member in others:
            member.freeze()
        until(lambda: "redundancy_lost" in alarms(active), LIMIT_S, "the alarm")
        trio.watch_unmoved(active, TIMEOUT_S, since_s)
        active.crash()
        until(lambda: "peer_silent" in alarms(standby), LIMIT_S, "the peer is missed")
        pass_time(TIMEOUT_S)
        assert not trio.lab.truth.running_now(), "no majority, no takeover"
        thawed_s = now_s()
        for member in others:
            if member.is_running():
                member.thaw()
        trio.wait_back(thawed_s, "three etcd: a quorum again", standby, more_s=TIMEOUT_S)
        assert trio.settle() is standby
