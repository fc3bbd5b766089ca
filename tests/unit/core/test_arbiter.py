"""A pair with an arbiter: candidacies, strays, raised terms, alarms, and what an operator hears."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failover_agent.core import leases, reports
from failover_agent.core.effects import (
    Reply,
    SendHeartbeat,
    SendRelease,
    SendVoteRequest,
    StartContainers,
    StopContainers,
)
from failover_agent.core.events import (
    CommandKind,
    ContainersStopped,
    Event,
    GuardArmed,
    HeartbeatFailed,
    HeartbeatReceived,
    ReleaseReceived,
    StopRequested,
)
from failover_agent.core.messages import Refusal, ReleaseRequest, VoteKind
from failover_agent.core.plan import Step
from failover_agent.core.policy import LoneStart, Role
from failover_agent.core.state import FOREVER, Durable, Holder, Phase, Readiness, Reason
from tests.unit.core.builders import (
    BACKUP,
    PRIMARY,
    START_S,
    TERM,
    THE_BACKUP,
    THE_PRIMARY,
    Node,
    alarms,
    all_down,
    all_up,
    changed,
    held_by,
    held_term,
    of_kind,
    order,
    peer_beat,
    phases,
    sentences,
    vote_in,
)
from tests.unit.core.trio import (
    LEASE_S,
    WITNESS,
    a_candidate_of_three,
    a_standby_of_three,
    active_of_three,
    begun,
    goes_on,
    peer_leads,
    peer_renews,
    peer_stands_by,
    phase,
    restarted,
    trio,
    witness_is_free,
    witness_is_promised,
    witness_knows,
    witness_renews,
    witness_sender,
    witness_votes,
    word,
)


def questions(step: Step) -> list[tuple[Role, VoteKind, int]]:
    """Who was asked what, in which term."""
    return [
        (sent.to, sent.request.kind, sent.request.term) for sent in of_kind(step, SendVoteRequest)
    ]


# --- H0: who might say yes ------------------------------------------------------------------------


def test_a_candidate_polls_peer_and_arbiter_before_it_takes_a_term() -> None:
    node = begun()

    step = node.takes(all_down(node), node.beat(), witness_is_free(node))

    assert questions(step) == [(BACKUP, VoteKind.POLL, 0), (WITNESS, VoteKind.POLL, 0)]
    assert node.state.durable.term == TERM


def test_the_poll_of_one_is_enough_and_then_both_are_asked_for_the_term() -> None:
    node = a_candidate_of_three()

    step = node.takes(witness_votes(node, VoteKind.POLL))

    assert questions(step) == [
        (BACKUP, VoteKind.CANDIDACY, TERM + 1),
        (WITNESS, VoteKind.CANDIDACY, TERM + 1),
    ]
    assert node.state.durable.term == TERM + 1


def test_a_term_is_one_above_the_highest_that_any_voter_told_of() -> None:
    node = a_candidate_of_three()

    step = node.takes(witness_votes(node, VoteKind.POLL, term=20))

    assert {term for _, _, term in questions(step)} == {21}


def test_nobody_asks_while_the_peer_is_silent_and_the_arbiter_is_promised_to_it() -> None:
    node = a_standby_of_three()

    step = goes_on(node, 60.0, witness_is_promised)

    assert questions(step) == []
    assert phase(node) is Phase.STANDBY
    assert "peer_unheard" in alarms(node)


def test_nobody_asks_while_neither_peer_nor_arbiter_is_heard() -> None:
    node = a_standby_of_three()

    step = goes_on(node, 60.0)

    assert questions(step) == []
    assert {"no_majority", "not_ready", "redundancy_lost"} <= alarms(node)


def test_a_silent_arbiter_and_a_peer_that_answers_are_a_majority() -> None:
    node = begun()
    node.takes(all_down(node), node.beat())

    node.takes(node.vote(VoteKind.POLL))
    node.takes(node.vote(VoteKind.CANDIDACY))

    assert phase(node) is Phase.PROMOTING


def test_silence_is_no_vote_beside_an_arbiter() -> None:
    node = a_standby_of_three()
    goes_on(node, 10.2, witness_is_free)
    assert phase(node) is Phase.ACQUIRING

    goes_on(node, 30.0, witness_is_free)

    assert phase(node) is Phase.ACQUIRING
    assert not node.state.is_holding


def test_a_candidate_gives_up_when_both_have_refused_and_not_before() -> None:
    node = a_candidate_of_three()

    first = node.takes(node.vote(VoteKind.POLL, Refusal.CONTAINERS_RUN))
    second = node.takes(witness_votes(node, VoteKind.POLL, Refusal.PROMISED, remaining_s=3.0))

    assert phases(first) == []
    assert phases(second) == [(Phase.STANDBY, Reason.VOTE_REFUSED)]


def test_a_candidate_gives_up_when_the_arbiter_is_promised_to_another_and_the_peer_is_silent() -> (
    None
):
    node = a_standby_of_three()
    goes_on(node, 10.2, witness_is_free)
    assert phase(node) is Phase.ACQUIRING

    step = node.takes(witness_is_promised(node))

    assert phases(step) == [(Phase.STANDBY, Reason.VOTE_REFUSED)]


def test_a_candidate_asks_again_when_the_promise_it_was_told_of_ends() -> None:
    node = a_standby_of_three()
    goes_on(node, 10.2, witness_is_free)
    node.takes(
        witness_votes(node, VoteKind.POLL, Refusal.PROMISED, holder=THE_PRIMARY, remaining_s=3.3)
    )
    assert phase(node) is Phase.STANDBY
    refused_at_s = node.now

    while not questions(goes_on(node, 0.1)):
        assert node.now < refused_at_s + 5.0

    assert node.now == pytest.approx(refused_at_s + 3.3, abs=0.15)


def test_a_candidate_asks_again_when_the_first_of_its_refusers_may_say_yes() -> None:
    """One yes is enough beside its own."""
    node = a_candidate_of_three()
    node.takes(node.vote(VoteKind.POLL, Refusal.JUST_STARTED, remaining_s=0.3))
    node.takes(witness_votes(node, VoteKind.POLL, Refusal.PROMISED, remaining_s=9.0))
    assert phase(node) is Phase.STANDBY

    assert node.state.ask_again_at_s == pytest.approx(node.now + 0.3, abs=0.1)


def test_a_candidate_that_its_peer_refused_asks_again_when_the_arbiters_promise_ends() -> None:
    """Which it did not ask: it knows from the beats until when that is promised."""
    node = a_standby_of_three()
    goes_on(node, 10.2, differs, witness_is_promised)
    assert phase(node) is Phase.ACQUIRING

    step = node.takes(node.vote(VoteKind.POLL, Refusal.JUST_STARTED, remaining_s=9.0))

    assert phases(step) == [(Phase.STANDBY, Reason.VOTE_REFUSED)]
    assert node.state.ask_again_at_s == node.state.peers[WITNESS].promised_until_s


def differs(node: Node) -> Event:
    """A beat of a standby that lets others go first."""
    return node.beat(readiness=Readiness.DIFFERS)


def test_after_a_kill_by_the_guard_the_peer_goes_first() -> None:
    node = begun(durable=held_by(THE_PRIMARY, led=True), was_enforced=True)

    node.takes(all_down(node), node.beat(), witness_is_free(node))

    assert (phase(node), node.state.reason) == (Phase.STANDBY, Reason.GUARD_KILL)
    ready, because = reports.readiness(node.state, node.now, node.policy)
    assert ready is Readiness.DIFFERS
    assert because == ("its guard had to end the lease of the agent before this one",)
    assert questions(goes_on(node, LEASE_S - 1.0, peer_stands_by, witness_is_free)) == []
    assert questions(goes_on(node, 2.0, peer_stands_by, witness_is_free)), "it has not asked"


def test_after_a_kill_by_the_guard_the_peer_has_our_vote_at_once() -> None:
    """It may hear nobody else. The record names us, so nothing was promised to another (V4)."""
    node = begun(durable=held_by(THE_PRIMARY, led=True), was_enforced=True)
    node.takes(all_down(node), node.beat())

    vote = vote_in(node.takes(node.asked(VoteKind.CANDIDACY, TERM + 1)))

    assert vote.granted
    assert node.state.durable.holder == THE_BACKUP


def test_after_a_kill_by_the_guard_nobody_has_our_vote_while_something_runs() -> None:
    node = begun(durable=held_by(THE_PRIMARY, led=True), was_enforced=True)
    node.takes(all_up(node), node.beat())

    vote = vote_in(node.takes(node.asked(VoteKind.CANDIDACY, TERM + 1)))

    assert vote.refusal is Refusal.CONTAINERS_RUN


def test_after_a_kill_by_the_guard_a_peer_that_is_not_able_is_not_waited_for() -> None:
    node = begun(durable=held_by(THE_PRIMARY, led=True), was_enforced=True)

    node.takes(all_down(node), node.beat(readiness=Readiness.CANNOT), witness_is_free(node))

    assert phase(node) is Phase.ACQUIRING


def test_a_voter_that_takes_its_word_back_counts_no_more() -> None:
    node = a_candidate_of_three()
    node.takes(witness_votes(node, VoteKind.POLL))
    asked = node.state.candidacy
    assert asked is not None

    node.takes(witness_votes(node, VoteKind.CANDIDACY, Refusal.OLD_TERM, term=30))

    assert node.state.candidacy is not None
    assert node.state.candidacy.granted == {PRIMARY}
    assert node.state.candidacy.refused == {WITNESS}


def test_what_was_granted_and_then_given_up_is_given_back() -> None:
    node = a_candidate_of_three()
    node.takes(witness_votes(node, VoteKind.POLL))
    node.takes(witness_votes(node, VoteKind.CANDIDACY, Refusal.OLD_TERM))

    step = node.takes(node.vote(VoteKind.CANDIDACY, Refusal.PROMISED))

    assert phases(step) == [(Phase.STANDBY, Reason.VOTE_REFUSED)]
    assert {
        (sent.to, sent.request.term, sent.request.to) for sent in of_kind(step, SendRelease)
    } == {
        (BACKUP, TERM + 1, None),
        (WITNESS, TERM + 1, None),
    }
    assert node.state.durable.released


def test_a_poll_that_is_given_up_gives_nothing_back() -> None:
    node = a_candidate_of_three()
    node.takes(node.vote(VoteKind.POLL, Refusal.CONTAINERS_RUN))

    step = node.takes(witness_votes(node, VoteKind.POLL, Refusal.JUST_STARTED, remaining_s=4.0))

    assert phases(step) == [(Phase.STANDBY, Reason.VOTE_REFUSED)]
    assert of_kind(step, SendRelease) == []


# --- takeover -------------------------------------------------------------------------------------


def takes_over(node: Node) -> None:
    """The witness grants what is asked, and the guard watches."""
    node.takes(witness_votes(node, VoteKind.POLL))
    node.takes(witness_votes(node, VoteKind.CANDIDACY))
    node.takes(GuardArmed(held_term(node)))


def test_a_standby_takes_over_by_majority_when_its_peer_is_silent() -> None:
    node = a_standby_of_three()

    early = goes_on(node, 10.0, witness_is_promised)
    goes_on(node, 0.2)
    node.takes(witness_is_free(node))
    assert phases(early) == []
    assert phase(node) is Phase.ACQUIRING
    takes_over(node)

    assert phase(node) is Phase.PROMOTING
    assert held_term(node) == TERM + 1
    assert node.state.start_job == TERM + 1


def test_a_partition_policy_decides_nothing_beside_an_arbiter() -> None:
    node = a_standby_of_three(trio(BACKUP, partition_policy="consistency"))

    goes_on(node, 10.2, witness_is_free)

    assert phase(node) is Phase.ACQUIRING


def test_when_the_peer_releases_the_named_standby_asks_at_once() -> None:
    node = a_standby_of_three()

    step = node.takes(node.released())

    assert phases(step) == [(Phase.ACQUIRING, Reason.CONTAINER_DOWN)]


def test_after_a_boot_a_node_with_a_silent_peer_asks_the_arbiter_and_waits_for_no_grace() -> None:
    for role in (PRIMARY, BACKUP):
        node = begun(trio(role), boot_is_new=True)
        node.takes(all_down(node))

        goes_on(node, 10.2, witness_is_free)

        assert phase(node) is Phase.ACQUIRING
        takes_over(node)
        assert phase(node) is Phase.PROMOTING


def test_a_new_backup_waits_for_its_primary_which_may_run_the_service_already() -> None:
    node = begun(trio(BACKUP), Durable(), record_lost=True)
    node.takes(all_down(node))

    step = goes_on(node, 60.0, witness_is_free)

    assert phases(step) == []
    assert "waiting_for_primary" in alarms(node)


def test_a_new_backup_waits_until_its_primary_has_looked_what_runs_there() -> None:
    node = begun(trio(BACKUP), Durable(), record_lost=True)
    node.takes(all_down(node))
    goes_on(node, 30.0, witness_is_free)

    looking = {"readiness": Readiness.CANNOT, "running": None}
    unsure = goes_on(node, 5.0, witness_is_free, lambda node: node.beat(**looking))
    sure = goes_on(node, 1.1, witness_is_free, lambda node: node.beat(**{**looking, "running": 0}))

    assert phases(unsure) == []
    assert phases(sure) == [(Phase.ACQUIRING, Reason.FIRST_START)]


def test_a_new_backup_starts_alone_by_majority_where_it_is_told_to() -> None:
    node = begun(trio(BACKUP, lone_start=LoneStart.START), Durable(), record_lost=True)
    node.takes(all_down(node))

    goes_on(node, 10.2, witness_is_free)
    takes_over(node)

    assert held_term(node) == 1


def test_a_backup_that_lost_its_record_starts_by_majority_in_a_pair_that_was_led_before() -> None:
    node = begun(trio(BACKUP), Durable(), record_lost=True)
    node.takes(all_down(node))

    goes_on(node, 10.2, lambda node: word(node, term=3))
    takes_over(node)

    assert held_term(node) == 4


def test_after_a_boot_a_node_alone_with_a_silent_arbiter_starts_nothing() -> None:
    node = begun(boot_is_new=True)
    node.takes(all_down(node))

    step = goes_on(node, 120.0)

    assert questions(step) == []
    assert of_kind(step, StartContainers) == []


def test_an_arbiter_is_never_asked_to_take_the_service() -> None:
    node = active_of_three()

    step = goes_on(node, 40.0, witness_renews)
    node.takes(StopRequested())
    asked = goes_on(node, 2.0, witness_renews)

    assert questions(step) == []
    assert all(role is not WITNESS for role, _, _ in questions(asked))


def test_a_beat_to_an_arbiter_says_nothing_of_containers_and_settings() -> None:
    node = active_of_three()

    said = {sent.to: sent.beat for sent in of_kind(node.waits(1.0), SendHeartbeat)}

    silent = ("", "", None)
    told = said[WITNESS]
    assert (told.profile_digest, told.knows_digest, told.profile) == silent
    assert said[BACKUP].profile_digest
    assert said[BACKUP].knows_digest
    assert said[BACKUP].profile is not None
    assert said[WITNESS].renews


def test_an_arbiter_never_asks_anything_and_whoever_does_in_its_name_is_not_answered() -> None:
    node = active_of_three()
    asks: list[Event] = [
        node.leading_beat(9, sender=witness_sender()),
        node.asked(VoteKind.CANDIDACY, 9, role=WITNESS),
        ReleaseReceived(3, ReleaseRequest(witness_sender(), 9, None, Reason.OPERATOR)),
    ]

    step = node.takes(*asks)

    assert of_kind(step, Reply) == []
    assert phases(step) == []
    assert node.state.counters.stale == len(asks)


def test_an_arbiter_has_no_phase_whatever_it_says_of_itself() -> None:
    node = active_of_three()
    said = witness_renews(node)
    beat = node.leading_beat(9, sender=witness_sender()).beat

    step = node.takes(replace(said, answer=replace(said.answer, beat=beat)))

    assert phases(step) == []
    assert node.state.peers[WITNESS].phase is None


# --- what may run without a lease (G3) ------------------------------------------------------------


def strays_stopped(step: Step) -> list[tuple[tuple[str, ...], float | None]]:
    """What was stopped, and with which grace."""
    return [(stop.names, stop.grace_s) for stop in of_kind(step, StopContainers)]


def test_what_docker_started_after_a_reboot_is_stopped_first() -> None:
    node = begun(boot_is_new=True)

    step = node.takes(node.beat(), all_up(node))

    assert strays_stopped(step) == [(("web", "db"), 0.0)]


def test_what_runs_without_a_lease_is_stopped_at_once_unless_the_peer_says_it_does_not_lead() -> (
    None
):
    silent = begun()
    heard = begun()
    heard.takes(heard.beat())

    assert strays_stopped(silent.takes(all_up(silent))) == [(("web", "db"), 0.0)]
    assert strays_stopped(heard.takes(all_up(heard))) == []


def test_it_is_kept_no_longer_than_the_peer_answers() -> None:
    node = begun()
    node.takes(node.beat(), all_up(node))

    early = goes_on(node, 2.9)
    late = goes_on(node, 0.2)

    assert strays_stopped(early) == []
    assert strays_stopped(late) == [(("web", "db"), 0.0)]


def test_it_is_stopped_as_soon_as_the_peer_asks_for_leave_to_lead() -> None:
    node = begun()
    node.takes(node.beat(readiness=Readiness.CANNOT), all_up(node))

    step = node.takes(node.asked(VoteKind.POLL))

    assert vote_in(step).refusal is Refusal.CONTAINERS_RUN
    assert strays_stopped(step) == [(("web", "db"), 0.0)]


def test_it_is_stopped_as_soon_as_the_peer_leads() -> None:
    node = begun()
    node.takes(node.beat(readiness=Readiness.CANNOT), all_up(node))

    step = node.takes(peer_leads(node))

    assert strays_stopped(step) == [(("web", "db"), 0.0)]


def test_a_service_that_was_there_before_its_agents_runs_on_while_nobody_is_up_yet() -> None:
    node = begun(durable=Durable(), record_lost=True)

    early = node.takes(all_up(node))
    late = goes_on(node, 60.0)

    assert strays_stopped(early) == strays_stopped(late) == []
    assert phases(late) == []


def test_and_goes_on_running_when_the_arbiter_gives_leave() -> None:
    node = begun(durable=Durable(), record_lost=True)
    node.takes(all_up(node))

    waited = goes_on(node, 10.2, witness_is_free)
    polled = node.takes(witness_votes(node, VoteKind.POLL))
    asked = goes_on(node, 0.5)
    won = node.takes(witness_votes(node, VoteKind.CANDIDACY))

    assert [strays_stopped(step) for step in (waited, polled, asked, won)] == [[], [], [], []]
    assert held_term(node) == 1
    assert not node.state.is_first


@pytest.mark.parametrize("told", ["by the arbiter", "by the peer"])
def test_it_was_no_first_start_if_somebody_knows_of_a_term(told: str) -> None:
    node = begun(durable=Durable(), record_lost=True)
    node.takes(all_up(node))

    step = node.takes(word(node, term=3) if told == "by the arbiter" else peer_leads(node))

    assert strays_stopped(step) == [(("web", "db"), 0.0)]


def test_it_is_no_first_start_any_more_once_the_peer_has_our_vote() -> None:
    """Granted and never heard of again: the peer may lead, what appears here is a stray."""
    node = begun(trio(BACKUP), durable=Durable(), record_lost=True)
    node.takes(all_down(node))
    goes_on(node, 10.2, lambda node: node.beat(readiness=Readiness.READY))
    granted = node.takes(node.asked(VoteKind.CANDIDACY, term=1))
    goes_on(node, 30.0)

    step = node.takes(all_up(node))

    assert vote_in(granted).granted
    assert strays_stopped(step) == [(("web", "db"), 0.0)]


def test_at_a_first_start_too_whoever_was_heard_has_to_be_heard_on() -> None:
    node = begun(durable=Durable(), record_lost=True)
    node.takes(all_up(node), witness_is_free(node))

    early = goes_on(node, 2.9)
    late = goes_on(node, 0.2)

    assert strays_stopped(early) == []
    assert strays_stopped(late) == [(("web", "db"), 0.0)]


def test_a_stray_on_a_standby_is_stopped_at_once() -> None:
    node = a_standby_of_three()

    step = node.takes(changed("web"))

    assert strays_stopped(step) == [(("web",), 0.0)]
    assert "stray_container" in alarms(node)


def test_a_candidate_stops_what_runs_without_a_lease() -> None:
    node = a_candidate_of_three()
    goes_on(node, 4.0, witness_is_free)

    step = node.takes(changed("web"))

    assert strays_stopped(step) == [(("web",), 0.0)]


def test_the_running_containers_of_a_live_lease_are_left_alone_while_it_is_asked_for() -> None:
    node = restarted(START_S + 8.0)

    step = goes_on(node, 5.0)

    assert strays_stopped(step) == []


# --- H5, H7: handing over and raising with three voters -------------------------------------------


def test_a_handover_goes_on_while_the_arbiter_is_silent() -> None:
    node = active_of_three()
    goes_on(node, 15.0, peer_renews)
    node.takes(StopRequested())

    step = node.takes(node.vote(VoteKind.PREPARE))
    assert phases(step) == [(Phase.DEMOTING, Reason.AGENT_STOPPING)]
    step = node.takes(all_down(node), ContainersStopped(held_term(node)))

    assert {(sent.to, sent.request.to) for sent in of_kind(step, SendRelease)} == {
        (BACKUP, BACKUP),
        (WITNESS, BACKUP),
    }


def test_a_handover_is_renewed_until_everything_is_confirmed_stopped() -> None:
    node = active_of_three()
    node.takes(StopRequested())
    node.takes(node.vote(VoteKind.PREPARE))

    said = of_kind(node.waits(3.0), SendHeartbeat)

    assert said
    assert all(sent.beat.renews for sent in said)


def test_a_release_that_names_the_peer_is_not_over_when_the_arbiter_has_it() -> None:
    node = active_of_three()
    node.takes(StopRequested())
    node.takes(node.vote(VoteKind.PREPARE))
    node.takes(all_down(node), ContainersStopped(held_term(node)))

    node.takes(witness_knows(TERM + 1))

    assert {sent.to for sent in of_kind(node.waits(1.0), SendRelease)} == {BACKUP}


def test_a_handover_repeats_its_release_to_the_one_it_names_beyond_the_promises() -> None:
    node = active_of_three()
    node.takes(StopRequested(host_is_shutting_down=True))
    node.takes(node.vote(VoteKind.PREPARE))
    node.takes(all_down(node), ContainersStopped(held_term(node)))
    assert node.state.release is not None

    node.now = node.state.release.until_s + 1.0
    step = node.takes()
    step = goes_on(node, 1.1)

    assert BACKUP in {sent.to for sent in of_kind(step, SendRelease)}


def outgrown(node: Node, *, holder: Holder | None = None, term: int = 9) -> Event:
    """The witness granted a higher term than ours, and is promised to nobody, or to `holder`."""
    return word(node, term=term, holder=holder, refusal=Refusal.OLD_TERM)


def test_told_of_a_higher_term_by_a_free_voter_it_raises_its_own_in_place() -> None:
    node = active_of_three()

    step = node.takes(outgrown(node))

    assert questions(step) == [(BACKUP, VoteKind.CANDIDACY, 10), (WITNESS, VoteKind.CANDIDACY, 10)]
    assert phases(step) == []
    step = node.takes(witness_votes(node, VoteKind.CANDIDACY))
    assert held_term(node) == 10
    assert phases(step) == []
    assert of_kind(step, StopContainers) == []


def test_until_a_majority_has_granted_the_higher_term_the_old_one_is_held_and_renewed() -> None:
    node = active_of_three()
    node.takes(outgrown(node))

    said = [sent.beat for sent in of_kind(node.waits(1.0), SendHeartbeat)]

    assert {(beat.term, beat.renews) for beat in said} == {(TERM + 1, True)}


def test_a_voter_that_is_promised_to_another_raises_nothing() -> None:
    node = active_of_three()

    step = node.takes(outgrown(node, holder=THE_BACKUP))

    assert questions(step) == []
    assert node.state.candidacy is None


def test_a_raise_that_both_refuse_is_dropped_and_tried_again_later() -> None:
    node = active_of_three()
    node.takes(outgrown(node))

    node.takes(witness_votes(node, VoteKind.CANDIDACY, Refusal.OLD_TERM))
    is_dropped_by_one = node.state.candidacy is None
    node.takes(node.vote(VoteKind.CANDIDACY, Refusal.PROMISED))

    assert not is_dropped_by_one
    assert node.state.candidacy is None
    assert held_term(node) == TERM + 1
    goes_on(node, node.policy.promise_length_s, peer_renews)
    assert questions(node.takes(outgrown(node))) != []


def test_a_raise_that_nobody_answers_is_dropped_after_the_timeout() -> None:
    node = active_of_three()
    node.takes(outgrown(node))

    goes_on(node, 10.2, peer_renews)

    assert node.state.candidacy is None
    assert phase(node) is Phase.ACTIVE


def test_a_vote_for_the_raised_term_that_comes_too_late_wins_nothing() -> None:
    node = active_of_three()
    node.takes(outgrown(node))
    asked_at_s = node.now
    goes_on(node, 8.0, peer_renews)

    node.takes(witness_votes(node, VoteKind.CANDIDACY, sent_at_s=asked_at_s))

    assert held_term(node) == TERM + 1


def test_the_cut_between_the_nodes_alone_stops_nothing() -> None:
    node = active_of_three()

    goes_on(node, 60.0, witness_renews)

    assert phase(node) is Phase.ACTIVE
    assert "redundancy_lost" in alarms(node)


# --- alarms ---------------------------------------------------------------------------------------


def test_the_loss_of_the_arbiter_is_an_alarm_on_both_nodes() -> None:
    leader, follower = active_of_three(), a_standby_of_three()
    for node, voice in ((leader, peer_renews), (follower, peer_leads)):
        assert "redundancy_lost" not in alarms(node)
        node.takes(HeartbeatFailed(WITNESS, node.now, "timed out"))

        goes_on(node, 11.0, voice)

        assert "nothing is heard from the arbiter (timed out)" in list(sentences(node))
        node.takes(witness_is_free(node) if node is follower else witness_renews(node))
        assert "redundancy_lost" not in alarms(node)


def test_a_peer_that_is_not_ready_and_a_lost_arbiter_are_one_alarm() -> None:
    node = active_of_three()

    def half_dead(node: Node) -> Event:
        because = ("web: no such container",)
        return node.renewed(readiness=Readiness.CANNOT, not_ready_because=because)

    goes_on(node, 11.0, half_dead)

    assert alarms(node) == {"redundancy_lost"}
    (sentence,) = sentences(node)
    assert "the backup is not ready: web: no such container" in sentence
    assert "nothing is heard from the arbiter" in sentence


def test_an_arbiter_that_was_never_heard_is_an_alarm_once_it_should_have_been() -> None:
    node = begun(trio(BACKUP), held_by(THE_PRIMARY))
    node.takes(all_down(node), peer_leads(node))

    goes_on(node, 5.0, peer_leads)
    assert "redundancy_lost" not in alarms(node)
    goes_on(node, 6.0, peer_leads)

    assert "nothing is heard from the arbiter" in list(sentences(node))


def test_whose_promise_the_arbiter_told_of_is_forgotten_when_it_has_ended() -> None:
    node = a_standby_of_three()
    goes_on(node, 12.0, witness_is_promised)
    assert "peer_unheard" in alarms(node)

    goes_on(node, 5.2)

    assert "peer_unheard" not in alarms(node)


def held_for_the_primary(node: Node) -> Event:
    """The arbiter holds for the primary, which left."""
    return word(node, holder=THE_PRIMARY, remaining_s=FOREVER)


# --- an operator ----------------------------------------------------------------------------------


def test_the_word_of_an_operator_is_no_vote_beside_an_arbiter_that_is_not_heard() -> None:
    node = a_standby_of_three()
    goes_on(node, 15.0)

    told = order(node, CommandKind.TAKEOVER)

    assert not told.accepted
    assert "Neither the other node nor the arbiter is heard" in told.sentence


def test_nor_before_anybody_was_heard() -> None:
    node = begun()
    node.takes(all_down(node))

    told = order(node, CommandKind.TAKEOVER)

    assert not told.accepted
    assert "Neither the other node nor the arbiter is heard" in told.sentence


def test_with_the_arbiter_gone_it_is_taken_where_the_other_node_gives_its_vote() -> None:
    node = begun(trio(BACKUP))
    node.takes(all_down(node), node.beat(readiness=Readiness.CANNOT))

    told = order(node, CommandKind.TAKEOVER)

    assert told.accepted
    node.takes(node.vote(VoteKind.POLL))
    node.takes(node.vote(VoteKind.CANDIDACY))
    assert node.state.is_holding


def test_nor_while_the_arbiter_hears_the_other_node() -> None:
    node = a_standby_of_three()
    goes_on(node, 12.0, witness_is_promised)

    told = order(node, CommandKind.TAKEOVER)

    assert not told.accepted
    assert "The arbiter hears the other node" in told.sentence


def test_nor_right_after_the_other_node_was_heard() -> None:
    node = a_standby_of_three()
    goes_on(node, 4.0, witness_is_free)

    told = order(node, CommandKind.TAKEOVER)

    assert not told.accepted
    assert "was heard a moment ago" in told.sentence


def test_the_word_of_an_operator_ends_a_hold() -> None:
    node = a_standby_of_three()
    beat = node.leading_beat(hold=True)
    node.takes(beat)
    waited = goes_on(node, 30.0, held_for_the_primary)
    assert questions(waited) == []
    assert "held" in alarms(node)

    told = order(node, CommandKind.TAKEOVER)

    assert told.accepted
    assert phase(node) is Phase.ACQUIRING
    takes_over(node)
    assert phase(node) is Phase.PROMOTING


def test_a_hold_that_only_the_arbiter_keeps_is_waited_out_until_the_operator_speaks() -> None:
    node = a_standby_of_three()
    waited = goes_on(node, 60.0, held_for_the_primary)
    assert questions(waited) == []
    assert "held" in alarms(node)
    assert "peer_unheard" not in alarms(node)

    told = order(node, CommandKind.TAKEOVER)
    step = goes_on(node, 1.1, held_for_the_primary)

    assert told.accepted
    assert (WITNESS, VoteKind.POLL, 0) in questions(step)


def test_a_hold_of_an_arbiter_that_lost_its_record_stands_until_the_operator_speaks() -> None:
    node = a_standby_of_three()
    goes_on(node, 15.0, held_for_the_primary)
    waited = goes_on(node, 60.0, forgot)
    assert questions(waited) == []
    assert "held" in alarms(node)

    assert order(node, CommandKind.TAKEOVER).accepted
    assert (WITNESS, VoteKind.POLL, 0) in questions(goes_on(node, 1.1, forgot))


def test_it_ends_by_the_word_of_the_arbiter_that_the_holder_renewed() -> None:
    node = a_standby_of_three()
    goes_on(node, 15.0, held_for_the_primary, forgot)
    goes_on(node, 5.0, promised_to_the_primary)
    assert questions(goes_on(node, 15.0, forgot)) != []


@pytest.mark.parametrize(
    ("term", "hold", "is_over"),
    [(TERM, False, True), (TERM, True, False), (TERM - 1, False, False)],
)
def test_it_ends_by_a_renewal_of_the_holder_in_its_term(
    term: int, hold: bool, is_over: bool
) -> None:
    node = a_standby_of_three()
    goes_on(node, 15.0, held_for_the_primary, forgot)
    node.takes(HeartbeatReceived(9, peer_beat(node, renews=True, term=term, hold=hold)))
    assert node.state.peers[WITNESS].promised_until_s == (node.now if is_over else FOREVER)


def test_it_ends_by_a_release_of_the_holder() -> None:
    node = a_standby_of_three()
    goes_on(node, 15.0, held_for_the_primary, forgot)
    sender = peer_beat(node).sender
    node.takes(ReleaseReceived(9, ReleaseRequest(sender, TERM, None, Reason.OPERATOR)))
    assert node.state.peers[WITNESS].promised_until_s == node.now


def forgot(node: Node) -> Event:
    """An arbiter that lost its record knows of no term."""
    return word(node, term=0)


def promised_to_the_primary(node: Node) -> Event:
    """For a lease, as it renews."""
    return word(node, holder=THE_PRIMARY, remaining_s=0.5)


def test_a_takeover_that_the_peer_belies_is_refused() -> None:
    node = a_standby_of_three()

    told = order(node, CommandKind.TAKEOVER)

    assert not told.accepted


# --- the lease as others see it -------------------------------------------------------------------


def test_a_standby_has_no_lease_and_an_active_node_has_one() -> None:
    leader, follower = active_of_three(), a_standby_of_three()

    assert leases.is_running(leader.state, leader.now, leader.policy)
    assert not leases.is_running(follower.state, follower.now, follower.policy)
    assert leases.valid_until_s(follower.state, follower.policy) == -FOREVER


# --- found by a hostile review --------------------------------------------------------------------


def test_a_candidate_whose_own_vote_was_given_to_a_holder_meanwhile_gives_up() -> None:
    node = a_standby_of_three()
    goes_on(node, 11.0, witness_is_free)
    assert phase(node) is Phase.ACQUIRING
    back = peer_beat(node, phase=Phase.STARTING, renews=True, term=TERM, running=2)

    step = node.takes(HeartbeatReceived(9, back))

    assert phases(step) == [(Phase.STANDBY, Reason.PEER_ACTIVE)]
    node.takes(witness_votes(node, VoteKind.POLL))
    node.takes(witness_votes(node, VoteKind.CANDIDACY))
    assert not node.state.is_holding, "its own vote is the peer's"


def test_an_operators_word_is_no_vote_of_a_node_that_may_have_given_it_away() -> None:
    for record_lost in (False, True):
        node = begun(trio(BACKUP), held_by(THE_PRIMARY), record_lost=record_lost)
        node.takes(all_down(node), witness_is_free(node))

        told = order(node, CommandKind.TAKEOVER)

        assert not told.accepted
        assert "may have given its vote away before" in told.sentence
        assert phase(node) is Phase.STARTING
