"""The voter: promises, and what is refused (design, section 4, V1-V9), in a plain pair."""

from dataclasses import replace

import pytest

from failover_agent.core.effects import SendVoteRequest
from failover_agent.core.events import (
    CommandKind,
    ConflictKind,
    ConflictSeen,
    ContainersObserved,
    HeartbeatReceived,
    Tick,
)
from failover_agent.core.messages import LONGEST_LEASE_S, Refusal, VoteKind
from failover_agent.core.policy import Role
from failover_agent.core.state import (
    FOREVER,
    ContainerState,
    Durable,
    Holder,
    Phase,
    Profile,
    Promise,
    Readiness,
    Reason,
)
from failover_agent.core.votes import own_candidacy_is_free, standing_promise
from tests.unit.core.builders import (
    BACKUP,
    PRIMARY,
    TERM,
    THE_BACKUP,
    THE_PRIMARY,
    Node,
    a_candidate,
    a_lonely_standby,
    a_standby,
    active,
    alarms,
    all_down,
    all_up,
    changed,
    demoting,
    engine_lost,
    failed,
    held_by,
    leading,
    of_kind,
    order,
    peer_beat,
    peer_sender,
    phases,
    policy,
    promoting,
    reply,
    seen,
    starting,
    vote_in,
)

STRANGER = Holder(PRIMARY, "node-x")


def beat_of(node: Node, holder: Holder, term: int = TERM) -> HeartbeatReceived:
    """A renewal asked by another node of the peer's role."""
    return node.leading_beat(term, sender=peer_sender(node, node_id=holder.node_id))


# --- V1: at most one promise, for the length asked, on our own clock ------------------------------


def test_a_promise_runs_for_the_length_asked_and_a_bit_more_on_our_own_clock() -> None:
    node = a_standby()

    vote = vote_in(node.takes(node.leading_beat(lease_s=7.0), after_s=5.0))

    assert vote.granted
    assert (vote.term, vote.holder) == (TERM, THE_PRIMARY)
    assert vote.remaining_s == pytest.approx(7.0 * 1.01)
    assert node.state.promise == Promise(THE_PRIMARY, TERM, node.now + 7.0 * 1.01)


def test_a_promise_that_has_ended_stands_no_longer() -> None:
    node = a_standby()
    promise = node.state.promise
    assert promise is not None

    assert standing_promise(node.state, promise.until_s - 0.01) == promise
    assert standing_promise(node.state, promise.until_s) is None


def test_nobody_is_promised_more_than_an_hour() -> None:
    node = a_standby()
    before = node.state.promise

    vote = vote_in(node.takes(node.leading_beat(lease_s=LONGEST_LEASE_S + 1)))

    assert (vote.granted, vote.refusal) == (False, Refusal.LEASE_TOO_LONG)
    assert node.state.promise == before
    vote = vote_in(node.takes(node.asked(VoteKind.POLL, lease_s=LONGEST_LEASE_S + 1)))
    assert vote.refusal is Refusal.LEASE_TOO_LONG


def test_an_hour_is_not_too_long() -> None:
    node = a_standby()

    assert vote_in(node.takes(node.leading_beat(lease_s=LONGEST_LEASE_S))).granted
    node.waits(11)
    asked = node.asked(VoteKind.POLL, lease_s=LONGEST_LEASE_S)
    assert vote_in(node.takes(asked)).refusal is not Refusal.LEASE_TOO_LONG


# --- V2: whom it renews for, and what a refusal tells ---------------------------------------------


def test_a_renewal_is_for_the_holder_of_the_term_alone() -> None:
    node = a_standby()
    node.now += 11  # The promise has ended, but the term was granted to another.

    vote = vote_in(node.takes(beat_of(node, STRANGER)))

    assert (vote.granted, vote.refusal) == (False, Refusal.OLD_TERM)
    assert node.state.durable.holder == THE_PRIMARY


def test_nobody_else_is_renewed_while_a_promise_stands() -> None:
    node = a_standby()

    vote = vote_in(node.takes(beat_of(node, STRANGER, TERM + 1)))

    assert (vote.granted, vote.refusal) == (False, Refusal.PROMISED)
    assert vote.holder == THE_PRIMARY
    assert vote.remaining_s == pytest.approx(10.1)


def test_a_term_below_the_highest_granted_is_not_renewed() -> None:
    node = a_standby()

    vote = vote_in(node.takes(node.leading_beat(TERM - 1)))

    assert (vote.granted, vote.refusal, vote.term) == (False, Refusal.OLD_TERM, TERM)


def test_a_term_that_was_given_back_is_not_renewed() -> None:
    node = starting(durable=held_by(THE_BACKUP, released=True))

    vote = vote_in(node.takes(node.leading_beat(TERM)))

    assert (vote.granted, vote.refusal) == (False, Refusal.OLD_TERM)


def test_a_higher_term_than_the_granted_one_is_renewed_and_taken_over() -> None:
    node = a_standby()

    vote = vote_in(node.takes(node.leading_beat(TERM + 3)))

    assert vote.granted
    assert (node.state.durable.term, node.state.durable.holder) == (TERM + 3, THE_PRIMARY)


def test_a_report_of_a_standby_renews_nothing() -> None:
    node = a_standby()
    before = node.state.promise

    answer = reply(node.takes(node.beat(holder=PRIMARY), after_s=5.0))

    assert answer.vote is None
    assert node.state.promise == before


def test_a_refusal_changes_nothing_and_tells_whose_promise_stands() -> None:
    node = a_standby()
    node.lives(11, node.leading_beat())
    before = node.state.durable, node.state.promise

    answer = reply(node.takes(node.asked(VoteKind.CANDIDACY, TERM + 1, node_id="node-x")))

    vote = answer.vote
    assert (vote.granted, vote.refusal, vote.term) == (False, Refusal.PROMISED, TERM)
    assert vote.holder == THE_PRIMARY
    assert vote.remaining_s == pytest.approx(10.1)
    assert (node.state.durable, node.state.promise) == before
    assert (answer.asked_term, answer.phase) == (TERM + 1, Phase.STANDBY)


@pytest.mark.parametrize(("term", "refusal"), [(TERM, Refusal.OLD_TERM), (TERM + 1, None)])
def test_a_candidacy_needs_a_term_above_the_highest_granted(
    term: int, refusal: Refusal | None
) -> None:
    node = starting(policy(BACKUP), held_by(THE_BACKUP, released=True))
    node.takes(all_down(node))

    vote = vote_in(node.takes(node.asked(VoteKind.CANDIDACY, term)))

    assert vote.refusal is refusal
    assert node.state.durable.term == (TERM if refusal else TERM + 1)


def test_the_holder_itself_may_be_a_candidate_in_its_own_term_again() -> None:
    node = starting(policy(BACKUP), held_by(THE_PRIMARY))
    node.takes(all_down(node))

    assert vote_in(node.takes(node.asked(VoteKind.CANDIDACY, TERM))).granted


# --- V3: what is on disk before it is said --------------------------------------------------------


def test_a_renewal_writes_nothing() -> None:
    node = a_standby()

    assert node.would_save(node.leading_beat()) is None


def test_a_longer_promise_is_written_because_it_binds_us_after_a_crash() -> None:
    node = a_standby()

    saved = node.would_save(node.leading_beat(lease_s=20.0))

    assert saved is not None
    assert saved.longest_lease_s == 20.0


def test_a_candidacy_is_written_before_it_is_granted_and_a_poll_never() -> None:
    node = starting(policy(BACKUP), held_by(THE_BACKUP, released=True))
    node.takes(all_down(node))

    saved = node.would_save(node.asked(VoteKind.CANDIDACY, TERM + 1))

    assert saved is not None
    assert (saved.term, saved.holder, saved.released) == (TERM + 1, THE_PRIMARY, False)
    assert node.would_save(node.asked(VoteKind.POLL)) is None


def test_a_release_is_written_before_it_is_answered() -> None:
    node = a_standby()

    saved = node.would_save(node.released(to=PRIMARY))

    assert saved is not None
    assert saved.released


# --- V4: after a start ----------------------------------------------------------------------------


def test_after_a_start_the_holder_on_record_is_served_at_once() -> None:
    node = starting(policy(BACKUP), held_by(THE_PRIMARY))
    node.takes(all_down(node))

    assert vote_in(node.takes(node.leading_beat())).granted
    node = starting(policy(BACKUP), held_by(THE_PRIMARY))
    node.takes(all_down(node))
    assert vote_in(node.takes(node.asked(VoteKind.POLL))).granted


def test_after_a_start_anybody_is_served_at_once_if_the_record_says_released() -> None:
    node = starting(policy(BACKUP), held_by(THE_BACKUP, released=True))
    node.takes(all_down(node))

    assert vote_in(node.takes(node.asked(VoteKind.POLL, node_id="node-x"))).granted


def test_after_a_start_anybody_else_waits_for_the_longest_promise_we_made() -> None:
    node = starting(policy(BACKUP), held_by(THE_BACKUP, longest_lease_s=30.0))
    node.takes(all_down(node))

    node.now += 30.2
    vote = vote_in(node.takes(node.asked(VoteKind.POLL)))
    assert (vote.granted, vote.refusal) == (False, Refusal.JUST_STARTED)
    node.now += 0.1
    assert vote_in(node.takes(node.asked(VoteKind.POLL))).granted


def test_our_own_candidacy_waits_as_well() -> None:
    node = starting(policy(), held_by(THE_BACKUP))

    assert not own_candidacy_is_free(node.state, node.now + 10.0)
    assert own_candidacy_is_free(node.state, node.now + 10.1)


def test_without_a_record_nobody_is_granted_a_candidacy_for_the_timeout() -> None:
    node = starting(policy(BACKUP), record_lost=True)
    node.takes(all_down(node))

    assert vote_in(node.takes(node.asked(VoteKind.POLL))).refusal is Refusal.JUST_STARTED
    node.now += 10.1
    assert vote_in(node.takes(node.asked(VoteKind.POLL))).granted


def test_without_a_record_the_longest_timeout_told_by_the_others_counts() -> None:
    node = starting(policy(BACKUP), record_lost=True)
    node.takes(all_down(node), node.beat(longest_lease_s=20.0))

    node.now += 15
    assert vote_in(node.takes(node.asked(VoteKind.POLL))).refusal is Refusal.JUST_STARTED
    node.now += 5.3
    assert vote_in(node.takes(node.asked(VoteKind.POLL))).granted


def test_a_refusal_after_a_start_tells_how_long_it_is_in_force() -> None:
    node = starting(policy(BACKUP), record_lost=True)
    node.takes(all_down(node))

    vote = vote_in(node.takes(node.asked(VoteKind.POLL), after_s=4.0))

    assert vote.remaining_s == pytest.approx(6.1)


def test_renewals_are_granted_throughout_even_without_a_record() -> None:
    node = starting(policy(BACKUP), record_lost=True)
    node.takes(all_down(node))

    vote = vote_in(node.takes(node.leading_beat(TERM)))

    assert vote.granted
    assert (node.state.durable.term, node.state.durable.holder) == (TERM, THE_PRIMARY)


# --- V5: a vote for another only while nothing runs here ------------------------------------------


@pytest.mark.parametrize(
    "observed",
    [
        pytest.param(changed("db"), id="one runs"),
        pytest.param(changed("db", ContainerState.DOWN, alive=True), id="one is paused"),
        pytest.param(engine_lost(None), id="one cannot be told"),
    ],
)
def test_no_vote_unless_it_is_confirmed_that_nothing_runs_here(observed: object) -> None:
    node = starting(policy(BACKUP), held_by(THE_BACKUP, released=True))
    assert isinstance(observed, type(changed("db")) | type(engine_lost(None)))
    if isinstance(observed, type(changed("db"))):
        node.takes(all_down(node))

    vote = vote_in(node.takes(observed, node.asked(VoteKind.POLL)))

    assert (vote.granted, vote.refusal) == (False, Refusal.CONTAINERS_RUN)


def test_a_renewal_in_a_term_that_is_new_to_us_is_a_vote_like_any_other() -> None:
    node = a_standby()
    node.takes(changed("db"))

    vote = vote_in(node.takes(node.leading_beat(TERM + 1)))
    assert (vote.granted, vote.refusal) == (False, Refusal.CONTAINERS_RUN)
    assert vote_in(node.takes(node.leading_beat(TERM))).granted


def test_before_the_first_snapshot_nothing_is_confirmed() -> None:
    node = starting(policy(BACKUP), held_by(THE_PRIMARY))

    assert vote_in(node.takes(node.asked(VoteKind.POLL))).refusal is Refusal.CONTAINERS_RUN


def test_confirmed_stays_confirmed_when_the_engine_is_lost() -> None:
    node = starting(policy(BACKUP), held_by(THE_BACKUP, released=True))
    node.takes(all_down(node), engine_lost(None, "db", "web"))

    assert vote_in(node.takes(node.asked(VoteKind.POLL))).granted


@pytest.mark.parametrize("build", [promoting, active, demoting, failed])
def test_a_node_that_holds_a_term_is_promised_to_itself_alone(build: object) -> None:
    assert callable(build)
    node: Node = build()

    poll = vote_in(node.takes(node.asked(VoteKind.POLL)))
    candidacy = vote_in(node.takes(node.asked(VoteKind.CANDIDACY, 99)))
    prepare = vote_in(node.takes(node.asked(VoteKind.PREPARE, 99)))

    assert {poll.refusal, candidacy.refusal, prepare.refusal} == {Refusal.LEADING}
    assert (poll.holder, poll.remaining_s) == (THE_PRIMARY, FOREVER)
    assert node.state.durable.term < 99


def test_a_peer_that_asks_an_active_node_for_a_renewal_is_refused() -> None:
    node = active()

    vote = vote_in(node.takes(node.leading_beat(TERM)))

    assert (vote.granted, vote.refusal) == (False, Refusal.LEADING)


# --- V6: a candidate gives way to one of higher preference ----------------------------------------


def asking_backup() -> Node:
    """A backup that has taken a term and asks for it."""
    node = a_candidate(policy(BACKUP), durable=held_by(THE_BACKUP, longest_lease_s=0.0))
    node.takes(node.vote(VoteKind.POLL))
    assert node.state.durable.holder == THE_BACKUP
    return node


@pytest.mark.parametrize("above", [0, 1])
def test_a_candidate_gives_its_vote_to_a_preferred_one_at_an_equal_term_too(above: int) -> None:
    node = asking_backup()
    term = node.state.durable.term + above

    step = node.takes(node.asked(VoteKind.CANDIDACY, term))

    assert vote_in(step).granted
    assert phases(step) == [(Phase.STANDBY, Reason.HIGHER_PREFERENCE)]
    assert node.state.durable.holder == THE_PRIMARY
    assert node.state.promise == Promise(THE_PRIMARY, term, node.now + 10.1)


def test_it_forgets_its_candidacy_and_every_answer_to_it() -> None:
    node = asking_backup()
    late = node.vote(VoteKind.CANDIDACY)
    node.takes(node.asked(VoteKind.CANDIDACY, node.state.durable.term))
    stale = node.state.counters.stale

    node.takes(late)

    assert node.state.phase is Phase.STANDBY
    assert node.state.counters.stale == stale + 1


def test_a_candidate_does_not_give_way_to_a_lower_term() -> None:
    node = asking_backup()

    vote = vote_in(node.takes(node.asked(VoteKind.CANDIDACY, node.state.durable.term - 1)))

    assert (vote.refusal, node.state.phase) == (Refusal.OLD_TERM, Phase.ACQUIRING)


def test_the_preferred_candidate_does_not_give_way() -> None:
    node = a_candidate()

    vote = vote_in(node.takes(node.asked(VoteKind.CANDIDACY, TERM + 9)))

    assert (vote.refusal, node.state.phase) == (Refusal.PREFERRED, Phase.ACQUIRING)


def test_a_candidate_by_the_word_of_an_operator_does_not_give_way() -> None:
    node = a_candidate(policy(BACKUP), durable=held_by(THE_BACKUP, longest_lease_s=0.0))
    order(node, CommandKind.TAKEOVER)
    assert node.state.phase is Phase.ACQUIRING

    assert vote_in(node.takes(node.asked(VoteKind.POLL))).refusal is Refusal.PREFERRED


# --- V7: a release --------------------------------------------------------------------------------


def test_a_release_empties_the_promise_at_once() -> None:
    node = a_standby()

    answer = reply(node.takes(node.released(to=PRIMARY)))

    assert (answer.released_term, answer.term) == (TERM, TERM)
    assert node.state.promise is None
    assert node.state.durable.released
    assert not node.state.peers[PRIMARY].holding


def test_a_release_in_a_later_term_raises_the_lowest_that_will_be_granted() -> None:
    node = a_standby()

    node.takes(node.released(TERM + 2, to=PRIMARY))

    assert node.state.durable.term == TERM + 2
    vote = vote_in(node.takes(node.asked(VoteKind.CANDIDACY, TERM + 2)))
    assert vote.refusal is Refusal.OLD_TERM


@pytest.mark.parametrize("case", ["an older term", "another holder"])
def test_a_release_that_does_not_match_changes_nothing(case: str) -> None:
    node = a_standby()
    before = node.state.durable, node.state.promise
    event = node.released(TERM - 1 if case == "an older term" else TERM, to=PRIMARY)
    if case == "another holder":
        sender = peer_sender(node, node_id="node-x")
        event = replace(event, request=replace(event.request, sender=sender))

    answer = reply(node.takes(event))

    assert answer.term == TERM, "it is answered all the same, so that it is not said for ever"
    assert (node.state.durable, node.state.promise) == before


def test_a_holder_ignores_the_release_of_an_earlier_one() -> None:
    node = active(policy(BACKUP), durable=held_by(THE_BACKUP))
    before = node.state.durable

    node.takes(node.released(TERM))

    assert node.state.durable == before


def test_a_beat_of_a_standby_tells_of_its_release_too() -> None:
    node = a_standby()

    node.takes(node.beat(holder=PRIMARY, released=True))

    assert node.state.durable.released
    assert node.state.promise is None


def test_a_release_empties_no_promise_to_somebody_else() -> None:
    node = starting(policy(BACKUP), held_by(THE_PRIMARY))
    node.state = replace(node.state, promise=Promise(THE_BACKUP, TERM + 1, FOREVER))

    node.takes(node.released(TERM, to=PRIMARY))

    assert node.state.durable.released
    assert node.state.promise == Promise(THE_BACKUP, TERM + 1, FOREVER)


# --- V8: hold -------------------------------------------------------------------------------------


def held() -> Node:
    """A standby whose peer left its containers running and asked for a hold."""
    node = a_standby()
    node.takes(node.leading_beat(hold=True))
    return node


def test_a_hold_is_a_promise_without_an_end_on_disk() -> None:
    node = a_standby()

    saved = node.would_save(node.leading_beat(hold=True))
    vote = vote_in(node.takes(node.leading_beat(hold=True)))

    assert saved is not None
    assert saved.hold
    assert (vote.granted, vote.remaining_s) == (True, FOREVER)
    assert node.state.promise == Promise(THE_PRIMARY, TERM, FOREVER)


def test_nobody_takes_over_on_hold_however_long_the_silence() -> None:
    node = held()

    step = node.waits(120)

    assert phases(step) == []
    assert "held" in alarms(node)
    assert vote_in(node.takes(node.asked(VoteKind.POLL, node_id="node-x"))).refusal is (
        Refusal.PROMISED
    )


def test_a_hold_survives_a_restart_of_the_voter() -> None:
    durable = held().state.durable

    node = starting(policy(BACKUP), durable)
    node.takes(all_down(node))
    step = node.waits(120)

    assert phases(step) == []
    assert node.state.promise == Promise(THE_PRIMARY, TERM, FOREVER)
    assert "held" in alarms(node)


def test_a_hold_ends_with_the_next_renewal_of_its_holder() -> None:
    node = held()

    node.takes(node.leading_beat())

    assert not node.state.durable.hold
    assert node.state.promise == Promise(THE_PRIMARY, TERM, node.now + 10.1)


def test_a_hold_ends_with_the_release_of_its_holder() -> None:
    node = held()

    node.takes(node.released(to=PRIMARY))

    assert not node.state.durable.hold
    assert node.state.promise is None


def test_a_hold_ends_when_an_operator_says_takeover() -> None:
    node = held()
    node.waits(5)

    told = order(node, CommandKind.TAKEOVER)

    assert told.accepted
    assert not node.state.durable.hold
    assert (node.state.phase, node.state.reason) == (Phase.PROMOTING, Reason.OPERATOR)


@pytest.mark.parametrize("reason", [Reason.NOBODY_ACTIVE, Reason.OPERATOR])
def test_a_hold_of_a_node_that_lost_its_record_ends_by_an_operator_there(reason: Reason) -> None:
    node = held()
    asked = node.asked(VoteKind.CANDIDACY, TERM + 1, node_id="node-new", reason=reason)
    node.lives(11, node.beat(sender=peer_sender(node, node_id="node-new"), holder=None))

    vote = vote_in(node.takes(asked))

    assert vote.granted == (reason is Reason.OPERATOR)
    assert node.state.durable.hold != vote.granted


def test_the_word_of_an_operator_elsewhere_ends_no_promise_that_is_no_hold() -> None:
    node = a_standby()
    node.lives(11, node.leading_beat())
    asked = node.asked(VoteKind.CANDIDACY, TERM + 1, node_id="node-x", reason=Reason.OPERATOR)

    assert vote_in(node.takes(asked)).refusal is Refusal.PROMISED


def test_the_holder_of_a_hold_may_be_a_candidate_again_when_it_is_back() -> None:
    node = held()

    assert vote_in(node.takes(node.asked(VoteKind.CANDIDACY, TERM + 1, run_id="the-next"))).granted
    assert not node.state.durable.hold


def test_a_holder_does_not_hold_itself_back_with_its_own_hold() -> None:
    """A record on hold that names this very node is a term to resume, no promise to wait for."""
    node = starting(policy(), held_by(THE_PRIMARY, hold=True))

    assert node.state.promise is None


# --- V9: identity and fingerprint -----------------------------------------------------------------


@pytest.mark.parametrize("kind", list(VoteKind))
def test_no_vote_for_a_node_of_another_set_up(kind: VoteKind) -> None:
    node = starting(policy(BACKUP), held_by(THE_PRIMARY, released=True))
    node.takes(all_down(node))

    vote = vote_in(node.takes(node.asked(kind, TERM + 1, fingerprint="three nodes")))

    assert (vote.granted, vote.refusal) == (False, Refusal.FINGERPRINT)


def test_no_renewal_for_a_node_of_another_set_up_and_both_are_not_ready() -> None:
    node = a_standby()
    sender = peer_sender(node, fingerprint="three nodes")

    step = node.takes(node.leading_beat(sender=sender))

    answer = reply(step)
    assert answer.vote.refusal is Refusal.FINGERPRINT
    assert answer.beat.readiness is Readiness.CANNOT
    assert "members, arbiter or partition_policy differ" in answer.beat.not_ready_because[0]
    assert "fingerprint_differs" in alarms(node)


def test_a_node_whose_fingerprint_differs_never_takes_over_on_silence() -> None:
    node = a_standby()
    node.takes(node.leading_beat(sender=peer_sender(node, fingerprint="three nodes")))

    assert phases(node.waits(120)) == []
    told = order(node, CommandKind.TAKEOVER)
    assert not told.accepted
    assert "write back here what it had" in told.sentence


@pytest.mark.parametrize("kind", list(ConflictKind))
def test_a_node_that_sees_a_wrong_set_up_is_never_a_candidate_while_it_lasts(
    kind: ConflictKind,
) -> None:
    node = a_standby()
    conflict = ConflictSeen(kind, "what is wrong", node_id="node-a", may_lead=True)

    step = node.lives(60, conflict)

    assert phases(step) == []
    assert kind in alarms(node)
    assert node.state.counters.rejected == 60
    assert node.state.alarms[kind].sentence == "what is wrong"
    step = node.waits(11)
    assert kind not in alarms(node)
    assert phases(step)[0] == (Phase.ACQUIRING, Reason.PEER_SILENT)


@pytest.mark.parametrize("kind", sorted(set(ConflictKind) - {ConflictKind.SAME_ROLE}))
def test_a_stranger_who_sends_to_us_is_an_alarm_and_keeps_nobody_from_taking_over(
    kind: ConflictKind,
) -> None:
    node = a_standby()

    step = node.lives(12, ConflictSeen(kind, "a stranger", received=True))

    assert kind in alarms(node)
    assert phases(step)[-1] == (Phase.PROMOTING, Reason.PEER_SILENT)


def test_what_a_stranger_sends_does_not_hide_where_our_own_endpoint_leads() -> None:
    node = a_standby()
    wrong = ConflictSeen(ConflictKind.WRONG_ROLE, "our endpoint leads to the witness")

    step = node.lives(60, wrong, replace(wrong, detail="a stranger", received=True))

    assert phases(step) == []


@pytest.mark.parametrize(
    ("node_id", "holding", "may_lead", "gives_way"),
    [
        pytest.param("node-z", False, True, False, id="it has the higher id"),
        pytest.param("node-z", True, True, True, id="it holds a term"),
        pytest.param("node-a", False, True, True, id="it has the lower id"),
        pytest.param("node-a", False, False, False, id="it may never lead"),
    ],
)
def test_of_two_nodes_with_one_role_exactly_one_goes_on(
    node_id: str, holding: bool, may_lead: bool, gives_way: bool
) -> None:
    node = a_lonely_standby()
    conflict = ConflictSeen(ConflictKind.SAME_ROLE, "two", node_id, holding, may_lead)

    node.takes(conflict, Tick(), after_s=1.0)

    assert (node.state.phase is Phase.STANDBY) == gives_way
    assert ConflictKind.SAME_ROLE in alarms(node)


# --- what a voter learns on the way ---------------------------------------------------------------


def test_whoever_was_heard_is_on_record_once() -> None:
    node = starting(policy(BACKUP), Durable(), record_lost=True)

    saved = node.would_save(node.beat())
    node.takes(node.beat())

    assert saved is not None
    assert saved.heard == {PRIMARY}
    assert node.would_save(node.beat()) is None


def test_a_holder_writes_nothing_for_having_heard_somebody() -> None:
    node = starting(policy(), held_by(THE_PRIMARY, heard=frozenset()), boot_is_new=False)
    node.takes(ContainersObserved((seen("db"), seen("web"))))
    node.waits(21)
    assert node.state.phase is Phase.PROMOTING

    assert node.would_save(node.beat()) is None


def test_a_poll_is_answered_by_what_would_be_granted_and_promises_nothing() -> None:
    node = starting(policy(BACKUP), held_by(THE_BACKUP, released=True))
    node.takes(all_down(node))

    step = node.takes(node.asked(VoteKind.POLL))

    assert vote_in(step).granted
    assert node.state.promise is None
    assert node.state.durable.holder == THE_BACKUP


# --- prepare: will you take it? (H5) --------------------------------------------------------------


def test_a_ready_standby_says_that_it_will_take_the_service() -> None:
    node = a_standby()

    vote = vote_in(node.takes(node.asked(VoteKind.PREPARE, TERM)))

    assert vote.granted
    assert node.state.durable.holder == THE_PRIMARY, "nothing is promised by it"


def test_a_standby_that_is_promised_to_another_will_not_take_it() -> None:
    node = a_standby()

    vote = vote_in(node.takes(node.asked(VoteKind.PREPARE, TERM, node_id="node-x")))

    assert vote.refusal is Refusal.PROMISED


def test_a_node_that_is_not_on_standby_will_not_take_it() -> None:
    node = starting(policy(BACKUP), held_by(THE_PRIMARY))
    node.takes(all_down(node))
    assert node.state.phase is Phase.STARTING

    assert vote_in(node.takes(node.asked(VoteKind.PREPARE, TERM))).refusal is Refusal.NOT_READY


def test_a_standby_that_is_not_ready_will_not_take_it() -> None:
    node = a_standby()
    node.takes(changed("web", ContainerState.DOWN, exists=False, alive=False))

    assert vote_in(node.takes(node.asked(VoteKind.PREPARE, TERM))).refusal is Refusal.NOT_READY


def test_a_standby_on_which_something_runs_will_not_take_it() -> None:
    node = a_standby()
    node.takes(changed("web"))

    assert vote_in(node.takes(node.asked(VoteKind.PREPARE, TERM))).refusal is (
        Refusal.CONTAINERS_RUN
    )


def test_messages_of_a_standby_are_made_for_every_voter_but_itself() -> None:
    node = starting(policy(), held_by(THE_PRIMARY, released=True))
    node.takes(all_down(node))

    (asked,) = of_kind(node.takes(node.beat()), SendVoteRequest)

    assert asked.to is BACKUP
    assert asked.request.sender.role is PRIMARY


def test_a_beat_says_what_its_sender_knows() -> None:
    node = a_standby()

    beat = reply(node.takes(node.leading_beat())).beat

    assert (beat.phase, beat.term, beat.renews, beat.hold) == (Phase.STANDBY, TERM, False, False)
    assert (beat.holder, beat.released, beat.leading_for_s) == (PRIMARY, False, None)
    assert (beat.readiness, beat.not_ready_because, beat.may_lead) == (Readiness.READY, (), True)
    assert (beat.running, beat.lease_s) == (0, 10.0)
    made = (("db", "image", "settings"), ("web", "image", "settings"))
    assert beat.profile == Profile(made, node.policy.settings)


def test_the_beat_of_a_peer_is_what_is_known_of_it() -> None:
    node = a_standby()

    node.takes(HeartbeatReceived(1, leading(node, running=1)), after_s=1.0)

    peer = node.state.peers[PRIMARY]
    assert (peer.phase, peer.term, peer.holding, peer.holder) == (
        Phase.ACTIVE,
        TERM,
        True,
        Role.PRIMARY,
    )
    assert (peer.node_id, peer.run_id, peer.running) == ("node-p", "run-1", 1)
    assert (peer.heard_at_s, peer.leading_at_s) == (node.now, node.now - 60)


def test_a_beat_of_a_node_that_only_wants_to_resume_is_no_holding() -> None:
    node = a_standby()

    node.takes(HeartbeatReceived(1, peer_beat(node, phase=Phase.STARTING, renews=True)))

    assert not node.state.peers[PRIMARY].holding
    assert node.state.promise == Promise(THE_PRIMARY, TERM, node.now + 10.1)


def test_what_runs_counts_for_nothing_once_it_is_all_up(  # the engine speaks, not the peer
) -> None:
    node = starting(policy(BACKUP), held_by(THE_PRIMARY))

    node.takes(all_up(node))

    assert [view.alive for view in node.state.containers.values()] == [True, True]
