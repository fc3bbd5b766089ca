"""The guard watches before anything is started, and until everything is confirmed stopped (G1)."""

from __future__ import annotations

import pytest

from failover_agent.core.effects import (
    ArmGuard,
    DisarmGuard,
    MoveDeadline,
    RepairContainer,
    StartContainers,
    StopContainers,
)
from failover_agent.core.events import (
    ContainersStopped,
    GuardArmed,
    GuardFailed,
    StopFailed,
    StopRequested,
    VoteAnswered,
)
from failover_agent.core.messages import Refusal, VoteKind
from failover_agent.core.plan import Step
from failover_agent.core.state import FOREVER, ContainerState, Phase, Reason
from tests.unit.core.builders import (
    BACKUP,
    START_S,
    THE_BACKUP,
    THE_PRIMARY,
    Node,
    active,
    alarms,
    all_down,
    all_up,
    changed,
    held_by,
    held_term,
    of_kind,
    phases,
    policy,
)
from tests.unit.core.trio import (
    LEASE_S,
    STOP_S,
    a_candidate_of_three,
    active_of_three,
    begun,
    goes_on,
    peer_renews,
    peer_stands_by,
    promoting_of_three,
    restarted,
    trio,
    winner,
    witness_renews,
    witness_votes,
    word,
)


def moved_to(step: Step) -> list[float]:
    """The moments that the guard was told."""
    return [moved.valid_until_s for moved in of_kind(step, MoveDeadline)]


# --- armed, and acknowledged ----------------------------------------------------------------------


def test_the_guard_is_told_names_term_and_the_end_before_anything_is_started() -> None:
    node = winner()

    assert node.state.phase is Phase.PROMOTING
    step = node.takes(GuardArmed(held_term(node)))

    (start,) = of_kind(step, StartContainers)
    assert start.term == held_term(node)


def test_the_order_to_the_guard_carries_what_it_has_to_kill_and_when() -> None:
    node = a_candidate_of_three()
    node.takes(witness_votes(node, VoteKind.POLL))

    (armed,) = of_kind(node.takes(witness_votes(node, VoteKind.CANDIDACY)), ArmGuard)

    assert armed.term == held_term(node)
    assert armed.names == ("db", "web")
    assert armed.valid_until_s == pytest.approx(START_S + LEASE_S)


def test_nothing_is_started_while_the_guard_has_not_answered() -> None:
    node = winner()

    step = goes_on(node, 6.0, witness_renews)

    assert node.state.start_job is None
    assert of_kind(step, StartContainers) == []
    assert of_kind(step, RepairContainer) == []
    assert node.state.phase is Phase.PROMOTING


def test_the_word_of_the_guard_about_another_term_starts_nothing() -> None:
    node = winner()

    step = node.takes(GuardArmed(held_term(node) - 1))

    assert of_kind(step, StartContainers) == []
    assert node.state.counters.stale == 1


def test_the_word_of_the_guard_said_twice_starts_nothing_twice() -> None:
    node = promoting_of_three()

    step = node.takes(GuardArmed(held_term(node)))

    assert of_kind(step, StartContainers) == []


def test_a_plain_pair_has_no_guard_to_wait_for() -> None:
    node = active()

    node.takes(StopRequested())
    step = node.takes(node.vote(VoteKind.PREPARE))
    step = node.takes(all_down(node), ContainersStopped(held_term(node)))

    assert of_kind(step, DisarmGuard) == []


# --- it does not answer ---------------------------------------------------------------------------


def fails_for_good(node: Node) -> Step:
    """The guard is asked for as long as a promotion waits for it, and never answers."""
    node.takes(GuardFailed(held_term(node), "it did not answer"))
    goes_on(node, node.policy.patience_s, witness_renews)
    return node.takes(GuardFailed(held_term(node), "it did not answer"))


def test_a_promotion_waits_for_a_guard_that_is_late_once() -> None:
    node = winner()

    step = node.takes(GuardFailed(held_term(node), "it did not answer"))

    assert phases(step) == []
    assert node.state.phase is Phase.PROMOTING
    assert "guard_lost" in alarms(node)
    assert of_kind(step, StartContainers) == []
    asked = goes_on(node, 1.1, witness_renews)
    assert [order.term for order in of_kind(asked, ArmGuard)] == [held_term(node)]
    step = node.takes(GuardArmed(held_term(node)))
    assert len(of_kind(step, StartContainers)) == 1
    assert "guard_lost" not in alarms(node)


def test_without_a_guard_the_promotion_fails_and_the_peer_may_take_it() -> None:
    node = winner()
    node.takes(node.beat())

    step = fails_for_good(node)

    assert phases(step) == [(Phase.FAILED, Reason.START_FAILED)]
    assert {"guard_lost", "failed"} <= alarms(node)
    assert of_kind(step, StartContainers) == []
    node.takes(node.beat())
    step = node.takes(node.vote(VoteKind.PREPARE))
    assert phases(step) == [(Phase.DEMOTING, Reason.START_FAILED)]


def test_a_guard_that_failed_is_asked_again_and_then_the_containers_are_started() -> None:
    node = winner()
    node.takes(node.beat(readiness="cannot"))
    fails_for_good(node)

    asked = goes_on(node, 1.1, witness_renews)
    assert [order.term for order in of_kind(asked, ArmGuard)] == [held_term(node)]
    node.takes(GuardArmed(held_term(node)))
    step = goes_on(node, 25.0, witness_renews)

    assert "guard_lost" not in alarms(node)
    assert [repair.name for repair in of_kind(step, RepairContainer)][:2] == ["db", "web"]


def test_the_failure_of_a_guard_in_another_term_changes_nothing() -> None:
    node = winner()

    step = node.takes(GuardFailed(held_term(node) - 1, "it did not answer"))

    assert phases(step) == []
    assert node.state.guard_error == ""


def test_the_alarm_stays_open_while_the_guard_is_asked_again_and_again() -> None:
    node = winner()
    node.takes(GuardFailed(held_term(node), "it did not answer"))

    for _ in range(3):
        goes_on(node, 1.1, witness_renews)
        assert "guard_lost" in alarms(node)
        node.takes(GuardFailed(held_term(node), "it did not answer"))


# --- the deadline moves by answers alone ----------------------------------------------------------


def test_the_guard_is_told_of_every_end_that_an_answer_moved() -> None:
    node = active_of_three()
    node.waits(1.0)

    step = node.takes(witness_renews(node))

    assert moved_to(step) == [pytest.approx(node.now + LEASE_S)]


def test_nothing_but_an_answer_moves_the_deadline() -> None:
    node = active_of_three()

    step = goes_on(node, 7.0, peer_stands_by)

    assert moved_to(step) == []


def test_the_answer_of_the_second_voter_to_the_same_beat_moves_nothing_again() -> None:
    node = active_of_three()
    node.waits(1.0)

    step = node.takes(witness_renews(node), peer_renews(node))

    assert len(moved_to(step)) == 1


# --- disarmed when everything is confirmed stopped ------------------------------------------------


def test_it_is_disarmed_when_the_containers_are_confirmed_stopped_and_not_before() -> None:
    node = active_of_three()
    node.takes(StopRequested())
    before = node.takes(node.vote(VoteKind.PREPARE), all_down(node))

    after = node.takes(ContainersStopped(held_term(node)))

    assert of_kind(before, DisarmGuard) == []
    assert [order.term for order in of_kind(after, DisarmGuard)] == [6]


def test_a_stop_that_could_not_be_confirmed_leaves_it_armed() -> None:
    node = active_of_three()
    goes_on(node, LEASE_S - STOP_S)
    assert node.state.phase is Phase.DEMOTING

    step = node.takes(StopFailed(held_term(node), ("web",), "the engine does not answer"))

    assert of_kind(step, DisarmGuard) == []


def test_the_guard_of_the_agent_before_is_disarmed_once_nothing_is_seen_to_run() -> None:
    node = begun()

    step = node.takes(all_down(node))
    again = node.takes(all_down(node))

    assert len(of_kind(step, DisarmGuard)) == 1
    assert of_kind(again, DisarmGuard) == []


def test_the_guard_of_the_agent_before_stays_armed_while_something_runs() -> None:
    node = begun(durable=held_by(THE_PRIMARY, led=True), lease_until_s=START_S - 1.0)

    step = node.takes(all_up(node))
    assert of_kind(step, DisarmGuard) == []
    step = node.takes(all_down(node))
    assert len(of_kind(step, DisarmGuard)) == 1


def test_a_guard_that_had_to_kill_stays_armed_for_a_lease_though_nothing_runs() -> None:
    """A start that the killed agent ordered may come through yet."""
    node = begun(durable=held_by(THE_PRIMARY, led=True), was_enforced=True)

    early = goes_on(node, LEASE_S - 0.5, all_down)
    late = goes_on(node, 1.0, all_down)

    assert of_kind(early, DisarmGuard) == []
    assert len(of_kind(late, DisarmGuard)) == 1


def test_who_is_told_to_stop_disarms_a_guard_that_had_to_kill_once_nothing_runs() -> None:
    """Else the lease file stays behind, and the next guard would kill whatever runs by then."""
    node = begun(durable=held_by(THE_PRIMARY, led=True), was_enforced=True)
    node.takes(all_down(node))

    step = node.takes(StopRequested())

    assert len(of_kind(step, DisarmGuard)) == 1


def test_a_node_whose_arbiter_was_taken_away_disarms_the_guard_of_the_agent_before() -> None:
    """A plain pair arms nothing: a guard that goes on killing would never end."""
    node = begun(policy(), held_by(THE_PRIMARY, led=True), was_enforced=True)

    step = node.takes(all_down(node))

    assert len(of_kind(step, DisarmGuard)) == 1


def test_the_guard_of_the_agent_before_stays_armed_while_one_is_not_seen() -> None:
    node = begun()

    step = node.takes(changed("web", ContainerState.DOWN))

    assert of_kind(step, DisarmGuard) == []


# --- armed anew -----------------------------------------------------------------------------------


def test_after_a_resumption_it_is_armed_anew() -> None:
    node = restarted(START_S + 6.0)

    step = node.takes(witness_renews(node))

    (armed,) = of_kind(step, ArmGuard)
    assert (armed.term, armed.valid_until_s) == (held_term(node), node.now + LEASE_S)


def test_a_resumed_node_repairs_nothing_before_its_guard_watches_again() -> None:
    node = restarted(START_S + 6.0)
    node.takes(witness_renews(node), node.died("web"))

    early = goes_on(node, 5.0, witness_renews)
    late = node.takes(GuardArmed(held_term(node)))

    assert of_kind(early, RepairContainer) == []
    assert [repair.name for repair in of_kind(late, RepairContainer)] == ["web"]


def test_a_resumed_node_whose_guard_fails_serves_on_and_asks_it_again() -> None:
    node = restarted(START_S + 6.0)
    node.takes(witness_renews(node))

    step = node.takes(GuardFailed(held_term(node), "it did not answer"))

    assert phases(step) == []
    assert "guard_lost" in alarms(node)
    assert of_kind(goes_on(node, 1.1, witness_renews), ArmGuard)


def raised(node: Node) -> Step:
    """The witness forgot the holder and outgrew its term; a new one is granted in place (H7)."""
    node.takes(word(node, term=9, refusal=Refusal.OLD_TERM))
    assert node.state.candidacy is not None
    return node.takes(witness_votes(node, VoteKind.CANDIDACY))


def test_after_a_raised_term_it_is_armed_anew_in_the_new_one() -> None:
    node = active_of_three()

    step = raised(node)

    assert held_term(node) == 10
    (armed,) = of_kind(step, ArmGuard)
    assert armed.term == 10
    assert armed.valid_until_s == pytest.approx(node.now + LEASE_S)
    assert of_kind(step, StopContainers) == []


def test_after_a_raised_term_the_guard_of_the_old_one_watches_over_no_repair() -> None:
    node = active_of_three()
    raised(node)
    node.takes(GuardArmed(6), node.died("web"))

    early = goes_on(node, 3.0, witness_renews)
    late = node.takes(GuardArmed(10))

    assert of_kind(early, RepairContainer) == []
    assert len(of_kind(late, RepairContainer)) == 1


def test_a_second_promotion_waits_for_the_guard_again() -> None:
    node = active_of_three()
    node.takes(StopRequested())
    node.takes(node.vote(VoteKind.PREPARE), all_down(node))
    node.takes(ContainersStopped(held_term(node)))
    assert node.state.guarded is None
    assert not node.state.is_guard_armed


def test_while_on_hold_the_guard_has_no_deadline() -> None:
    node = active_of_three(trio())
    node.takes(StopRequested(restarting=True))

    step = node.takes(word(node, granted=True, holder=THE_PRIMARY, remaining_s=FOREVER))

    assert moved_to(step) == [FOREVER]


def test_a_vote_that_comes_after_the_win_moves_the_deadline_as_a_renewal_does_not() -> None:
    node = winner()
    late = node.vote(VoteKind.CANDIDACY, term=held_term(node))

    step = node.takes(late)

    assert isinstance(late, VoteAnswered)
    assert late.voter is BACKUP
    assert moved_to(step) == []
    assert node.state.peers[BACKUP].node_id == THE_BACKUP.node_id
