"""The lease of a holder: H1, H3, H4, H6, and V8 with a lease."""

from __future__ import annotations

import pytest

from failover_agent.core import invariants, leases, machine
from failover_agent.core.effects import (
    ArmGuard,
    Exit,
    MoveDeadline,
    RepairContainer,
    SendRelease,
    StartContainers,
    StopContainers,
)
from failover_agent.core.events import (
    ContainersStopped,
    Event,
    GuardArmed,
    GuardFailed,
    RecordWriteFailed,
    StopFailed,
    StopRequested,
    Tick,
)
from failover_agent.core.messages import Refusal, VoteKind
from failover_agent.core.policy import OnStop
from failover_agent.core.state import FOREVER, ContainerState, Phase, Reason
from tests.unit.core.builders import (
    BACKUP,
    PRIMARY,
    START_S,
    TERM,
    THE_BACKUP,
    THE_PRIMARY,
    Node,
    active,
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
    KILL_S,
    LEASE_S,
    STOP_S,
    WITNESS,
    a_candidate_of_three,
    active_of_three,
    beats_to,
    begun,
    goes_on,
    peer_renews,
    peer_stands_by,
    phase,
    promoting_of_three,
    restarted,
    trio,
    winner,
    witness_holds,
    witness_knows,
    witness_renews,
    witness_votes,
    word,
)


def witness_keeps_holding(node: Node) -> Event:
    """The witness holds for us, and was asked for no renewal."""
    return word(node, holder=node.state.me, remaining_s=FOREVER)


def ends_at_s(node: Node) -> float:
    """The end of the lease, by the core itself."""
    return leases.valid_until_s(node.state, node.policy)


# --- H1: how long it runs -------------------------------------------------------------------------


def test_a_lease_counts_from_when_the_question_left_and_not_from_when_the_answer_came() -> None:
    node = active_of_three()
    node.waits(1.0)
    sent_at_s = node.now
    node.waits(2.0)

    step = node.takes(witness_renews(node, sent_at_s))

    (moved,) = of_kind(step, MoveDeadline)
    assert moved.valid_until_s == pytest.approx(sent_at_s + LEASE_S)


def test_one_other_voter_is_enough_whichever_it_is() -> None:
    for voice in (peer_renews, witness_renews):
        node = active_of_three()

        goes_on(node, 60.0, voice)

        assert phase(node) is Phase.ACTIVE


def test_the_answers_of_both_others_do_not_add_up_and_the_newest_alone_counts() -> None:
    node = active_of_three()
    node.waits(2.0)
    newest_s = node.now

    node.takes(witness_renews(node), peer_renews(node, newest_s - 1.5))

    assert ends_at_s(node) == pytest.approx(newest_s + LEASE_S)


def test_an_answer_counts_whenever_it_comes() -> None:
    node = active_of_three()
    sent_at_s = node.now
    node.waits(LEASE_S - STOP_S - 0.1)

    node.takes(witness_renews(node, sent_at_s + 5.0))

    assert ends_at_s(node) == pytest.approx(sent_at_s + 5.0 + LEASE_S)
    node.waits(4.0)
    assert phase(node) is Phase.ACTIVE


def test_an_answer_that_was_overtaken_moves_nothing_back() -> None:
    node = active_of_three()
    node.waits(3.0)
    node.takes(witness_renews(node))
    end_s = ends_at_s(node)

    step = node.takes(witness_renews(node, node.now - 2.0), peer_renews(node, node.now - 2.5))

    assert ends_at_s(node) == end_s
    assert of_kind(step, MoveDeadline) == []


def test_an_answer_of_an_older_term_counts_for_nothing() -> None:
    node = active_of_three()
    node.waits(1.0)
    late = witness_renews(node)
    old = type(late)(WITNESS, node.now, held_term(node) - 1, late.answer)
    end_s = ends_at_s(node)

    node.takes(old)

    assert ends_at_s(node) == end_s


def test_a_refusal_moves_nothing() -> None:
    node = active_of_three()
    node.waits(1.0)
    end_s = ends_at_s(node)

    node.takes(word(node, holder=THE_BACKUP, remaining_s=5.0, refusal=Refusal.PROMISED))

    assert ends_at_s(node) == end_s


def test_how_the_promise_of_the_witness_stands_is_no_renewal() -> None:
    node = active_of_three()
    node.waits(1.0)
    end_s = ends_at_s(node)

    node.takes(word(node, holder=THE_PRIMARY, remaining_s=5.0))

    assert ends_at_s(node) == end_s


def test_the_lease_of_a_new_term_counts_from_when_its_votes_were_asked_for() -> None:
    node = a_candidate_of_three()
    node.takes(witness_votes(node, VoteKind.POLL))
    asked_at_s = node.now
    node.waits(2.0)

    node.takes(witness_votes(node, VoteKind.CANDIDACY, sent_at_s=asked_at_s))

    assert phase(node) is Phase.PROMOTING
    assert ends_at_s(node) == pytest.approx(asked_at_s + LEASE_S)


def test_votes_too_old_to_start_anything_by_are_asked_for_again() -> None:
    node = a_candidate_of_three()
    node.takes(witness_votes(node, VoteKind.POLL))
    asked_at_s = node.now
    goes_on(node, LEASE_S - STOP_S + 0.1, peer_stands_by)

    node.takes(witness_votes(node, VoteKind.CANDIDACY, sent_at_s=asked_at_s))

    assert phase(node) is Phase.ACQUIRING
    node.waits(1.0)
    node.takes(witness_votes(node, VoteKind.CANDIDACY))
    assert phase(node) is Phase.PROMOTING


def test_a_plain_pair_has_no_lease_and_nothing_falls_due() -> None:
    node = active()

    assert ends_at_s(node) == FOREVER
    assert leases.voters(node.state, node.policy, node.now) == ()
    node.waits(60.0)
    assert phase(node) is Phase.ACTIVE


def test_whose_promise_runs_is_told_to_people() -> None:
    node = active_of_three()
    assert leases.voters(node.state, node.policy, node.now) == (PRIMARY, BACKUP, WITNESS)

    goes_on(node, LEASE_S, witness_renews)

    assert leases.voters(node.state, node.policy, node.now) == (PRIMARY, WITNESS)


# --- H2 with a lease ------------------------------------------------------------------------------


def test_a_holder_whose_lease_has_ended_asks_for_no_renewal() -> None:
    node = active_of_three()
    before = beats_to(node.waits(LEASE_S - 0.1), {WITNESS})
    node.takes(Tick(), after_s=0.2)

    after = beats_to(node.waits(2.0), {WITNESS})

    assert before
    assert all(sent.beat.renews for sent in before)
    assert after
    assert not any(sent.beat.renews for sent in after)


# --- H3: stop, then kill, then release -----------------------------------------------------------


def test_a_node_that_nobody_answers_stops_in_time_before_its_lease_ends() -> None:
    node = active_of_three()
    end_s = ends_at_s(node)

    goes_on(node, end_s - STOP_S - 0.01 - node.now)
    assert phase(node) is Phase.ACTIVE
    step = goes_on(node, 0.02)

    assert phases(step) == [(Phase.DEMOTING, Reason.LEASE_LOST)]
    (stop,) = of_kind(step, StopContainers)
    assert stop.names == ("web", "db")
    assert stop.grace_s == pytest.approx(STOP_S - KILL_S, abs=0.02)


def test_what_still_runs_is_killed_shortly_before_the_end_once() -> None:
    node = active_of_three()
    end_s = ends_at_s(node)
    goes_on(node, end_s - KILL_S - 0.01 - node.now)

    step = goes_on(node, 0.5)

    assert [stop.grace_s for stop in of_kind(step, StopContainers)] == [0.0]


def test_the_stop_of_a_handover_is_turned_into_a_kill_when_the_lease_ends_under_it() -> None:
    node = active_of_three()
    node.takes(StopRequested())
    step = node.takes(node.vote(VoteKind.PREPARE))
    assert [stop.grace_s for stop in of_kind(step, StopContainers)] == [None]
    end_s = ends_at_s(node)

    step = goes_on(node, end_s - node.now)

    assert [stop.grace_s for stop in of_kind(step, StopContainers)] == [0.0]


def test_a_stop_that_is_renewed_meanwhile_is_not_turned_into_a_kill() -> None:
    node = active_of_three()
    node.takes(StopRequested())
    node.takes(node.vote(VoteKind.PREPARE))

    step = goes_on(node, 30.0, witness_renews)

    assert of_kind(step, StopContainers) == []


def test_a_kill_that_could_not_be_confirmed_is_tried_again_as_a_kill() -> None:
    node = active_of_three()
    goes_on(node, ends_at_s(node) - node.now)
    node.takes(StopFailed(held_term(node), ("web",), "the engine does not answer"))
    assert phase(node) is Phase.FAILED

    step = goes_on(node, 3.0)

    assert [stop.grace_s for stop in of_kind(step, StopContainers)] == [0.0]
    assert of_kind(step, SendRelease) == []


def test_a_lapsed_lease_is_released_to_both_and_names_nobody() -> None:
    node = active_of_three()
    goes_on(node, ends_at_s(node) - STOP_S - node.now)
    term = held_term(node)

    step = node.takes(all_down(node), ContainersStopped(term), after_s=0.5)

    assert phases(step) == [(Phase.STANDBY, Reason.ALL_STOPPED)]
    said = of_kind(step, SendRelease)
    assert {release.to for release in said} == {BACKUP, WITNESS}
    assert {(release.request.term, release.request.to) for release in said} == {(term, None)}


def test_a_release_is_said_to_each_voter_until_it_answers() -> None:
    node = active_of_three()
    goes_on(node, ends_at_s(node) - STOP_S - node.now)
    term = held_term(node)
    node.takes(all_down(node), ContainersStopped(term), after_s=0.5)

    node.takes(witness_knows(term))
    step = node.waits(1.0)
    assert {release.to for release in of_kind(step, SendRelease)} == {BACKUP}

    node.takes(node.release_answered(term))
    assert of_kind(node.waits(3.0), SendRelease) == []


def test_a_release_to_nobody_ends_when_the_promises_would_have_ended_anyway() -> None:
    node = active_of_three()
    goes_on(node, ends_at_s(node) - STOP_S - node.now)
    node.takes(all_down(node), ContainersStopped(held_term(node)), after_s=0.5)

    during = of_kind(node.waits(node.policy.promise_length_s - 0.1), SendRelease)
    node.waits(1.0)

    assert len(during) > 10
    assert node.state.release is None


def test_a_promotion_is_given_up_when_its_lease_ends() -> None:
    node = promoting_of_three()

    step = goes_on(node, LEASE_S)

    assert phases(step)[0] == (Phase.DEMOTING, Reason.LEASE_LOST)


def test_a_full_disk_does_not_keep_a_node_from_stopping_in_time() -> None:
    node = active_of_three()
    node.takes(RecordWriteFailed("no space left on device"))

    step = goes_on(node, ends_at_s(node) - STOP_S + 0.1 - node.now)

    assert len(of_kind(step, StopContainers)) == 1
    node.takes(all_down(node), ContainersStopped(held_term(node)))
    assert node.state.is_holding, "what cannot be released is not given back"


def test_a_thawed_agent_stops_at_once_when_its_lease_has_ended_meanwhile() -> None:
    node = active_of_three()

    step = node.takes(Tick(), after_s=LEASE_S + 30.0)

    assert phases(step) == [(Phase.DEMOTING, Reason.LEASE_LOST)]
    assert [stop.grace_s for stop in of_kind(step, StopContainers)] == [0.0]


def test_an_isolated_active_asks_no_peer_before_it_stops() -> None:
    node = active_of_three()
    node.takes(changed("web", ContainerState.DOWN, alive=False))

    step = goes_on(node, LEASE_S)

    assert phases(step)[0] == (Phase.DEMOTING, Reason.LEASE_LOST)


def asleep(seconds: float) -> Node:
    """An active node whose agent stood still for so long after its last renewal."""
    node = active_of_three()
    node.takes(Tick(), after_s=seconds)
    return node


def test_an_agent_that_was_away_when_the_stop_fell_due_has_first_a_chance_to_renew() -> None:
    node = asleep(LEASE_S - STOP_S + 0.1)
    assert phase(node) is Phase.ACTIVE

    renewed = node.takes(witness_renews(node), after_s=0.1)

    assert phases(renewed) == []
    assert ends_at_s(node) == pytest.approx(node.now - 0.1 + LEASE_S)


def test_nothing_is_started_while_it_has_that_chance() -> None:
    node = asleep(LEASE_S - STOP_S + 0.1)

    assert node.now >= leases.start_deadline_s(node.state, node.policy)


def test_that_chance_is_an_interval_and_at_most_half_of_what_is_left_before_the_kill() -> None:
    for away_s, chance_s in ((7.5, 0.7), (8.5, 0.2)):
        node = asleep(away_s)

        early = goes_on(node, chance_s - 0.02)
        late = goes_on(node, 0.04)

        assert phases(early) == []
        assert phases(late) == [(Phase.DEMOTING, Reason.LEASE_LOST)]


def test_with_a_long_timeout_that_chance_is_one_interval() -> None:
    node = active_of_three(trio(heartbeat_timeout_s=60.0, stop_budget_s=15.0, kill_budget_s=2.0))
    node.takes(Tick(), after_s=60.0 * 0.99 - 14.0)

    early = goes_on(node, 0.98)
    late = goes_on(node, 0.04)

    assert phases(early) == []
    assert phases(late) == [(Phase.DEMOTING, Reason.LEASE_LOST)]


def test_an_agent_that_wakes_when_the_kill_is_due_has_no_chance() -> None:
    node = asleep(LEASE_S - KILL_S)

    assert phase(node) is Phase.DEMOTING
    assert node.state.is_killing


def test_a_sleep_that_was_over_before_the_stop_fell_due_gives_no_chance() -> None:
    node = asleep(3.0)

    step = goes_on(node, LEASE_S - STOP_S - 3.0 + 0.02)

    assert phases(step) == [(Phase.DEMOTING, Reason.LEASE_LOST)]


# --- H4: no start when the lease ends -------------------------------------------------------------


def test_nothing_is_started_from_when_the_stopping_would_begin() -> None:
    node = active_of_three()

    assert leases.start_deadline_s(node.state, node.policy) <= ends_at_s(node) - STOP_S


def test_an_agent_that_has_not_stepped_for_half_the_timeout_starts_nothing() -> None:
    node = active_of_three()
    goes_on(node, 2.5, witness_renews)

    deadline_s = leases.start_deadline_s(node.state, node.policy)

    assert deadline_s == pytest.approx(node.state.stepped_at_s + 5.0)
    assert deadline_s < ends_at_s(node) - STOP_S


def test_with_a_short_timeout_that_is_two_intervals() -> None:
    node = active(policy(heartbeat_timeout_s=2.0))

    deadline_s = leases.start_deadline_s(node.state, node.policy)

    assert deadline_s == pytest.approx(node.state.stepped_at_s + 2.0)


def test_no_repair_is_ordered_when_the_lease_ends() -> None:
    node = active_of_three()
    goes_on(node, ends_at_s(node) - STOP_S - 0.5 - node.now)
    node.takes(node.died("web"))

    step = goes_on(node, 5.0)

    assert of_kind(step, RepairContainer) == []
    assert of_kind(step, StartContainers) == []


def test_a_start_at_the_end_of_a_lease_is_a_breach() -> None:
    node = active_of_three()
    step = machine.step(node.state, Tick(), ends_at_s(node) - STOP_S, node.policy)
    start = StartContainers(held_term(node), node.policy.containers)
    bent = type(step)(step.state, (*step.effects, start), step.transitions)

    with pytest.raises(invariants.Breach, match="H4"):
        invariants.check(node.state, bent, node.policy)


# --- H6: only a running lease is resumed ----------------------------------------------------------


def test_a_restarted_agent_takes_its_running_lease_up_by_the_word_of_one_voter() -> None:
    node = restarted(START_S + 6.0)
    assert phase(node) is Phase.STARTING

    sent_at_s = node.now
    step = node.takes(witness_renews(node), after_s=0.5)

    assert phases(step) == [(Phase.ACTIVE, Reason.RESUMED)]
    assert of_kind(step, StartContainers) == []
    assert ends_at_s(node) == pytest.approx(sent_at_s + LEASE_S)


def test_a_lease_that_has_ended_is_not_resumed_and_what_runs_is_stopped_at_once() -> None:
    node = begun(durable=held_by(THE_PRIMARY, led=True), lease_until_s=START_S - 1.0)

    step = node.takes(all_up(node))

    assert not node.state.may_resume
    assert [stop.grace_s for stop in of_kind(step, StopContainers)] == [0.0]


def test_a_lease_that_is_about_to_end_is_not_resumed() -> None:
    node = restarted(START_S + KILL_S)

    step = node.takes(witness_renews(node))

    assert phases(step) == []
    assert not node.state.is_holding


def test_an_answer_that_comes_when_the_lease_is_about_to_end_resumes_nothing() -> None:
    node = restarted(START_S + 6.0)
    sent_at_s = node.now

    step = node.takes(witness_renews(node, sent_at_s), after_s=6.0 - KILL_S)

    assert (Phase.ACTIVE, Reason.RESUMED) not in phases(step)
    assert not node.state.is_holding


def test_a_restarted_agent_that_nobody_answers_stops_before_its_old_lease_ends() -> None:
    node = restarted(START_S + 6.0)

    early = goes_on(node, 6.0 - KILL_S - 0.1)
    late = goes_on(node, 0.2)

    assert of_kind(early, StopContainers) == []
    assert [stop.names for stop in of_kind(late, StopContainers)] == [("web", "db")]


def test_a_refusal_does_not_end_a_resumption_while_the_lease_runs() -> None:
    node = restarted(START_S + 8.0)

    node.takes(word(node, refusal=Refusal.JUST_STARTED, remaining_s=3.0))
    assert node.state.may_resume
    step = node.takes(word(node, granted=True, holder=THE_PRIMARY, remaining_s=10.1), after_s=1.0)

    assert phases(step) == [(Phase.ACTIVE, Reason.RESUMED)]


def test_a_resumption_asks_for_its_renewal_with_its_very_first_beat() -> None:
    node = begun(durable=held_by(THE_PRIMARY, led=True), lease_until_s=START_S + 6.0)

    said = beats_to(node.takes(Tick()), {WITNESS, BACKUP})

    assert [(sent.beat.renews, sent.beat.term) for sent in said] == [(True, TERM)] * 2


# --- V8: a hold has no deadline -------------------------------------------------------------------


def test_a_node_that_leaves_asks_both_to_hold_and_exits_when_one_does() -> None:
    node = active_of_three(trio(on_stop=OnStop.LEAVE))

    asked = beats_to(node.takes(StopRequested()), {BACKUP, WITNESS})
    step = node.takes(witness_holds(node))

    assert [sent.beat.hold for sent in asked] == [True, True]
    (moved,) = of_kind(step, MoveDeadline)
    assert moved.valid_until_s == FOREVER
    (last,) = of_kind(step, Exit)
    assert "the witness holds" in last.sentence


def test_without_a_hold_confirmed_the_containers_are_stopped_before_the_end() -> None:
    node = active_of_three(trio(on_stop=OnStop.LEAVE))
    node.takes(StopRequested())

    step = goes_on(node, node.policy.patience_s + 0.1, witness_renews)

    assert phases(step) == [(Phase.DEMOTING, Reason.AGENT_STOPPING)]
    assert len(of_kind(step, StopContainers)) == 1
    assert of_kind(step, Exit) == []

    node.takes(all_down(node), ContainersStopped(held_term(node)))
    ended = goes_on(node, node.policy.patience_s + 0.1)
    assert len(of_kind(ended, Exit)) == 1


def test_a_node_of_which_nothing_runs_asks_for_no_hold_and_stops_nothing() -> None:
    node = active_of_three(trio(on_stop=OnStop.LEAVE))
    node.takes(all_down(node))
    node.takes(StopRequested())

    step = goes_on(node, node.policy.patience_s + 0.1, witness_renews)

    assert not any(sent.beat.hold for sent in beats_to(step, {BACKUP, WITNESS}))
    assert of_kind(step, StopContainers) == []
    assert of_kind(step, Exit)


def test_a_word_of_hold_that_was_overtaken_by_a_renewal_ends_no_deadline() -> None:
    node = active_of_three(trio(on_stop=OnStop.LEAVE))
    node.takes(StopRequested())
    late = witness_holds(node)
    goes_on(node, node.policy.patience_s + 0.1, witness_renews)
    assert phase(node) is Phase.DEMOTING

    node.takes(late)

    assert ends_at_s(node) < FOREVER


def test_a_plain_renewal_that_leaves_ends_the_hold_before_anybody_has_answered_it() -> None:
    node = active_of_three(trio(on_stop=OnStop.LEAVE))
    node.takes(StopRequested())
    node.takes(all_down(node), witness_holds(node))
    assert ends_at_s(node) == FOREVER

    step = node.waits(1.1)

    (beat, *_) = beats_to(step, {WITNESS})
    (moved,) = of_kind(step, MoveDeadline)
    assert (beat.beat.renews, beat.beat.hold) == (True, False)
    assert moved.valid_until_s == ends_at_s(node)
    assert moved.valid_until_s == pytest.approx(node.now + LEASE_S, abs=1.2)


def returning() -> Node:
    """A node that left on hold is back, and nobody has been heard yet."""
    node = restarted(FOREVER)
    goes_on(node, 100.0)
    assert phase(node) is Phase.STARTING
    return node


def test_a_node_on_hold_that_hears_nobody_stops_nothing_and_asks_for_no_end() -> None:
    node = restarted(FOREVER)

    step = goes_on(node, 100.0)

    assert of_kind(step, StopContainers) + of_kind(step, ArmGuard) == []
    assert not any(sent.beat.renews for sent in beats_to(step, {BACKUP, WITNESS}))
    assert node.state.may_resume


def test_a_node_back_from_a_hold_gives_the_guard_an_end_before_it_renews() -> None:
    node = returning()

    heard = node.takes(witness_keeps_holding(node))
    (armed,) = of_kind(heard, ArmGuard)
    waiting = goes_on(node, 2.0, witness_keeps_holding)
    node.takes(GuardArmed(TERM))
    renewing = goes_on(node, 1.0)

    assert armed.term == TERM
    assert armed.valid_until_s == pytest.approx(node.now - 3.0 + LEASE_S)
    assert not any(sent.beat.renews for sent in beats_to(waiting, {BACKUP, WITNESS}))
    assert all(sent.beat.renews for sent in beats_to(renewing, {BACKUP, WITNESS}))
    assert beats_to(renewing, {WITNESS})


def test_a_node_back_from_a_hold_is_resumed_and_has_a_deadline_again() -> None:
    node = returning()
    node.takes(witness_keeps_holding(node), GuardArmed(TERM))

    step = node.takes(witness_renews(node))

    assert phases(step) == [(Phase.ACTIVE, Reason.RESUMED)]
    assert of_kind(step, StopContainers) == []
    (armed,) = of_kind(step, ArmGuard)
    assert armed.valid_until_s == pytest.approx(node.now + LEASE_S)


def test_a_node_back_from_a_hold_asks_its_guard_again_until_it_answers() -> None:
    node = returning()
    node.takes(witness_keeps_holding(node))

    node.takes(GuardFailed(TERM, "it did not answer"))
    step = goes_on(node, node.policy.patience_s + 0.1, witness_keeps_holding)

    assert len(of_kind(step, ArmGuard)) == 1
    node.takes(GuardArmed(TERM))
    assert node.state.guard_error == ""


def test_a_node_back_from_a_hold_asks_for_no_new_term_though_its_peer_is_silent() -> None:
    node = returning()

    step = goes_on(node, 30.0, witness_keeps_holding)

    assert phases(step) == []
    assert of_kind(step, StopContainers) == []


def test_a_node_back_from_a_hold_whose_renewal_nobody_grants_stops_before_its_end() -> None:
    node = returning()
    node.takes(witness_keeps_holding(node), GuardArmed(TERM))

    early = goes_on(node, LEASE_S - KILL_S - 0.1)
    late = goes_on(node, 0.2)

    assert of_kind(early, StopContainers) == []
    assert [stop.names for stop in of_kind(late, StopContainers)] == [("web", "db")]


def test_the_end_of_a_lease_is_a_moment_at_which_the_agent_wakes() -> None:
    node = active_of_three()
    end_s = ends_at_s(node)
    woken: list[float] = []

    while node.now < end_s:
        node.now = machine.next_deadline(node.state, node.policy)
        woken.append(node.now)
        node.takes(Tick())

    for before_s in (STOP_S, KILL_S, 0.0):
        assert any(at_s == pytest.approx(end_s - before_s) for at_s in woken)


def test_a_winner_leads_by_the_votes_it_won_with_until_the_first_renewal() -> None:
    node = winner()

    assert ends_at_s(node) == pytest.approx(node.now + LEASE_S)


def test_a_promotion_that_slept_over_the_time_to_stop_starts_nothing_before_it_has_renewed() -> (
    None
):
    node = winner()
    node.now = leases.stop_at_s(node.state, node.policy) + 0.1

    woken = node.takes(GuardArmed(held_term(node)))

    assert of_kind(woken, StartContainers) == []
    assert phase(node) is Phase.PROMOTING
    renewed = node.takes(witness_renews(node))
    assert of_kind(renewed, StartContainers) != []
