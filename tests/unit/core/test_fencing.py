"""fence_command: after the majority beside an arbiter, in the place of a vote in a plain pair."""

from __future__ import annotations

from failover_agent.core.effects import ArmGuard, RunFence, SendVoteRequest, StartContainers
from failover_agent.core.events import FenceFinished, GuardArmed, StopRequested
from failover_agent.core.messages import Refusal, VoteKind
from failover_agent.core.policy import LoneStart, PartitionPolicy, Role
from failover_agent.core.state import Durable, Phase, Reason
from tests.unit.core.builders import (
    BACKUP,
    PRIMARY,
    THE_BACKUP,
    THE_PRIMARY,
    Node,
    a_lonely_standby,
    a_standby,
    alarms,
    all_down,
    engine_lost,
    held_by,
    held_term,
    of_kind,
    phases,
    policy,
    sentences,
    starting,
)
from tests.unit.core.trio import (
    LEASE_S,
    a_candidate_of_three,
    a_standby_of_three,
    fenced,
    fencing_winner,
    goes_on,
    peer_renews,
    phase,
    trio,
    winner,
    witness_is_free,
    witness_renews,
    witness_votes,
)

FAILED = "exit status 1: no route to the switch"


def fencing_pair(role: Role = BACKUP, **changes: object) -> Node:
    """A plain pair with a fence_command, whose active primary has just become silent."""
    node = a_lonely_standby(policy(role, has_fence=True, **changes))
    node.waits(0.1)
    return node


# --- with an arbiter ------------------------------------------------------------------------------


def test_with_an_arbiter_the_fence_runs_after_the_majority_is_won() -> None:
    node = a_standby_of_three(trio(BACKUP, has_fence=True))
    goes_on(node, 10.2, witness_is_free)
    polled = node.takes(witness_votes(node, VoteKind.POLL))

    won = node.takes(witness_votes(node, VoteKind.CANDIDACY))

    assert of_kind(polled, RunFence) == []
    assert of_kind(won, RunFence) == [RunFence(6, PRIMARY, Reason.PEER_SILENT)]
    assert phases(won) == [(Phase.FENCING, Reason.PEER_SILENT)]
    assert node.state.is_holding


def test_promotion_waits_for_the_fence_and_then_for_the_guard() -> None:
    node = fencing_winner()
    waiting = goes_on(node, 3.0, witness_renews)
    assert of_kind(waiting, ArmGuard) == []

    armed = node.takes(fenced(node))
    started = node.takes(GuardArmed(held_term(node)))

    assert phases(armed) == [(Phase.PROMOTING, Reason.NOBODY_ACTIVE)]
    assert len(of_kind(armed, ArmGuard)) == 1
    assert of_kind(armed, StartContainers) == []
    assert len(of_kind(started, StartContainers)) == 1


def test_a_peer_that_voted_is_not_fenced() -> None:
    node = a_candidate_of_three(trio(has_fence=True))
    node.takes(node.vote(VoteKind.POLL))

    step = node.takes(node.vote(VoteKind.CANDIDACY))

    assert phases(step) == [(Phase.PROMOTING, Reason.NOBODY_ACTIVE)]
    assert of_kind(step, RunFence) == []


def test_a_peer_that_answers_and_runs_nothing_is_not_fenced_though_its_vote_came_too_late() -> None:
    assert phase(fencing_winner(running=0)) is Phase.PROMOTING
    assert phase(fencing_winner(running=None)) is Phase.FENCING


def test_a_peer_that_answers_has_a_moment_to_stop_what_runs_there_before_it_is_fenced() -> None:
    node = fencing_winner()
    waited = goes_on(node, node.policy.patience_s - 0.1, witness_renews)
    assert of_kind(waited, RunFence) == []
    assert of_kind(goes_on(node, 0.2, witness_renews), RunFence) != []

    node = fencing_winner()
    stopped = node.takes(node.beat(running=0))
    assert phases(stopped) == [(Phase.PROMOTING, Reason.NOBODY_ACTIVE)]
    assert of_kind(stopped, RunFence) == []


def test_a_peer_that_ran_nothing_when_it_was_last_heard_is_fenced_all_the_same() -> None:
    node = a_candidate_of_three(trio(has_fence=True))
    goes_on(node, 4.0, witness_is_free)

    node.takes(witness_votes(node, VoteKind.POLL))
    step = node.takes(witness_votes(node, VoteKind.CANDIDACY))

    assert [fence.target for fence in of_kind(step, RunFence)] == [BACKUP]


def test_the_old_holder_is_not_fenced_when_it_has_given_the_service_back() -> None:
    node = a_standby_of_three(trio(BACKUP, has_fence=True))
    node.takes(node.leading_beat(phase=Phase.DEMOTING), node.released())

    node.takes(witness_votes(node, VoteKind.POLL))
    step = node.takes(witness_votes(node, VoteKind.CANDIDACY))

    assert phases(step) == [(Phase.PROMOTING, Reason.CONTAINER_DOWN)]
    assert of_kind(step, RunFence) == []


def test_a_fence_that_failed_has_fenced_nobody_and_is_tried_again_with_growing_pauses() -> None:
    node = fencing_winner()
    pauses: list[float] = []

    for _ in range(8):
        failed_at_s = node.now
        node.takes(fenced(node, FAILED))
        step = node.takes()
        while not of_kind(step, RunFence):
            step = goes_on(node, 1.0, witness_renews)
            assert node.now < failed_at_s + 100.0
        pauses.append(node.now - failed_at_s)

    assert [round(pause) for pause in pauses] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert phase(node) is Phase.FENCING
    assert "fence_failed" in alarms(node)
    assert any(FAILED in sentence for sentence in sentences(node))


def test_a_failed_fence_starts_nothing() -> None:
    node = fencing_winner()

    step = node.takes(fenced(node, FAILED))

    assert phases(step) == []
    assert of_kind(step, ArmGuard) == []


def test_after_a_failed_fence_a_peer_that_gives_its_vote_after_all_needs_none() -> None:
    node = fencing_winner()
    node.takes(fenced(node, FAILED))

    step = node.takes(peer_renews(node))

    assert phases(step) == [(Phase.PROMOTING, Reason.NOBODY_ACTIVE)]
    assert of_kind(step, RunFence) == []
    assert "fence_failed" not in alarms(node)


def test_a_vote_does_not_end_a_fence_that_runs() -> None:
    node = fencing_winner()
    goes_on(node, node.policy.patience_s, witness_renews)

    step = node.takes(peer_renews(node))

    assert phases(step) == []
    assert node.state.fencing is not None


def test_the_end_of_a_fence_of_another_term_moves_nothing() -> None:
    node = fencing_winner()

    step = node.takes(FenceFinished(held_term(node) - 1, BACKUP, ""))

    assert phases(step) == []
    assert node.state.counters.stale == 1


def test_the_end_of_a_fence_that_nobody_waits_for_moves_nothing() -> None:
    node = winner()

    step = node.takes(FenceFinished(held_term(node), BACKUP, ""))

    assert phases(step) == []
    assert node.state.counters.stale == 1


def test_while_it_fences_it_renews_and_stops_when_the_lease_ends() -> None:
    node = fencing_winner()

    goes_on(node, 30.0, witness_renews)
    assert phase(node) is Phase.FENCING
    step = goes_on(node, LEASE_S)

    assert phases(step)[0] == (Phase.DEMOTING, Reason.LEASE_LOST)
    assert node.state.fencing is None


def test_told_to_stop_while_it_fences_it_gives_up_what_it_has_not_begun() -> None:
    node = fencing_winner()
    goes_on(node, 12.0, witness_renews)

    step = node.takes(StopRequested())

    assert phases(step) == [(Phase.DEMOTING, Reason.AGENT_STOPPING)]


def test_an_active_peer_in_a_newer_term_stops_a_node_that_fences() -> None:
    node = fencing_winner()

    step = node.takes(node.leading_beat(held_term(node) + 1))

    assert phases(step) == [(Phase.DEMOTING, Reason.NEWER_TERM)]


# --- a plain pair ---------------------------------------------------------------------------------


def test_in_a_plain_pair_the_silent_peer_is_fenced_before_anything_is_taken() -> None:
    node = a_lonely_standby(policy(BACKUP, has_fence=True))

    step = node.waits(0.1)

    assert phases(step) == [
        (Phase.ACQUIRING, Reason.PEER_SILENT),
        (Phase.FENCING, Reason.PEER_SILENT),
    ]
    assert of_kind(step, RunFence) == [RunFence(6, PRIMARY, Reason.PEER_SILENT)]
    assert not node.state.is_holding
    assert node.state.durable.term == 5


def test_in_a_plain_pair_the_success_of_the_fence_stands_for_the_vote() -> None:
    node = fencing_pair()

    step = node.takes(fenced(node))

    assert phases(step) == [(Phase.PROMOTING, Reason.PEER_SILENT)]
    assert held_term(node) == 6
    assert len(of_kind(step, StartContainers)) == 1


def test_in_a_plain_pair_silence_alone_is_no_vote_where_there_is_a_fence() -> None:
    node = fencing_pair()

    step = node.waits(60.0)

    assert phases(step) == []
    assert not node.state.is_holding


def test_under_consistency_too_the_fence_stands_for_the_vote() -> None:
    node = fencing_pair(partition_policy=PartitionPolicy.CONSISTENCY)

    step = node.takes(fenced(node))

    assert phases(step) == [(Phase.PROMOTING, Reason.PEER_SILENT)]


def test_in_a_plain_pair_too_a_failed_fence_is_tried_again_and_alarmed() -> None:
    node = fencing_pair()

    early = node.takes(fenced(node, FAILED))
    late = node.waits(1.1)

    assert phases(early) == []
    assert len(of_kind(late, RunFence)) == 1
    assert "fence_failed" in alarms(node)
    node.takes(fenced(node))
    assert phase(node) is Phase.PROMOTING


def test_a_peer_that_is_heard_again_and_votes_needs_no_fence() -> None:
    node = fencing_pair()
    node.takes(node.beat(released=True))

    node.takes(node.vote(VoteKind.POLL))
    step = node.takes(node.vote(VoteKind.CANDIDACY))

    assert phase(node) is Phase.PROMOTING
    assert of_kind(step, RunFence) == []
    late = node.takes(FenceFinished(6, PRIMARY, FAILED))
    assert phases(late) == []
    assert node.state.counters.stale == 1


def test_a_peer_that_leads_after_all_ends_the_fencing() -> None:
    node = fencing_pair()

    step = node.takes(node.leading_beat())

    assert phases(step) == [(Phase.STANDBY, Reason.PEER_ACTIVE)]
    assert node.state.fencing is None


def test_a_peer_that_refuses_ends_the_fencing() -> None:
    node = fencing_pair()
    node.takes(node.beat())

    step = node.takes(node.vote(VoteKind.POLL, Refusal.PROMISED, remaining_s=5.0))

    assert phases(step) == [(Phase.STANDBY, Reason.VOTE_REFUSED)]


def test_an_engine_that_dies_ends_the_fencing() -> None:
    node = fencing_pair()

    step = node.takes(engine_lost(None, "db", "web"))

    assert phases(step) == [(Phase.STANDBY, Reason.NOT_ABLE)]
    assert of_kind(node.waits(5.0), RunFence) == []


def test_a_candidate_that_fences_gives_way_to_a_preferred_one() -> None:
    node = fencing_pair()
    node.takes(node.beat(released=True))

    step = node.takes(node.asked(VoteKind.CANDIDACY, 6))

    assert phases(step) == [(Phase.STANDBY, Reason.HIGHER_PREFERENCE)]
    assert node.state.fencing is None


def test_the_questions_go_on_while_it_fences() -> None:
    node = fencing_pair()

    step = node.waits(2.0)

    assert {sent.request.kind for sent in of_kind(step, SendVoteRequest)} == {VoteKind.POLL}


def test_after_a_boot_the_preferred_node_fences_before_it_starts_alone() -> None:
    node = starting(policy(has_fence=True), held_by(THE_PRIMARY))
    node.takes(all_down(node))

    early = node.waits(19.9)
    late = node.waits(0.2)

    assert of_kind(early, RunFence) == []
    assert [fence.target for fence in of_kind(late, RunFence)] == [BACKUP]


def test_after_a_boot_the_other_waits_one_timeout_more_before_it_fences() -> None:
    node = starting(policy(BACKUP, has_fence=True), held_by(THE_BACKUP))
    node.takes(all_down(node))

    early = node.waits(29.9)
    late = node.waits(0.2)

    assert of_kind(early, RunFence) == []
    assert [fence.target for fence in of_kind(late, RunFence)] == [PRIMARY]


def test_with_a_fence_a_backup_that_never_heard_its_primary_starts_alone() -> None:
    node = starting(policy(BACKUP, has_fence=True, lone_start=LoneStart.WAIT), Durable())
    node.takes(all_down(node))

    step = node.waits(31.0)

    assert [fence.target for fence in of_kind(step, RunFence)] == [PRIMARY]


def test_a_standby_that_hears_its_peer_fences_nobody() -> None:
    node = a_standby(policy(BACKUP, has_fence=True))

    step = node.lives(60.0, node.leading_beat())

    assert of_kind(step, RunFence) == []


def test_beside_an_arbiter_a_fence_is_never_a_vote() -> None:
    node = a_standby_of_three(trio(BACKUP, has_fence=True))

    step = goes_on(node, 60.0)

    assert of_kind(step, RunFence) == []
    assert phase(node) is Phase.STANDBY
    goes_on(node, 2.0, witness_is_free)
    assert phase(node) is Phase.ACQUIRING
    assert node.state.fencing is None
