"""One vote by itself: core/voter.py and the arbiter around it, core/ballot.py (V1-V4, V7, V8)."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from failover_agent.core import ballot, voter
from failover_agent.core.ballot import Hearing
from failover_agent.core.messages import (
    LONGEST_LEASE_S,
    Answer,
    Beat,
    BeatAnswer,
    Refusal,
    ReleaseAnswer,
    ReleaseRequest,
    Request,
    Sender,
    Vote,
    VoteAnswer,
    VoteKind,
    VoteRequest,
)
from failover_agent.core.policy import Role
from failover_agent.core.state import (
    FOREVER,
    Durable,
    Health,
    Holder,
    Phase,
    Readiness,
    Reason,
)
from failover_agent.core.voter import Voter

PRIMARY, BACKUP = Role.PRIMARY, Role.BACKUP
A, B = Holder(PRIMARY, "node-p"), Holder(BACKUP, "node-b")
ME = Sender(Role.WITNESS, "node-w", "run-w", "")
NOW = 500.0
T = 10.0


def fresh(now: float = NOW) -> Voter:
    """A voter that remembers that it has promised nobody anything, and whose waiting is over."""
    return voter.begin(Durable(), now - 3 * T, timeout_s=T, forgot=False)


def promised(holder: Holder = A, term: int = 5, *, hold: bool = False, now: float = NOW) -> Voter:
    """It has just promised `term` to `holder`."""
    return voter.grant(fresh(now), now, holder, term, T, hold=hold)


def sender(holder: Holder, run_id: str = "run") -> Sender:
    """The node, as its messages name it."""
    return Sender(holder.role, holder.node_id, run_id, "a pair")


def beat(
    holder: Holder,
    term: int,
    number: int,
    *,
    renews: bool = True,
    hold: bool = False,
    lease_s: float = T,
    run_id: str = "run",
) -> Beat:
    """What a node says to an arbiter."""
    return Beat(
        sender=sender(holder, run_id),
        number=number,
        phase=Phase.ACTIVE,
        term=term,
        renews=renews,
        hold=hold,
        lease_s=lease_s,
        longest_lease_s=lease_s,
        holder=holder.role,
        released=False,
        leading_for_s=1.0,
        health=Health.OK,
        running=2,
        readiness=Readiness.READY,
        not_ready_because=(),
        may_lead=True,
    )


def question(
    holder: Holder,
    kind: VoteKind,
    term: int = 0,
    *,
    lease_s: float = T,
    reason: Reason = Reason.PEER_SILENT,
) -> VoteRequest:
    """What a candidate asks."""
    return VoteRequest(sender(holder), kind, term, lease_s, lease_s, reason)


def asked(
    voter_: Voter,
    candidate: Holder,
    term: int | None,
    *,
    now: float = NOW,
    lease_s: float = T,
    by_operator: bool = False,
    run_id: str = "run",
) -> Refusal | None:
    """Why it would refuse; None as a term is a poll."""
    return voter.refusal_of_candidacy(
        voter_, now, candidate, term, lease_s, run_id=run_id, by_operator=by_operator
    )


def said(answer: Answer) -> Vote:
    """The vote in an answer of an arbiter."""
    assert isinstance(answer, BeatAnswer | VoteAnswer)
    assert answer.vote is not None
    return answer.vote


# --- V1: a promise --------------------------------------------------------------------------------


def test_a_promise_runs_for_the_length_asked_and_a_bit_more_and_then_ends() -> None:
    mine = promised()

    standing = voter.standing(mine, NOW + 10.09)

    assert standing is not None
    assert standing.holder == A
    assert voter.standing(mine, NOW + 10.11) is None


def test_a_longer_promise_to_the_same_holder_is_not_made_shorter_by_a_renewal() -> None:
    mine = voter.grant(fresh(), NOW, A, 5, 100.0)

    again = voter.grant(mine, NOW + 1.0, A, 5, T)

    assert voter.standing(again, NOW + 100.0) is not None


def test_a_promise_of_a_new_term_begins_anew() -> None:
    mine = voter.grant(fresh(), NOW, A, 5, 100.0)

    again = voter.grant(mine, NOW, A, 6, T)

    assert voter.standing(again, NOW + 11.0) is None


def test_nobody_is_promised_more_than_an_hour() -> None:
    longer_s = LONGEST_LEASE_S + 1.0

    assert asked(fresh(), A, 1, lease_s=longer_s) is Refusal.LEASE_TOO_LONG
    renewal = voter.refusal_of_renewal(promised(), NOW, A, 5, longer_s)
    assert renewal is Refusal.LEASE_TOO_LONG
    assert asked(fresh(), A, 1, lease_s=LONGEST_LEASE_S) is None


# --- V2: whom it serves ---------------------------------------------------------------------------


def test_a_promise_stands_against_everybody_else_and_not_against_its_holder() -> None:
    assert asked(promised(), B, 6) is Refusal.PROMISED
    assert asked(promised(), B, 6, now=NOW + 10.11) is None
    assert asked(promised(), A, 6) is None


def test_no_term_is_granted_twice_and_the_same_one_again_to_its_holder() -> None:
    later = NOW + 11.0

    assert asked(promised(), B, 5, now=later) is Refusal.OLD_TERM
    assert asked(promised(), B, 6, now=later) is None
    assert asked(promised(), A, 5) is None
    assert asked(promised(), A, 4) is Refusal.OLD_TERM


def test_a_poll_is_asked_for_no_term() -> None:
    assert asked(promised(), B, None, now=NOW + 11.0) is None


def test_only_the_holder_of_the_newest_term_renews() -> None:
    mine = promised()

    assert voter.refusal_of_renewal(mine, NOW, A, 5, T) is None
    assert voter.refusal_of_renewal(mine, NOW, A, 4, T) is Refusal.OLD_TERM
    assert voter.refusal_of_renewal(mine, NOW, B, 5, T) is Refusal.PROMISED
    assert voter.refusal_of_renewal(mine, NOW + 11.0, B, 5, T) is Refusal.OLD_TERM
    assert voter.refusal_of_renewal(mine, NOW + 11.0, A, 5, T) is None
    assert voter.refusal_of_renewal(mine, NOW + 11.0, B, 6, T) is None


def test_a_term_that_was_given_back_is_not_renewed() -> None:
    mine = voter.release(promised(), NOW, A, 5)
    assert mine is not None

    assert voter.refusal_of_renewal(mine, NOW, A, 5, T) is Refusal.OLD_TERM


# --- V4: after a start ----------------------------------------------------------------------------


def restarted_with(durable: Durable, *, forgot: bool = False) -> Voter:
    """The process has just begun, and has this record."""
    return voter.begin(durable, NOW, timeout_s=T, forgot=forgot)


def test_after_a_start_it_serves_its_recorded_holder_at_once_and_others_after_the_longest() -> None:
    mine = restarted_with(Durable(5, A, released=False, longest_lease_s=30.0))

    assert asked(mine, A, 6) is None
    assert asked(mine, B, 6, now=NOW + 30.2) is Refusal.JUST_STARTED
    assert asked(mine, B, 6, now=NOW + 30.3) is None
    word = voter.word(mine, NOW + 10.0, Refusal.JUST_STARTED, granted=False)
    assert word.remaining_s == pytest.approx(20.3)


def test_after_a_start_with_a_release_on_record_it_serves_anyone_at_once() -> None:
    mine = restarted_with(Durable(5, A, released=True, longest_lease_s=30.0))

    assert asked(mine, B, 6) is None


def test_without_a_record_it_waits_the_longest_that_it_knows_or_is_told() -> None:
    mine = restarted_with(Durable(), forgot=True)

    told = voter.wait_as_told(mine, 60.0)

    assert asked(mine, A, 1, now=NOW + 10.09) is Refusal.JUST_STARTED
    assert asked(mine, A, 1, now=NOW + 10.11) is None
    assert asked(told, A, 1, now=NOW + 60.5) is Refusal.JUST_STARTED
    assert asked(told, A, 1, now=NOW + 60.7) is None


def test_with_a_record_it_is_told_nothing() -> None:
    mine = restarted_with(Durable(5, A, released=True, longest_lease_s=30.0))

    assert voter.wait_as_told(mine, 60.0) == mine


def test_renewals_are_granted_throughout_a_start() -> None:
    mine = restarted_with(Durable(), forgot=True)

    assert voter.refusal_of_renewal(mine, NOW, A, 5, T) is None


# --- V7: a release --------------------------------------------------------------------------------


def test_a_release_empties_the_promise_at_once_and_is_on_record() -> None:
    mine = voter.release(promised(), NOW, A, 5)

    assert mine is not None
    assert voter.standing(mine, NOW) is None
    assert mine.durable.released
    assert asked(mine, B, 6) is None


def test_a_release_in_a_later_term_raises_the_lowest_that_is_granted() -> None:
    mine = voter.release(promised(), NOW, A, 9)

    assert mine is not None
    assert asked(mine, B, 9) is Refusal.OLD_TERM
    assert asked(mine, B, 10) is None


def test_a_release_by_another_or_of_an_older_term_is_none() -> None:
    assert voter.release(promised(), NOW, B, 5) is None
    assert voter.release(promised(), NOW, A, 4) is None


def test_a_release_ends_the_waiting_of_a_start_but_not_of_one_that_forgot() -> None:
    remembered = restarted_with(Durable(5, A, released=False, longest_lease_s=30.0))
    forgot = restarted_with(Durable(), forgot=True)
    forgot = voter.grant(forgot, NOW, A, 5, T)

    remembered_after = voter.release(remembered, NOW, A, 5)
    forgot_after = voter.release(forgot, NOW, A, 5)

    assert remembered_after is not None
    assert forgot_after is not None
    assert asked(remembered_after, B, 6) is None
    assert asked(forgot_after, B, 6) is Refusal.JUST_STARTED


def test_a_release_leaves_the_promise_to_another_alone() -> None:
    mine = voter.begin(Durable(5, A, released=False), NOW, timeout_s=T, forgot=False)
    other = voter.grant(mine, NOW, B, 6, T)
    back = Voter(mine.durable, other.promise, NOW, NOW)

    after = voter.release(back, NOW, A, 5)

    assert after is not None
    assert after.promise == other.promise


# --- V8: a hold -----------------------------------------------------------------------------------


def test_a_hold_has_no_end_and_is_on_record() -> None:
    mine = promised(hold=True)

    assert mine.durable.hold
    assert asked(mine, B, 6, now=NOW + 1e9) is Refusal.PROMISED
    assert voter.word(mine, NOW, None, granted=True).remaining_s == FOREVER


def test_a_hold_outlives_the_voter() -> None:
    mine = restarted_with(promised(hold=True).durable)

    assert asked(mine, B, 6, now=NOW + 1e9) is Refusal.PROMISED


def test_the_hold_of_a_node_for_itself_binds_it_to_nothing() -> None:
    mine = voter.begin(promised(hold=True).durable, NOW, timeout_s=T, forgot=False, is_own=True)

    assert voter.standing(mine, NOW) is None


def test_a_hold_ends_by_the_next_renewal_of_its_holder_a_release_or_an_operator() -> None:
    mine = promised(hold=True)

    renewed = voter.grant(mine, NOW, A, 5, T)
    released = voter.release(mine, NOW, A, 5)

    assert not renewed.durable.hold
    assert voter.standing(renewed, NOW + 10.2) is None
    assert released is not None
    assert asked(released, B, 6) is None
    assert asked(mine, B, 6, by_operator=True) is None


def test_the_word_of_an_operator_ends_no_promise_that_runs() -> None:
    assert asked(promised(), B, 6, by_operator=True) is Refusal.PROMISED


def test_nothing_that_a_leaving_run_asked_for_before_ends_its_hold() -> None:
    """It may have asked for a higher term in place (H7), which comes after its last beat."""
    mine, answer = ballot.decide(promised(), beat(A, 5, 9, hold=True), NOW, ME)
    assert said(answer).granted

    assert [asked(mine, A, term) for term in (5, 6, 9)] == 3 * [Refusal.OLD_TERM]
    assert asked(mine, A, 6, run_id="the next") is None, "it is back, and asks anew"


# --- V6: giving way -------------------------------------------------------------------------------


def test_a_voter_gives_its_own_candidacy_up_for_a_preferred_one_at_an_equal_term() -> None:
    mine = promised(B, 6)

    refusal = voter.refusal_of_candidacy(
        mine, NOW, A, 6, T, run_id="run", by_operator=False, way_of=B
    )

    assert refusal is None


# --- the arbiter ----------------------------------------------------------------------------------


def test_a_beat_that_asks_for_nothing_hears_how_the_promise_stands() -> None:
    mine = promised()

    after, answer = ballot.decide(mine, beat(B, 5, 1, renews=False), NOW + 4.0, ME)

    assert after == mine
    assert said(answer) == voter.word(mine, NOW + 4.0, None, granted=False)
    assert said(answer).remaining_s == pytest.approx(6.1)
    assert isinstance(answer, BeatAnswer)
    assert answer.beat is None


def test_a_renewal_is_granted_and_moves_the_end() -> None:
    after, answer = ballot.decide(promised(), beat(A, 5, 1), NOW + 5.0, ME)

    assert said(answer).granted
    assert voter.standing(after, NOW + 15.0) is not None


def test_a_renewal_of_another_is_refused_and_changes_nothing() -> None:
    mine = promised()

    after, answer = ballot.decide(mine, beat(B, 5, 1), NOW, ME)

    assert said(answer).refusal is Refusal.PROMISED
    assert after == mine


def test_a_renewal_that_a_hold_overtook_does_not_end_the_hold() -> None:
    mine, _ = ballot.decide(promised(), beat(A, 5, 8, hold=True), NOW, ME)

    after, answer = ballot.decide(mine, beat(A, 5, 7), NOW, ME)

    assert after == mine
    assert said(answer) == Vote(False, 5, A, FOREVER, None)


def test_the_first_renewal_of_a_new_run_ends_the_hold_of_the_last() -> None:
    mine, _ = ballot.decide(promised(), beat(A, 5, 8, hold=True), NOW, ME)

    after, answer = ballot.decide(mine, beat(A, 5, 1, run_id="the next"), NOW, ME)

    assert said(answer).granted
    assert not after.durable.hold


def test_a_poll_changes_nothing_and_a_candidacy_promises() -> None:
    mine = fresh()

    polled, poll = ballot.decide(mine, question(A, VoteKind.POLL), NOW, ME)
    granted, vote = ballot.decide(mine, question(A, VoteKind.CANDIDACY, 3), NOW, ME)

    assert said(poll).granted
    assert polled == mine
    assert said(vote) == voter.word(granted, NOW, None, granted=True)
    assert said(vote).remaining_s == pytest.approx(10.1)
    assert granted.durable.term == 3
    assert isinstance(vote, VoteAnswer)
    assert (vote.kind, vote.asked_term, vote.phase) == (VoteKind.CANDIDACY, 3, None)


def test_an_arbiter_takes_no_service() -> None:
    _, answer = ballot.decide(promised(), question(A, VoteKind.PREPARE, 5), NOW, ME)

    assert said(answer).refusal is Refusal.NOT_READY


def test_the_word_of_an_operator_comes_with_the_candidacy() -> None:
    mine = promised(hold=True)

    refused = ballot.decide(mine, question(B, VoteKind.CANDIDACY, 6), NOW, ME)[1]
    granted = ballot.decide(
        mine, question(B, VoteKind.CANDIDACY, 6, reason=Reason.OPERATOR), NOW, ME
    )[1]

    assert said(refused).refusal is Refusal.PROMISED
    assert said(granted).granted


def test_a_release_is_answered_whoever_says_it_and_counts_from_the_holder_alone() -> None:
    mine = promised()
    by_holder = ReleaseRequest(sender(A), 5, BACKUP, Reason.OPERATOR)
    by_other = ReleaseRequest(sender(B), 5, None, Reason.OPERATOR)

    after, answer = ballot.decide(mine, by_holder, NOW, ME)
    unchanged, other = ballot.decide(mine, by_other, NOW, ME)

    assert after.durable.released
    assert answer == ReleaseAnswer(ME, 5, 5)
    assert unchanged == mine
    assert other == ReleaseAnswer(ME, 5, 5)


def test_a_renewal_writes_nothing_and_whatever_else_is_granted_is_saved_first() -> None:
    mine = promised()
    renewed, _ = ballot.decide(mine, beat(A, 5, 1), NOW + 1.0, ME)
    held, _ = ballot.decide(mine, beat(A, 5, 1, hold=True), NOW + 1.0, ME)
    longer, _ = ballot.decide(mine, beat(A, 5, 1, lease_s=20.0), NOW + 1.0, ME)
    raised, _ = ballot.decide(mine, beat(A, 6, 1), NOW + 1.0, ME)

    assert not ballot.needs_save(mine, renewed, None)
    assert ballot.needs_save(mine, held, None)
    assert ballot.needs_save(mine, longer, None)
    assert ballot.needs_save(mine, raised, None)


def test_where_the_disk_may_name_another_a_renewal_is_saved_too() -> None:
    mine = promised()
    renewed, _ = ballot.decide(mine, beat(A, 5, 1), NOW + 1.0, ME)

    assert not ballot.needs_save(mine, renewed, mine.durable)
    assert ballot.needs_save(mine, renewed, Durable(6, B, released=False))
    assert ballot.needs_save(mine, renewed, Durable(5, A, released=True))
    assert not ballot.needs_save(mine, mine, Durable(6, B, released=False))


def test_nodes_that_decide_by_different_rules_are_told_of_while_both_speak() -> None:
    one = Hearing(Sender(PRIMARY, "p", "r", "these rules"), NOW, T)
    other = Hearing(Sender(BACKUP, "b", "r", "those rules"), NOW, T)

    assert ballot.differing_fingerprints({PRIMARY: one}, NOW) == ""
    assert ballot.differing_fingerprints({PRIMARY: one, BACKUP: one}, NOW) == ""
    assert "same file" in ballot.differing_fingerprints({PRIMARY: one, BACKUP: other}, NOW)
    assert ballot.differing_fingerprints({PRIMARY: one, BACKUP: other}, NOW + T + 1) == ""


# --- whatever is asked ----------------------------------------------------------------------------

HOLDERS = st.sampled_from([A, B, Holder(PRIMARY, "a new disk")])
TERMS = st.integers(0, 6)
LENGTHS_S = st.sampled_from([1.0, T, 30.0, LONGEST_LEASE_S + 1.0])
REQUESTS: st.SearchStrategy[Request] = st.one_of(
    st.builds(
        beat,
        HOLDERS,
        TERMS,
        st.integers(1, 9),
        renews=st.booleans(),
        hold=st.booleans(),
        lease_s=LENGTHS_S,
        run_id=st.sampled_from(["run", "the next"]),
    ),
    st.builds(
        question,
        HOLDERS,
        st.sampled_from(VoteKind),
        TERMS,
        lease_s=LENGTHS_S,
        reason=st.sampled_from([Reason.PEER_SILENT, Reason.OPERATOR]),
    ),
    st.builds(
        ReleaseRequest, HOLDERS.map(sender), TERMS, st.none(), st.just(Reason.AGENT_STOPPING)
    ),
)


class Histories(RuleBasedStateMachine):
    """An arbiter, its disk, and what each holder was told that it may rely on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.voter = fresh()
        self.disk = self.voter.durable
        self.relied_on: dict[tuple[Holder, int], float] = {}
        """Until when, by this voter's clock, a (holder, term) was promised; a release ends it."""
        self.has_restarted = False

    @rule(request=REQUESTS)
    def somebody_asks(self, request: Request) -> None:
        before = self.voter
        if self.has_restarted and isinstance(request, Beat) and request.renews:
            renewed = Holder(request.sender.role, request.sender.node_id), request.term
            if renewed not in self.relied_on:
                return  # Who asks for that is no holder: the others would have to be a majority.
        after, answer = ballot.decide(before, request, self.now, ME)
        assert (after, answer) == ballot.decide(before, request, self.now, ME), "it is a function"
        if ballot.needs_save(before, after, None):
            self.disk = after.durable
        self.voter = after
        assert after.durable.term >= before.durable.term, "S3"
        if isinstance(request, ReleaseRequest):
            holder = Holder(request.sender.role, request.sender.node_id)
            for known in [known for known in self.relied_on if known[0] == holder]:
                if known[1] <= request.term:
                    del self.relied_on[known]
            return
        self._voted(before, request, said(answer))

    def _voted(self, before: Voter, request: Beat | VoteRequest, vote: Vote) -> None:
        if not vote.granted:
            assert voter.standing(self.voter, self.now) == voter.standing(before, self.now)
            assert self.voter.durable == before.durable, "a refusal changes nothing"
            return
        if isinstance(request, VoteRequest) and request.kind is not VoteKind.CANDIDACY:
            return
        holder = Holder(request.sender.role, request.sender.node_id)
        others = [at_s for known, at_s in self.relied_on.items() if known[0] != holder]
        by_operator = isinstance(request, VoteRequest) and request.reason is Reason.OPERATOR
        assert all(at_s <= self.now for at_s in others) or (by_operator and before.durable.hold)
        if by_operator:
            self.relied_on.clear()
        ends = isinstance(request, Beat) and not request.hold
        until_s = self.now + request.lease_s if ends or not isinstance(request, Beat) else FOREVER
        self.relied_on[holder, request.term] = until_s

    @rule(seconds=st.sampled_from([0.1, 3.0, 11.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def it_starts_again(self) -> None:
        self.has_restarted = True
        self.voter = voter.begin(self.disk, self.now, timeout_s=T, forgot=False)

    @rule()
    def it_starts_again_without_its_disk(self) -> None:
        """It waits the longest that was ever asked for; that it lost a hold is known."""
        self.has_restarted = True
        longest_s = max([T, self.disk.longest_lease_s])
        self.voter = voter.begin(Durable(), self.now, timeout_s=longest_s, forgot=True)
        self.disk = Durable()
        self.relied_on = {known: at_s for known, at_s in self.relied_on.items() if at_s < FOREVER}

    @invariant()
    def what_is_told_is_what_stands(self) -> None:
        standing = voter.standing(self.voter, self.now)
        word = voter.word(self.voter, self.now, None, granted=False)
        assert word.holder == (None if standing is None else standing.holder)
        assert (word.remaining_s is None) == (standing is None)


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, derandomize=True
)


@given(lease_s=st.floats(0.1, LONGEST_LEASE_S), at_s=st.floats(0.0, 1.0))
def test_a_promise_outlasts_the_lease_of_its_holder_whatever_the_clocks_do(
    lease_s: float, at_s: float
) -> None:
    """The holder counts sent + lease·(1-d) on a clock that is 1 % slow, the voter receipt +
    lease·(1+d) on one that is 1 % fast.
    """
    mine = voter.grant(fresh(), NOW, A, 5, lease_s)

    longest_the_holder_leads_s = lease_s * (1 - voter.CLOCK_DRIFT) * at_s

    assert voter.standing(mine, NOW + longest_the_holder_leads_s * 1.0201) is not None
