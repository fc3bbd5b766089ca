"""The rules of the voter (V2 to V9), one agent alone, message by message."""

from dataclasses import replace
from typing import Any

import pytest

from failover_agent.core.effects import StartContainers, StopContainers
from failover_agent.core.events import RecordWriteFailed, Tick
from failover_agent.core.messages import Refusal, VoteKind
from failover_agent.core.policy import PartitionPolicy, Role
from failover_agent.core.state import Durable, Holder, Phase
from failover_agent.simulation.product import Product
from tests.simulation.alone import STANDING_BY, Alone, a_leader, a_voter, wait_until_it_asks
from tests.simulation.pairs import NAMES, T

pytestmark = pytest.mark.simulation

A_TERM: dict[str, Any] = {
    "term": 5,
    "holder": Holder(Role.PRIMARY, "primary-1"),
    "released": True,
    "longest_lease_s": T,
}


def test_a_leader_grants_nobody_anything(core: Product) -> None:
    alone = a_leader(core)

    for kind in VoteKind:
        assert not alone.asks(kind, 99, node="backup-1").granted
    alone.sees(running=False)
    for kind in VoteKind:
        assert alone.asks(kind, 99, node="backup-1").refusal is Refusal.LEADING
    assert alone.state.held_term is not None


def test_a_voter_that_is_not_seen_stopped_grants_nobody(core: Product) -> None:
    alone = a_voter(core, **A_TERM)
    assert alone.asks(VoteKind.POLL).granted

    alone.sees(running=True)
    for kind in (VoteKind.POLL, VoteKind.CANDIDACY):
        assert alone.asks(kind, 6).refusal is Refusal.CONTAINERS_RUN
    assert not alone.asks(VoteKind.PREPARE, 6).granted
    alone.sees(running=False)
    assert alone.asks(VoteKind.CANDIDACY, 6).granted


def test_a_renewal_in_a_term_that_is_new_wants_a_voter_that_is_stopped(core: Product) -> None:
    alone = a_voter(core, **A_TERM)
    alone.sees(running=True)
    vote = alone.beats(Phase.ACTIVE, 6)
    assert vote is not None
    assert vote.refusal is Refusal.CONTAINERS_RUN

    alone.sees(running=False)
    vote = alone.beats(Phase.ACTIVE, 6)
    assert vote is not None
    assert vote.granted


def test_no_term_is_granted_twice(core: Product) -> None:
    alone = a_voter(core, **A_TERM)
    assert alone.asks(VoteKind.CANDIDACY, 5, node="primary-2").refusal is Refusal.OLD_TERM
    assert alone.asks(VoteKind.CANDIDACY, 4).refusal is Refusal.OLD_TERM
    assert alone.asks(VoteKind.CANDIDACY, 6).granted
    assert alone.state.durable.term == 6


def test_a_promise_stands_for_its_length_against_everybody_else(core: Product) -> None:
    alone = a_voter(core, **A_TERM)
    assert alone.asks(VoteKind.CANDIDACY, 6).granted
    alone.wait(T - 0.5)
    assert alone.asks(VoteKind.CANDIDACY, 7, node="primary-2").refusal is Refusal.PROMISED
    alone.wait(0.6)
    assert alone.asks(VoteKind.CANDIDACY, 7, node="primary-2").granted


def test_only_the_holder_of_the_newest_term_renews(core: Product) -> None:
    alone = a_voter(core, **{**A_TERM, "released": False})
    vote = alone.beats(Phase.ACTIVE, 4)
    assert vote is not None
    assert vote.refusal is Refusal.OLD_TERM
    vote = alone.beats(Phase.ACTIVE, 5)
    assert vote is not None
    assert vote.granted


def test_a_term_that_was_given_back_is_not_renewed(core: Product) -> None:
    alone = a_voter(core, **A_TERM)
    vote = alone.beats(Phase.ACTIVE, 5)
    assert vote is not None
    assert vote.refusal is Refusal.OLD_TERM


def test_a_report_of_one_that_holds_nothing_renews_nothing(core: Product) -> None:
    alone = a_voter(core, **A_TERM)
    assert alone.beats(Phase.STANDBY, 6) is None
    assert alone.state.durable.term == 5


def test_only_a_holder_asks_for_a_renewal(core: Product) -> None:
    alone = a_voter(core, **A_TERM)
    assert not alone.says(Phase.STANDBY, 5).renews
    leader = a_leader(core)
    assert leader.says(Phase.STANDBY, 1).renews


def test_without_a_record_nothing_is_granted_for_t(core: Product) -> None:
    alone = Alone(core)
    alone.sees(running=False)
    alone.beats(Phase.STANDBY, 0, **STANDING_BY)
    assert alone.asks(VoteKind.POLL).refusal is Refusal.JUST_STARTED
    alone.wait(T * 0.9)
    assert alone.asks(VoteKind.CANDIDACY, 1).refusal is Refusal.JUST_STARTED
    alone.wait(T * 0.2)
    assert alone.asks(VoteKind.CANDIDACY, 1).granted


def test_without_a_record_the_longest_t_told_counts(core: Product) -> None:
    alone = Alone(core, partition_policy=PartitionPolicy.CONSISTENCY)
    alone.sees(running=False)
    alone.beats(Phase.STANDBY, 0, lease_s=3 * T, longest_lease_s=3 * T, **STANDING_BY)
    alone.wait(2 * T)
    assert alone.asks(VoteKind.CANDIDACY, 1).refusal is Refusal.JUST_STARTED
    alone.wait(1.2 * T)
    assert alone.asks(VoteKind.CANDIDACY, 1).granted


def test_after_a_start_only_the_holder_that_the_record_names_is_served_at_once(
    core: Product,
) -> None:
    alone = a_voter(core, **{**A_TERM, "released": False})
    refusal = alone.asks(VoteKind.CANDIDACY, 6, node="primary-2").refusal
    assert refusal is Refusal.JUST_STARTED
    assert alone.asks(VoteKind.CANDIDACY, 6).granted


def test_without_a_record_it_asks_nobody_for_t(core: Product) -> None:
    alone = Alone(core, role=Role.PRIMARY)
    alone.sees(running=False)
    began = alone.now
    wait_until_it_asks(alone)
    assert alone.now - began >= T


def test_a_candidate_gives_way_to_a_preferred_one_at_an_equal_term_too(core: Product) -> None:
    alone = Alone(core, role=Role.BACKUP)
    alone.sees(running=False)
    wait_until_it_asks(alone)
    alone.answers(VoteKind.POLL, 0, granted=True, told=0)
    assert alone.asked() == (VoteKind.CANDIDACY, 1)

    assert alone.asks(VoteKind.CANDIDACY, 1).granted
    assert alone.state.phase is Phase.STANDBY
    alone.answers(VoteKind.CANDIDACY, 1, granted=True, told=1)
    assert alone.state.held_term is None


def test_a_preferred_candidate_gives_way_to_nobody(core: Product) -> None:
    alone = Alone(core, role=Role.PRIMARY)
    alone.sees(running=False)
    wait_until_it_asks(alone)
    assert not alone.asks(VoteKind.CANDIDACY, 9, node="backup-1").granted


def test_a_release_counts_only_from_the_holder_and_not_of_an_older_term(core: Product) -> None:
    alone = a_voter(core, **{**A_TERM, "released": False})
    alone.releases(5, node="primary-2")
    assert not alone.state.durable.released
    alone.releases(4)
    assert not alone.state.durable.released
    alone.releases(5)
    assert alone.state.durable.released


def test_an_answer_to_an_earlier_question_is_no_vote(core: Product) -> None:
    alone = Alone(core, role=Role.PRIMARY)
    alone.sees(running=False)
    wait_until_it_asks(alone)
    alone.answers(VoteKind.POLL, 0, granted=True, told=7)
    assert alone.asked() == (VoteKind.CANDIDACY, 8)

    alone.answers(VoteKind.POLL, 0, granted=True, told=7)
    alone.answers(VoteKind.CANDIDACY, 3, granted=True, told=7)
    assert alone.state.held_term is None
    alone.answers(VoteKind.CANDIDACY, 8, granted=True, told=8)
    assert alone.state.held_term == 8


def test_a_poll_promises_and_saves_nothing(core: Product) -> None:
    alone = a_voter(core, **A_TERM)
    before = alone.state.durable
    assert alone.asks(VoteKind.POLL).granted
    assert alone.state.durable == before
    assert alone.asks(VoteKind.POLL, node="primary-2").granted


def test_a_candidate_polls_before_it_takes_a_term(core: Product) -> None:
    alone = Alone(core, role=Role.PRIMARY)
    alone.sees(running=False)
    wait_until_it_asks(alone)
    assert alone.asked() == (VoteKind.POLL, 0)
    alone.answers(VoteKind.POLL, 0, granted=False, told=3)
    assert alone.state.durable.term == 0
    assert alone.state.phase is Phase.STANDBY


def test_one_that_cannot_save_grants_nothing(core: Product) -> None:
    alone = a_voter(core, **A_TERM)
    alone.take(RecordWriteFailed("full"))
    assert not alone.asks(VoteKind.POLL).granted
    assert not alone.asks(VoteKind.PREPARE, 5).granted


def test_one_with_another_fingerprint_is_granted_nothing(core: Product) -> None:
    alone = a_voter(core, **A_TERM)
    for kind in VoteKind:
        assert alone.asks(kind, 6, fingerprint="other").refusal is Refusal.FINGERPRINT


def test_a_prepare_is_answered_by_what_is_true_now(core: Product) -> None:
    alone = a_voter(core, **{**A_TERM, "released": False})
    alone.beats(Phase.ACTIVE, 5)
    assert alone.asks(VoteKind.PREPARE, 5).granted

    view = alone.state.containers["db"]
    gone = alone.state.containers.seen([replace(view, exists=False)])
    alone.state = replace(alone.state, containers=gone)
    assert alone.asks(VoteKind.PREPARE, 5).refusal is Refusal.NOT_READY


def test_a_plan_stops_first_then_saves_then_does_the_rest(core: Product) -> None:
    alone = Alone(core)
    before = alone.state
    step = core.step(before, Tick(), alone.now, alone.policy)
    start, stop = StartContainers(1, NAMES), StopContainers(1, NAMES, None)
    durable = Durable(term=1)
    step = replace(step, state=replace(step.state, durable=durable), effects=(start, stop))

    first, second, third = core.plan(before, step)
    assert first == stop
    assert second == core.save(durable)
    assert third == start
    step = replace(step, state=before)
    assert core.plan(before, step) == (stop, start)
