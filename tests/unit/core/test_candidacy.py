"""Asking leave to be active (H0), on silence, after a start, in which order; absence; takeover."""

from dataclasses import replace

import pytest

from failover_agent.core.candidate import highest_term
from failover_agent.core.effects import SendVoteRequest, StartContainers, StopContainers
from failover_agent.core.events import (
    CommandKind,
    ContainersObserved,
    ContainersStopped,
    Event,
    RecordWriteFailed,
    StopFailed,
    StopRequested,
    Tick,
    VoteFailed,
)
from failover_agent.core.messages import Beat, Refusal, VoteKind
from failover_agent.core.plan import Step
from failover_agent.core.policy import LoneStart, PartitionPolicy, Policy, Role
from failover_agent.core.state import ContainerState, Durable, Phase, Readiness, Reason
from tests.unit.core.builders import (
    BACKUP,
    PRIMARY,
    START_S,
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
    held_by,
    of_kind,
    order,
    phases,
    policy,
    promoting,
    reply,
    seen,
    starting,
)


def consistent(role: Role = BACKUP) -> Policy:
    """Never two, and nobody takes over on silence."""
    return policy(role, partition_policy=PartitionPolicy.CONSISTENCY)


def questions(node: Node, seconds: float = 0.0) -> list[tuple[VoteKind, int]]:
    """What the node asks its peer within so long."""
    step = node.waits(seconds) if seconds else node.takes(Tick())
    return [(sent.request.kind, sent.request.term) for sent in of_kind(step, SendVoteRequest)]


# --- H0: poll, take a term, ask -------------------------------------------------------------------


def test_a_candidate_asks_first_whether_it_would_be_granted_a_term() -> None:
    node = starting()
    node.takes(all_down(node))

    step = node.takes(node.beat())

    assert phases(step) == [(Phase.ACQUIRING, Reason.NOBODY_ACTIVE)]
    (sent,) = of_kind(step, SendVoteRequest)
    assert (sent.to, sent.request.kind, sent.request.term) == (BACKUP, VoteKind.POLL, 0)
    assert (sent.request.lease_s, sent.deadline_s) == (10.0, 10.0)
    assert node.state.durable.term == TERM, "a poll takes no term"


def test_only_when_a_majority_would_grant_does_it_take_a_term_and_save_it() -> None:
    node = a_candidate()

    saved = node.would_save(node.vote(VoteKind.POLL))
    step = node.takes(node.vote(VoteKind.POLL))

    assert saved is not None
    assert (saved.term, saved.holder, saved.released) == (TERM + 1, THE_PRIMARY, False)
    (sent,) = of_kind(step, SendVoteRequest)
    assert (sent.request.kind, sent.request.term) == (VoteKind.CANDIDACY, TERM + 1)
    assert of_kind(step, StartContainers) == []


def test_the_term_is_one_above_the_highest_it_was_told_of() -> None:
    node = a_candidate()

    node.takes(node.vote(VoteKind.POLL, told=40))

    assert node.state.durable.term == 41


def test_a_term_told_in_a_beat_counts_as_well() -> None:
    node = starting()
    node.takes(all_down(node), node.beat(term=30))

    assert highest_term(node.state) == 30


def test_the_answer_to_the_candidacy_makes_it_lead() -> None:
    node = a_candidate()
    node.takes(node.vote(VoteKind.POLL))

    step = node.takes(node.vote(VoteKind.CANDIDACY))

    assert phases(step) == [(Phase.PROMOTING, Reason.NOBODY_ACTIVE)]
    assert of_kind(step, StartContainers) == [StartContainers(TERM + 1, ("db", "web"))]
    assert node.state.held_term == TERM + 1


def test_a_refused_candidate_goes_back_and_asks_again_later() -> None:
    node = a_candidate()

    step = node.takes(node.vote(VoteKind.POLL, Refusal.CONTAINERS_RUN))

    assert phases(step) == [(Phase.STANDBY, Reason.VOTE_REFUSED)]
    node.takes(node.beat())
    assert node.state.phase is Phase.STANDBY
    step = node.lives(1.0, node.beat())
    assert phases(step) == [(Phase.ACQUIRING, Reason.NOBODY_ACTIVE)]


def test_it_asks_again_when_the_promise_it_was_told_of_ends() -> None:
    node = a_candidate()

    node.takes(node.vote(VoteKind.POLL, Refusal.PROMISED, remaining_s=6.0))

    assert phases(node.lives(5.5, node.beat())) == []
    assert phases(node.lives(1.5, node.beat())) == [(Phase.ACQUIRING, Reason.NOBODY_ACTIVE)]


def test_a_promise_on_hold_is_asked_about_again_after_the_timeout() -> None:
    node = a_candidate()

    node.takes(node.vote(VoteKind.POLL, Refusal.PROMISED, remaining_s=float("inf")))

    assert node.state.ask_again_at_s == pytest.approx(node.now + 10.1)


def test_a_candidacy_refused_after_its_poll_leaves_its_own_vote_free() -> None:
    node = a_candidate()
    node.takes(node.vote(VoteKind.POLL))

    node.takes(node.vote(VoteKind.CANDIDACY, Refusal.OLD_TERM, told=12))

    assert node.state.promise is None
    assert node.state.durable.released, "so that the beats tell the others, too"
    assert highest_term(node.state) == 12


def test_a_question_without_an_answer_is_asked_again_with_the_next_beat() -> None:
    node = a_candidate()
    failed = VoteFailed(BACKUP, VoteKind.POLL, 0, "timed out")

    assert of_kind(node.takes(failed), SendVoteRequest) == []

    assert questions(node, 1.0) == [(VoteKind.POLL, 0)]


def test_an_answer_to_an_earlier_question_is_stale() -> None:
    node = a_candidate()
    late = node.vote(VoteKind.POLL)
    node.takes(late)

    step = node.takes(late, node.vote(VoteKind.CANDIDACY, term=TERM))

    assert node.state.counters.stale == 2
    assert (node.state.phase, step.transitions) == (Phase.ACQUIRING, ())


def test_an_answer_to_nobody_is_stale() -> None:
    node = a_standby()

    node.takes(node.vote(VoteKind.POLL), node.vote(VoteKind.CANDIDACY))

    assert node.state.counters.stale == 2


def test_a_candidate_that_hears_of_a_leader_stands_back() -> None:
    node = a_candidate()

    step = node.takes(node.leading_beat(TERM + 1))

    assert phases(step) == [(Phase.STANDBY, Reason.PEER_ACTIVE)]


def test_a_candidate_that_loses_what_it_needs_stands_back() -> None:
    node = a_candidate()

    step = node.takes(changed("web", ContainerState.DOWN, exists=False))

    assert phases(step) == [(Phase.STANDBY, Reason.NOT_ABLE)]


def test_a_candidate_that_is_told_to_stop_stands_back() -> None:
    node = a_candidate()

    assert phases(node.takes(StopRequested())) == [(Phase.STANDBY, Reason.NOT_ABLE)]


def test_each_refusal_doubles_the_pause_up_to_the_timeout() -> None:
    node = a_candidate()
    pauses = []

    for _ in range(6):
        node.takes(node.vote(VoteKind.POLL, Refusal.CONTAINERS_RUN))
        refused_at_s = node.now
        while node.state.phase is Phase.STANDBY:
            node.takes(node.beat(), after_s=0.5)
        pauses.append(node.now - refused_at_s)

    assert pauses == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_the_pauses_begin_anew_once_somebody_has_led() -> None:
    node = a_candidate()
    node.takes(node.vote(VoteKind.POLL, Refusal.CONTAINERS_RUN))
    assert node.state.refusals == 1

    node.takes(node.leading_beat(TERM + 1))

    assert (node.state.refusals, node.state.refused_because) == (0, "")


# --- a peer that is half dead ---------------------------------------------------------------------


def cannot(node: Node, **changes: object) -> Event:
    """The peer runs nothing, and says itself that it could not."""
    said = {"readiness": Readiness.CANNOT, "not_ready_because": ("disk full",), **changes}
    return node.beat(**said)


def test_a_peer_that_says_it_runs_nothing_and_cannot_is_no_worse_than_a_silent_one() -> None:
    node = starting(policy(BACKUP), held_by(THE_PRIMARY, released=True))
    node.takes(all_down(node))

    asked = node.takes(cannot(node))
    told = node.takes(node.vote(VoteKind.POLL, Refusal.NOT_READY))

    assert phases(asked) == [(Phase.ACQUIRING, Reason.NOBODY_ACTIVE)], "its own word is asked for"
    assert phases(told) == [(Phase.PROMOTING, Reason.NOBODY_ACTIVE)]


@pytest.mark.parametrize("changes", [{"running": 1}, {"running": None}])
def test_a_peer_on_which_something_may_run_is_asked_all_the_same(
    changes: dict[str, object],
) -> None:
    node = starting(policy(BACKUP), held_by(THE_PRIMARY, released=True))
    node.takes(all_down(node))

    assert phases(node.lives(5, cannot(node, **changes)))[-1][0] is Phase.ACQUIRING


def test_under_consistency_a_half_dead_peer_must_give_its_vote() -> None:
    node = starting(consistent(), held_by(THE_BACKUP))
    node.takes(all_down(node))

    assert phases(node.lives(5, cannot(node)))[-1][0] is Phase.ACQUIRING


def test_a_restarted_agent_does_not_wait_for_the_word_of_a_half_dead_peer() -> None:
    node = starting(durable=held_by(THE_PRIMARY, led=True), boot_is_new=False)
    node.takes(all_up(node))

    node.takes(cannot(node))
    step = node.takes(node.vote(VoteKind.POLL, Refusal.NOT_READY))

    assert phases(step)[-1] == (Phase.PROMOTING, Reason.NOBODY_ACTIVE)


def test_an_answer_to_an_earlier_candidacy_counts_for_nothing() -> None:
    node = starting(policy(BACKUP), held_by(THE_PRIMARY, released=True))
    node.takes(all_down(node))
    node.takes(cannot(node))
    early = node.vote(VoteKind.POLL, Refusal.NOT_READY)

    step = node.takes(replace(early, sent_at_s=early.sent_at_s - 1))

    assert phases(step) == []
    assert node.state.counters.stale == 1


# --- takeover on silence --------------------------------------------------------------------------


def test_a_standby_takes_over_after_the_timeout() -> None:
    node = a_lonely_standby()
    assert node.now == pytest.approx(START_S + 10.05)

    step = node.waits(0.1)

    assert phases(step) == [
        (Phase.ACQUIRING, Reason.PEER_SILENT),
        (Phase.PROMOTING, Reason.PEER_SILENT),
    ]
    assert of_kind(step, StartContainers) == [StartContainers(TERM + 1, ("db", "web"))]
    assert node.now == pytest.approx(START_S + 10.15)


def test_a_standby_that_hears_its_peer_never_takes_over() -> None:
    node = a_standby()

    assert phases(node.lives(120, node.leading_beat())) == []


def test_any_authentic_message_breaks_the_silence() -> None:
    node = a_lonely_standby()

    node.takes(node.asked(VoteKind.POLL))

    assert phases(node.waits(5.0)) == []


def test_an_own_absence_of_more_than_half_the_timeout_starts_the_silence_anew() -> None:
    node = a_standby()

    step = node.takes(Tick(), after_s=11.0)

    assert phases(step) == []
    assert phases(node.waits(10.0)) == []
    assert phases(node.waits(0.2))[0] == (Phase.ACQUIRING, Reason.PEER_SILENT)


def test_an_own_absence_of_half_the_timeout_changes_nothing() -> None:
    node = a_standby()

    node.takes(Tick(), after_s=5.0)

    assert phases(node.waits(5.2))[0] == (Phase.ACQUIRING, Reason.PEER_SILENT)


def test_a_standby_that_cannot_run_the_service_does_not_take_over() -> None:
    node = a_lonely_standby()
    node.takes(changed("web", ContainerState.DOWN, exists=False))

    assert phases(node.waits(60)) == []
    assert {"not_ready", "peer_silent"} <= alarms(node)


def test_a_standby_whose_record_cannot_be_written_does_not_take_over() -> None:
    node = a_lonely_standby()
    node.takes(RecordWriteFailed("disk full"))

    assert phases(node.waits(60)) == []


def test_a_standby_that_differs_takes_over_from_the_dead_all_the_same() -> None:
    node = a_lonely_standby()
    node.takes(changed("web", ContainerState.DOWN, image="another"))

    step = node.waits(1)

    assert phases(step)[0] == (Phase.ACQUIRING, Reason.PEER_SILENT)


def test_under_consistency_nobody_takes_over_on_silence() -> None:
    node = a_lonely_standby(consistent())

    assert phases(node.waits(120)) == []
    assert {"peer_silent", "waiting_for_release"} <= alarms(node)


def test_under_consistency_a_release_by_the_holder_is_leave_enough() -> None:
    node = a_standby(consistent())
    node.takes(node.released())

    step = node.waits(11)

    assert (Phase.PROMOTING, Reason.CONTAINER_DOWN) in phases(step)


def test_under_consistency_silence_after_a_poll_is_no_vote() -> None:
    """Taking a term for a candidacy is no proof that this node held it."""
    node = a_candidate(consistent(PRIMARY))
    node.takes(node.vote(VoteKind.POLL))

    step = node.waits(120)

    assert Phase.PROMOTING not in [phase for phase, _ in phases(step)]


def test_where_there_is_an_arbiter_silence_is_no_vote() -> None:
    node = a_lonely_standby(policy(BACKUP, arbiter=Role.WITNESS))

    assert phases(node.waits(120)) == []


# --- after a start: who goes first (section 6) ----------------------------------------------------


def test_a_node_that_finds_somebody_active_stands_by() -> None:
    node = starting(policy(BACKUP))

    step = node.takes(node.leading_beat(TERM))

    assert phases(step) == [(Phase.STANDBY, Reason.PEER_ACTIVE)]


def both(
    policy_: Policy, durable: Durable, *, running: bool = False, boot_is_new: bool = True
) -> Node:
    """A start at which nobody has been heard yet, and the engine has answered."""
    node = starting(policy_, durable, boot_is_new=boot_is_new)
    node.takes(all_up(node) if running else all_down(node))
    return node


def test_the_last_holder_goes_first() -> None:
    node = both(policy(BACKUP), held_by(THE_BACKUP))

    step = node.takes(node.beat(term=TERM - 1, holder=PRIMARY))

    assert phases(step) == [(Phase.ACQUIRING, Reason.NOBODY_ACTIVE)]


def test_the_other_one_waits_for_it() -> None:
    node = both(policy(), held_by(THE_PRIMARY, TERM - 1))

    step = node.takes(node.beat(term=TERM, holder=BACKUP))

    assert phases(step) == [(Phase.STANDBY, Reason.PEER_PREFERRED)]


def test_one_that_gave_it_back_is_no_last_holder() -> None:
    node = both(policy(BACKUP), held_by(THE_BACKUP, released=True))

    step = node.takes(node.beat())

    assert phases(step) == [(Phase.STANDBY, Reason.PEER_PREFERRED)]


def test_on_fresh_records_whoever_runs_the_containers_goes_first() -> None:
    node = both(policy(BACKUP), Durable(), running=True)
    node.takes(node.beat(running=0))
    node.lives(9, node.beat(running=0))
    assert node.state.phase is Phase.STARTING, "the wait of V4"

    step = node.lives(2, node.beat(running=0))

    assert phases(step) == [(Phase.ACQUIRING, Reason.FIRST_START)]


def test_on_fresh_records_the_primary_goes_first_else() -> None:
    node = both(policy(BACKUP), Durable())

    step = node.takes(node.beat())

    assert phases(step) == [(Phase.STANDBY, Reason.PEER_PREFERRED)]


def test_one_that_is_not_ready_comes_after_one_that_is() -> None:
    node = both(policy(BACKUP), held_by(THE_PRIMARY, released=True))

    step = node.takes(node.beat(readiness=Readiness.DIFFERS, not_ready_because=("web: another",)))

    assert phases(step) == [(Phase.ACQUIRING, Reason.NOBODY_ACTIVE)]


def test_one_that_goes_first_but_cannot_is_not_waited_for() -> None:
    node = both(policy(BACKUP), held_by(THE_PRIMARY, released=True))

    step = node.takes(cannot(node, running=None))

    assert phases(step) == [(Phase.ACQUIRING, Reason.NOBODY_ACTIVE)]


def test_one_that_goes_first_but_does_not_start_is_waited_for_only_so_long() -> None:
    node = both(policy(BACKUP), held_by(THE_PRIMARY, released=True))
    node.takes(node.beat())

    assert phases(node.lives(19, node.beat())) == []

    assert phases(node.lives(2, node.beat())) == [(Phase.ACQUIRING, Reason.NOBODY_ACTIVE)]


def test_nobody_is_waited_for_before_the_engine_has_answered() -> None:
    node = starting(policy(BACKUP), held_by(THE_PRIMARY, released=True))

    assert phases(node.takes(node.beat())) == []
    assert phases(node.takes(all_down(node))) == [(Phase.STANDBY, Reason.PEER_PREFERRED)]


def test_the_first_start_of_all_is_named_so_and_nothing_is_on_record_before() -> None:
    node = both(policy(), Durable())

    step = node.lives(11, node.beat())

    assert phases(step) == [(Phase.ACQUIRING, Reason.FIRST_START)]


def test_a_start_with_a_peer_that_knows_a_term_is_not_the_first() -> None:
    node = both(policy(), Durable())

    step = node.lives(11, node.beat(term=3))

    assert phases(step) == [(Phase.ACQUIRING, Reason.NOBODY_ACTIVE)]


# --- after a start, alone -------------------------------------------------------------------------


def test_the_primary_starts_alone_after_the_startup_grace() -> None:
    node = both(policy(), Durable())

    assert phases(node.waits(19.9)) == []
    step = node.waits(0.2)

    assert phases(step) == [
        (Phase.ACQUIRING, Reason.FIRST_START),
        (Phase.PROMOTING, Reason.FIRST_START),
    ]


def test_a_backup_that_never_heard_its_primary_does_not_start_alone() -> None:
    node = both(policy(BACKUP), Durable())

    assert phases(node.waits(120)) == []
    assert "waiting_for_primary" in alarms(node)


def test_a_backup_that_may_start_alone_does() -> None:
    node = both(policy(BACKUP, lone_start=LoneStart.START), Durable())

    assert phases(node.waits(21))[-1] == (Phase.PROMOTING, Reason.FIRST_START)


def test_a_backup_that_has_heard_its_primary_once_starts_alone() -> None:
    node = both(policy(BACKUP), held_by(THE_PRIMARY))

    assert phases(node.waits(21))[-1] == (Phase.PROMOTING, Reason.PEER_SILENT)


def test_under_consistency_alone_only_the_holder_of_the_newest_term_starts() -> None:
    led = held_by(THE_BACKUP, led=True)

    node = both(consistent(), led)
    assert phases(node.waits(21))[-1] == (Phase.PROMOTING, Reason.PEER_SILENT)

    node = both(consistent(), held_by(THE_PRIMARY))
    assert phases(node.waits(120)) == []

    node = both(consistent(), replace(led, released=True))
    assert phases(node.waits(120)) == []


def test_under_consistency_a_fresh_record_starts_nothing_alone() -> None:
    assert phases(both(consistent(PRIMARY), Durable()).waits(120)) == []


def test_nobody_asks_while_somebody_leads_in_a_term_that_it_does_not_renew() -> None:
    node = both(policy(BACKUP), held_by(THE_BACKUP))

    step = node.lives(60, node.leading_beat(TERM - 1))

    assert phases(step) == [(Phase.STANDBY, Reason.PEER_ACTIVE)]


def test_under_consistency_a_term_that_was_only_asked_for_starts_nothing() -> None:
    node = both(consistent(), held_by(THE_BACKUP))

    assert phases(node.waits(120)) == []


def test_a_lone_backup_that_led_goes_on_after_a_restart_though_it_never_heard_its_primary() -> None:
    led = held_by(THE_BACKUP, led=True, heard=frozenset())
    node = both(policy(BACKUP), led, running=True, boot_is_new=False)

    assert phases(node.waits(21))[-1] == (Phase.PROMOTING, Reason.PEER_SILENT)


def beat_in(step: Step) -> Beat:
    """The beat in the one answer that the step gave."""
    beat = reply(step).beat
    assert isinstance(beat, Beat)
    return beat


# --- an agent that was restarted (H6) -------------------------------------------------------------


def restarted() -> Node:
    """The agent of an active node was restarted; the containers run on."""
    node = starting(durable=held_by(THE_PRIMARY, led=True), boot_is_new=False)
    node.takes(all_up(node))
    return node


def test_a_restarted_agent_takes_up_its_term_and_touches_nothing() -> None:
    node = restarted()

    step = node.takes(node.renewed())

    assert phases(step) == [(Phase.ACTIVE, Reason.RESUMED)]
    assert node.state.held_term == TERM
    assert of_kind(step, StartContainers) + of_kind(step, StopContainers) == []


def test_it_asks_to_have_its_promise_renewed_until_it_is_answered() -> None:
    node = restarted()

    answer = beat_in(node.takes(node.beat()))

    assert (answer.renews, answer.term, answer.phase) == (True, TERM, Phase.STARTING)
    assert phases(node.lives(60, node.beat())) == []


def test_a_restarted_agent_whose_renewal_is_refused_is_a_candidate_like_any_other() -> None:
    node = restarted()
    refused = node.answered(replace(node.renewed().answer.vote, granted=False))  # type: ignore[type-var]

    step = node.takes(refused)

    assert phases(step) == [(Phase.ACQUIRING, Reason.NOBODY_ACTIVE)]


def test_an_answer_to_a_beat_of_another_term_resumes_nothing() -> None:
    node = restarted()

    step = node.takes(replace(node.renewed(), term=TERM - 1))

    assert phases(step) == []


def test_a_restarted_agent_that_stays_alone_goes_on_in_a_new_term() -> None:
    node = restarted()

    step = node.waits(21)

    assert phases(step) == [
        (Phase.ACQUIRING, Reason.PEER_SILENT),
        (Phase.PROMOTING, Reason.PEER_SILENT),
    ]


@pytest.mark.parametrize(
    ("durable", "boot_is_new"),
    [
        pytest.param(held_by(THE_PRIMARY, led=True), True, id="the host was rebooted"),
        pytest.param(held_by(THE_PRIMARY, led=True, released=True), False, id="it was given back"),
        pytest.param(held_by(THE_BACKUP), False, id="it was another's"),
        pytest.param(held_by(THE_PRIMARY), False, id="it was only asked for"),
    ],
)
def test_only_a_term_that_was_held_on_this_boot_is_resumed(
    durable: Durable, boot_is_new: bool
) -> None:
    node = starting(durable=durable, boot_is_new=boot_is_new)
    node.takes(all_up(node))

    step = node.takes(node.renewed())

    assert Phase.ACTIVE not in [phase for phase, _ in phases(step)]


def test_a_vote_given_away_while_starting_ends_the_wish_to_resume() -> None:
    node = starting(durable=held_by(THE_PRIMARY, led=True), boot_is_new=False)
    node.takes(all_down(node))
    node.now += 10.2
    node.takes(node.asked(VoteKind.CANDIDACY, TERM + 1))
    assert node.state.durable.holder == THE_BACKUP

    answer = beat_in(node.takes(node.beat()))

    assert not answer.renews
    step = node.takes(node.renewed(term=TERM + 1))
    assert Phase.ACTIVE not in [phase for phase, _ in phases(step)]


# --- an invitation (H5) ---------------------------------------------------------------------------


def test_a_release_that_names_this_node_makes_it_a_candidate_at_once() -> None:
    node = a_standby()

    step = node.takes(node.released(reason=Reason.AGENT_STOPPING))

    assert phases(step) == [(Phase.ACQUIRING, Reason.AGENT_STOPPING)]


def test_a_release_that_names_nobody_or_another_is_no_invitation() -> None:
    node = a_standby()

    step = node.takes(node.released(to=PRIMARY))

    assert phases(step) == []


def test_an_invitation_holds_though_a_beat_told_of_the_release_first() -> None:
    node = a_standby()
    node.takes(node.beat(holder=PRIMARY, released=True))

    step = node.takes(node.released(TERM))

    assert phases(step) == [(Phase.ACQUIRING, Reason.CONTAINER_DOWN)]


def test_one_that_said_it_will_take_it_takes_it_when_a_beat_tells_of_the_release() -> None:
    node = a_standby()
    node.takes(node.asked(VoteKind.PREPARE, TERM, reason=Reason.ENGINE_LOST))

    step = node.takes(node.beat(holder=PRIMARY, released=True))

    assert phases(step) == [(Phase.ACQUIRING, Reason.ENGINE_LOST)]


def test_what_was_prepared_for_is_forgotten_when_the_peer_stays_active_after_all() -> None:
    node = a_standby()
    node.takes(node.asked(VoteKind.PREPARE, TERM, reason=Reason.ENGINE_LOST))
    node.takes(node.leading_beat())

    step = node.takes(node.beat(holder=PRIMARY, released=True))

    assert phases(step) == []


def test_one_that_refused_to_take_it_is_not_invited_by_a_beat() -> None:
    node = a_standby()
    node.takes(changed("web", ContainerState.DOWN, image="another"))
    node.takes(node.leading_beat())
    node.takes(node.asked(VoteKind.PREPARE, TERM, reason=Reason.ENGINE_LOST))

    node.takes(node.beat(holder=PRIMARY, released=True))

    assert node.state.invitation is None


def test_a_release_that_a_beat_tells_of_again_is_no_second_invitation() -> None:
    node = a_standby()
    node.takes(node.asked(VoteKind.PREPARE, TERM, reason=Reason.ENGINE_LOST))
    node.takes(node.beat(holder=PRIMARY, released=True))
    node.takes(node.vote(VoteKind.POLL, Refusal.CONTAINERS_RUN))

    step = node.takes(node.beat(holder=PRIMARY, released=True))

    assert phases(step) == []


def test_an_invitation_for_a_reason_that_is_none_of_a_candidate_is_taken_all_the_same() -> None:
    node = a_standby()

    step = node.takes(node.released(reason=Reason.ALL_STOPPED))

    assert phases(step) == [(Phase.ACQUIRING, Reason.PEER_RELEASED)]


def test_a_late_beat_of_the_released_term_takes_no_invitation_back() -> None:
    node = a_standby()
    late = node.leading_beat(TERM, phase=Phase.DEMOTING)
    node.takes(changed("web", ContainerState.DOWN, exists=False))
    node.takes(node.released())

    node.takes(late)
    step = node.takes(changed("web", ContainerState.DOWN))

    assert phases(step) == [(Phase.ACQUIRING, Reason.CONTAINER_DOWN)]


def test_a_standby_that_gave_its_term_back_is_not_stale() -> None:
    node = a_standby()
    node.takes(node.released(to=PRIMARY))

    node.takes(node.beat())

    assert node.state.counters.stale == 0


def test_an_invitation_ends_when_somebody_leads() -> None:
    node = a_standby()
    node.takes(changed("web", ContainerState.DOWN, exists=False))
    node.takes(node.released())
    assert node.state.invitation is Reason.CONTAINER_DOWN

    node.takes(node.leading_beat(TERM + 1))

    assert node.state.invitation is None


# --- takeover by an operator ----------------------------------------------------------------------


def test_an_operator_takes_over_from_a_peer_that_is_off() -> None:
    node = a_standby(consistent())
    node.waits(20)

    told = order(node, CommandKind.TAKEOVER)

    assert (told.accepted, told.sentence) == (True, "Taking over.")
    assert (node.state.phase, node.state.reason) == (Phase.PROMOTING, Reason.OPERATOR)
    assert node.state.held_term == TERM + 1


def test_an_operator_need_not_wait_for_the_timeout() -> None:
    node = a_standby()
    node.waits(3.5)

    assert order(node, CommandKind.TAKEOVER).accepted
    assert node.state.phase is Phase.PROMOTING


def test_a_peer_that_answers_belies_the_operator() -> None:
    node = a_standby()

    told = order(node, CommandKind.TAKEOVER)

    assert not told.accepted
    assert told.sentence.startswith("The primary is not off: it answers, and may run")
    assert node.state.phase is Phase.STANDBY


def test_a_peer_that_answers_and_runs_nothing_is_asked_for_its_vote() -> None:
    node = a_standby(consistent())
    node.takes(node.beat(holder=PRIMARY))

    told = order(node, CommandKind.TAKEOVER)

    assert told.accepted
    assert "if the primary, which answers, gives its vote" in told.sentence
    assert node.state.phase is Phase.ACQUIRING
    node.takes(node.vote(VoteKind.POLL))
    step = node.takes(node.vote(VoteKind.CANDIDACY))
    assert phases(step) == [(Phase.PROMOTING, Reason.OPERATOR)]


def test_a_candidate_goes_on_by_the_word_of_the_operator() -> None:
    node = a_candidate(consistent(PRIMARY))
    node.waits(5)

    told = order(node, CommandKind.TAKEOVER)

    assert told.accepted
    assert node.state.phase is Phase.PROMOTING


def test_a_node_that_holds_the_service_has_nothing_to_take_over() -> None:
    told = order(active(), CommandKind.TAKEOVER)

    assert (told.accepted, told.sentence) == (
        False,
        "This node holds the service already: nothing to take over.",
    )


def test_a_node_that_cannot_run_the_service_says_why() -> None:
    node = a_lonely_standby()
    node.takes(changed("web", ContainerState.DOWN, exists=False))

    told = order(node, CommandKind.TAKEOVER)

    assert not told.accepted
    assert told.sentence == "This node cannot run the service: web: no such container."


def test_a_node_that_is_stopping_takes_nothing_over() -> None:
    node = starting(durable=held_by(THE_PRIMARY, led=True), boot_is_new=False)
    node.takes(all_up(node), StopRequested())

    told = order(node, CommandKind.TAKEOVER)

    assert (told.accepted, told.sentence) == (False, "This agent is stopping.")


def test_a_takeover_waits_for_containers_that_are_being_stopped() -> None:
    node = a_standby()
    node.takes(changed("web"))
    node.waits(5)

    told = order(node, CommandKind.TAKEOVER)

    assert not told.accepted
    assert "still being stopped" in told.sentence
    node.takes(ContainersStopped(TERM))
    assert order(node, CommandKind.TAKEOVER).accepted


def test_a_restarted_agent_may_be_told_to_take_over() -> None:
    node = restarted()

    assert order(node, CommandKind.TAKEOVER).accepted
    assert node.state.phase is Phase.PROMOTING


# --- strays: what runs on a standby ---------------------------------------------------------------


def test_a_managed_container_found_running_on_a_standby_is_stopped() -> None:
    node = a_standby()

    step = node.takes(changed("db"), changed("web"))

    assert of_kind(step, StopContainers) == [StopContainers(TERM, ("db",), None)]
    assert "stray_container" in alarms(node)
    step = node.takes(ContainersStopped(TERM))
    assert of_kind(step, StopContainers) == [StopContainers(TERM, ("web",), None)]
    node.takes(ContainersStopped(TERM))
    assert "stray_container" not in alarms(node)


def test_what_runs_beside_the_active_peer_is_an_overlap_until_it_is_stopped() -> None:
    node = a_standby()
    node.lives(60, node.leading_beat())
    seen_at_s = node.now

    node.takes(changed("db"))
    node.takes(changed("web"), after_s=0.2)
    assert "two_actives" in alarms(node)
    node.takes(ContainersStopped(TERM), after_s=0.5)
    node.takes(ContainersStopped(TERM), after_s=0.5)

    overlap = node.state.overlap
    assert overlap is not None
    assert (overlap.began_at_s, overlap.ended_at_s) == (seen_at_s, node.now)
    assert node.state.counters.overlaps == 1


@pytest.mark.parametrize(("leading_for_s", "began_s_ago"), [(40.0, 40.0), (None, 0.0)])
def test_what_ran_at_the_first_look_ran_as_long_as_the_peer_leads(
    leading_for_s: float | None, began_s_ago: float
) -> None:
    node = starting(policy(BACKUP), held_by(THE_PRIMARY))

    node.takes(all_up(node), node.leading_beat(leading_for_s=leading_for_s))

    assert node.state.overlap is not None
    assert node.state.overlap.began_at_s == node.now - began_s_ago


def test_a_paused_stray_is_an_overlap_from_when_it_was_seen() -> None:
    node = a_standby()
    node.lives(60, node.leading_beat())

    node.takes(changed("db", ContainerState.DOWN, alive=True, detail="paused"))

    assert node.state.overlap is not None
    assert node.state.overlap.began_at_s == node.now


def test_a_stray_that_appears_while_another_is_being_measured_is_no_second_overlap() -> None:
    node = a_standby()
    node.takes(changed("db"), StopFailed(TERM, ("db",), "timed out"))

    node.lives(3.0, node.leading_beat())

    assert node.state.counters.overlaps == 1


def test_strays_are_stopped_last_first() -> None:
    node = a_standby()

    step = node.takes(all_up(node))

    assert of_kind(step, StopContainers) == [StopContainers(TERM, ("web", "db"), None)]


def test_a_stop_of_a_stray_that_failed_is_tried_again() -> None:
    node = a_standby()
    node.takes(changed("db"))

    step = node.takes(StopFailed(TERM, ("db",), "timed out"))

    assert of_kind(step, StopContainers) == []
    assert node.state.phase is Phase.STANDBY
    step = node.lives(1.0, node.leading_beat())
    assert len(of_kind(step, StopContainers)) == 1


def test_nothing_is_stopped_while_nobody_else_could_serve() -> None:
    node = a_standby(consistent())
    node.waits(20)

    step = node.takes(changed("db"))

    assert of_kind(step, StopContainers) == []


def test_a_reboot_that_started_containers_by_itself_leaves_them_to_the_one_that_goes_first() -> (
    None
):
    """What runs here is stopped once another one that goes first answers and is able to."""
    node = starting(policy(BACKUP), held_by(THE_PRIMARY))
    node.takes(ContainersObserved((seen("db"), seen("web"))))

    step = node.takes(node.beat(running=2))

    assert phases(step) == [(Phase.STANDBY, Reason.PEER_PREFERRED)]
    assert len(of_kind(step, StopContainers)) == 1


def test_a_confirmed_stop_says_nothing_of_containers_it_did_not_name() -> None:
    node = a_standby()
    node.takes(changed("db"))
    node.takes(changed("web"))

    node.takes(ContainersStopped(TERM))

    assert node.state.containers["db"].alive is False
    assert node.state.containers["web"].alive is True


def test_while_it_promotes_a_node_asks_nobody() -> None:
    assert questions(promoting(), 5.0) == []
