"""Alarms and sentences that must not frighten without need: the first start, a peer that ends."""

from dataclasses import replace
from typing import Any

import pytest

from failover_agent.core import following, reports
from failover_agent.core.effects import StopContainers
from failover_agent.core.messages import Refusal, VoteKind
from failover_agent.core.policy import LoneStart, PartitionPolicy
from failover_agent.core.state import ContainerState, Durable, Phase, Readiness, Reason
from tests.unit.core.builders import (
    BACKUP,
    START_S,
    TERM,
    THE_BACKUP,
    THE_PRIMARY,
    Node,
    a_lonely_standby,
    a_standby,
    active,
    alarms,
    all_down,
    all_up,
    changed,
    held_by,
    of_kind,
    peer_sender,
    policy,
    starting,
)
from tests.unit.core.trio import begun, trio, witness_is_free

NEW = {"term": 0, "holder": None, "released": True}
"""What a node says whose pair was never led."""


def refused_primary() -> Node:
    """Its containers ran before there were agents; the backup just came, and may not vote yet."""
    node = starting(policy(), record_lost=True, boot_is_new=False)
    node.takes(all_up(node))
    node.waits(12.0)
    node.takes(node.beat(**NEW))
    node.takes(node.vote(VoteKind.POLL, Refusal.JUST_STARTED, remaining_s=9.0))
    assert node.state.phase is Phase.STANDBY
    return node


def left_running(node: Node) -> tuple[str, ...]:
    return following.left_running(node.state, node.now, node.policy)


# --- what runs here before somebody leads ---------------------------------------------------------


def test_what_goes_on_running_on_the_host_that_is_to_lead_is_no_stray() -> None:
    node = refused_primary()

    step = node.lives(3.0, node.beat(**NEW))

    assert node.state.phase is Phase.STANDBY
    assert not of_kind(step, StopContainers)
    assert left_running(node) == ("db", "web")
    assert "stray_container" not in alarms(node)


def test_what_runs_on_a_standby_whose_peer_is_silent_is_alarmed_though_nothing_is_stopped() -> None:
    node = a_lonely_standby(policy(BACKUP, partition_policy=PartitionPolicy.CONSISTENCY))
    node.waits(1.0)

    step = node.takes(changed("db"))

    assert not of_kind(step, StopContainers)
    assert "stray_container" in alarms(node), "the peer may run it too"


def test_what_is_to_be_stopped_does_not_go_on() -> None:
    node = a_standby()
    node.takes(changed("db"))

    assert left_running(node) == ()
    assert "stray_container" in alarms(node)


def test_what_is_being_stopped_does_not_go_on_though_it_might_by_now() -> None:
    node = a_standby()
    node.takes(changed("db"))

    node.takes(node.released())
    node.takes(node.beat())

    assert node.state.stop_job is not None
    assert left_running(node) == ()


def test_a_starting_node_of_a_plain_pair_leaves_what_runs_and_a_leader_is_asked_nothing() -> None:
    node = starting(policy(), boot_is_new=False)
    node.takes(all_up(node))

    assert left_running(node) == ("db", "web")
    assert left_running(active()) == ()


def test_with_a_lease_only_what_may_run_without_one_goes_on() -> None:
    kept = begun(trio(), durable=Durable(), record_lost=True)
    kept.takes(all_up(kept))
    booted = begun(trio(), durable=Durable(), record_lost=True, boot_is_new=True)
    booted.takes(all_up(booted))

    assert left_running(kept) == ("db", "web")
    assert left_running(booted) == ()


def test_on_the_standby_that_is_to_lead_with_a_lease_nothing_is_a_stray() -> None:
    node = begun(trio(), durable=Durable(), record_lost=True)
    node.takes(all_up(node), witness_is_free(node))
    node.waits(11.0)
    node.takes(node.beat(**NEW), witness_is_free(node))
    node.takes(node.vote(VoteKind.POLL, Refusal.JUST_STARTED, remaining_s=9.0))

    assert "stray_container" not in alarms(node)


@pytest.mark.parametrize(
    "says",
    [
        {"phase": Phase.DEMOTING, "running": 2, "holder": THE_PRIMARY, "term": TERM},
        {**NEW, "running": 2},
        {**NEW, "phase": Phase.STARTING, "running": None},
    ],
    ids=["it stops what it led", "it runs it too", "it does not see its containers"],
)
def test_what_runs_here_while_it_may_run_there_is_alarmed(says: dict[str, Any]) -> None:
    node = a_standby()
    node.takes(node.beat(**says), changed("db"))

    assert left_running(node) == ()
    assert "stray_container" in alarms(node)


def test_at_a_first_start_with_a_lease_both_may_run_it_and_neither_calls_that_calm() -> None:
    node = begun(trio(), durable=Durable(), record_lost=True)
    node.takes(all_up(node))
    assert left_running(node) == ("db", "web"), "the peer was never heard"

    node.takes(node.beat(**NEW, running=2))

    assert left_running(node) == ()


def test_what_the_peer_held_when_we_heard_it_last_it_may_run_still() -> None:
    node = starting(policy(), held_by(THE_BACKUP), boot_is_new=False)
    node.takes(all_up(node))

    assert left_running(node) == ()


# --- what a starting node waits for ---------------------------------------------------------------


def wait_of(node: Node) -> tuple[str, float | None] | None:
    return following.wait_for_the_peer(node.state, node.now, node.policy)


def test_a_node_that_starts_alone_waits_for_the_grace() -> None:
    node = starting()
    node.takes(all_down(node))
    node.waits(5.0)

    assert wait_of(node) == ("startup_grace_period", START_S + 20.0)


def test_where_silence_takes_longer_to_be_known_it_is_what_is_waited_for() -> None:
    node = starting(policy(startup_grace_period_s=1.0))
    node.takes(all_down(node))
    node.waits(5.0)

    wait = wait_of(node)
    assert wait is not None
    assert wait[0] == "heartbeat_timeout"


def test_a_node_that_does_not_start_alone_waits_without_an_end() -> None:
    alone = starting(policy(BACKUP), record_lost=True)
    consistent = starting(policy(partition_policy=PartitionPolicy.CONSISTENCY), held_by(THE_BACKUP))
    allowed = starting(policy(BACKUP, lone_start=LoneStart.START), record_lost=True)
    for node in (alone, consistent, allowed):
        node.takes(all_down(node))

    assert wait_of(alone) == ("lone_start", None)
    assert wait_of(consistent) == ("partition_policy", None)
    assert wait_of(allowed) == ("startup_grace_period", START_S + 20.0)


def test_nobody_waits_who_heard_the_peer_or_whose_time_is_over_or_has_a_lease_to_ask_for() -> None:
    heard = starting(policy(), record_lost=True)
    heard.takes(all_down(heard), heard.beat(**NEW, phase=Phase.STARTING))
    unable = starting()
    unable.waits(5.0)
    late = starting()
    late.takes(all_down(late))
    late.waits(25.0)
    held = starting(policy(BACKUP), held_by(THE_PRIMARY, hold=True))

    assert [node.state.phase for node in (heard, unable, held)] == [Phase.STARTING] * 3
    assert [wait_of(node) for node in (heard, unable, held)] == [None] * 3
    assert wait_of(a_standby()) is None
    assert wait_of(begun(trio(), record_lost=True)) is None


# --- a peer that said that it ends ----------------------------------------------------------------


def taker() -> Node:
    """It took over from a peer whose agent was told to stop, and still hears it."""
    node = a_standby()
    node.takes(node.asked(VoteKind.PREPARE, TERM, reason=Reason.AGENT_STOPPING))
    node.takes(node.released(reason=Reason.AGENT_STOPPING))
    node.takes(node.beat(holder=BACKUP))
    return node


def test_a_peer_that_released_because_it_stops_is_not_counted_on() -> None:
    node = active()
    assert "redundancy_lost" not in alarms(node)

    node.takes(node.released(term=1, reason=Reason.AGENT_STOPPING))

    assert reports.is_ending(node.state.peers[node.peer.role])
    alarm = node.state.alarms["redundancy_lost"]
    assert alarm.sentence == "the backup is not ready: its agent was told to stop"


def test_another_run_of_it_is_counted_on_again() -> None:
    node = taker()
    peer = node.peer.role
    assert reports.is_ending(node.state.peers[peer])

    node.takes(node.beat(sender=peer_sender(node, run_id="run-2")))

    assert not reports.is_ending(node.state.peers[peer])


def test_one_that_gave_up_for_another_reason_does_not_end() -> None:
    node = a_standby()

    node.takes(node.released(reason=Reason.CONTAINER_DOWN))

    assert not reports.is_ending(node.state.peers[node.peer.role])


def test_a_candidate_that_gives_up_does_not_end_though_it_asked_because_another_stopped() -> None:
    node = a_standby()
    given_up = node.released(reason=Reason.AGENT_STOPPING)

    node.takes(replace(given_up, request=replace(given_up.request, to=None)))

    assert not reports.is_ending(node.state.peers[node.peer.role])


def test_what_a_peer_that_ends_says_changes_nothing_about_who_may_lead() -> None:
    node = taker()

    peer = node.state.peers[node.peer.role]

    assert peer.readiness is Readiness.READY
    assert reports.is_able(peer, node.now, node.policy)
    assert node.state.containers["db"].state is ContainerState.DOWN
