"""A node that holds a term: promote, renew, hand over, fail, meet another (H2, H5-H7, S5)."""

from dataclasses import replace

import pytest

from failover_agent.core.effects import (
    RepairContainer,
    SendHeartbeat,
    SendRelease,
    SendVoteRequest,
    StartContainers,
    StopContainers,
)
from failover_agent.core.events import (
    CommandKind,
    ContainersStarted,
    ContainersStopped,
    Event,
    HeartbeatAnswered,
    RecordWritable,
    RecordWriteFailed,
    ReleaseFailed,
    RepairFinished,
    StartFailed,
    StopFailed,
    StopRequested,
    Tick,
    VoteFailed,
)
from failover_agent.core.messages import BeatAnswer, Refusal, Vote, VoteKind
from failover_agent.core.state import ContainerState, Holder, Phase, Readiness, Reason
from tests.unit.core.builders import (
    BACKUP,
    TERM,
    THE_BACKUP,
    THE_PRIMARY,
    Node,
    a_lonely_standby,
    a_standby,
    active,
    alarms,
    all_up,
    changed,
    demoting,
    failed,
    held_by,
    held_term,
    of_kind,
    order,
    peer_beat,
    peer_sender,
    phases,
    policy,
    promoting,
    reply,
    starting,
    stuck,
)

DOWN = ContainerState.DOWN


def with_web_down(*heard: Event) -> Node:
    """An active node on which web has just been down for restart_grace_period."""
    node = active(policy(restart_attempts=0))
    node.takes(node.died("web"))
    node.lives(node.policy.restart_grace_period_s, *(heard or (node.beat(),)))
    return node


# --- promotion ------------------------------------------------------------------------------------


def test_a_promotion_ends_when_all_containers_are_started() -> None:
    node = promoting()
    node.takes(all_up(node))

    step = node.takes(ContainersStarted(TERM + 1))

    assert phases(step) == [(Phase.ACTIVE, Reason.NOBODY_ACTIVE)]
    assert node.state.counters.promotions == 1


def test_the_reason_stays_with_the_term_until_it_ends() -> None:
    node = a_lonely_standby()
    node.waits(1)

    step = node.takes(ContainersStarted(held_term(node)))

    assert phases(step) == [(Phase.ACTIVE, Reason.PEER_SILENT)]


def test_that_this_node_leads_is_on_disk_before_the_first_start() -> None:
    node = promoting()

    assert node.state.durable.led
    assert node.state.led_and_kept


@pytest.mark.parametrize("event", [ContainersStarted(TERM), StartFailed(TERM, "web", "no")])
def test_the_end_of_a_start_of_another_term_is_stale(event: Event) -> None:
    node = promoting()

    step = node.takes(event)

    assert node.state.counters.stale == 1
    assert phases(step) == []


def test_a_start_that_ends_after_the_stop_was_ordered_changes_nothing() -> None:
    node = promoting()
    node.takes(node.leading_beat(TERM + 9))
    assert node.state.phase is Phase.DEMOTING

    step = node.takes(ContainersStarted(TERM + 1))

    assert phases(step) == []
    assert node.state.start_job is None


def test_a_start_that_fails_late_while_stopping_changes_nothing() -> None:
    node = promoting()
    node.takes(node.leading_beat(TERM + 9))

    step = node.takes(StartFailed(TERM + 1, "web", "stopped"))

    assert phases(step) == []


# --- beats (H2) -----------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [promoting, active, demoting, failed])
def test_every_beat_of_a_holder_asks_for_a_renewal(build: object) -> None:
    assert callable(build)
    node: Node = build()

    (sent,) = of_kind(node.waits(1.0), SendHeartbeat)

    assert (sent.to, sent.beat.renews, sent.beat.hold) == (BACKUP, True, False)
    assert sent.beat.term == node.state.held_term


def test_beats_go_out_one_an_interval_whatever_became_of_the_last() -> None:
    node = active()

    assert len(of_kind(node.waits(10.0), SendHeartbeat)) == 10


def test_after_an_absence_one_beat_is_sent_and_not_all_that_were_missed() -> None:
    node = active()

    step = node.takes(Tick(), after_s=7.5)

    assert len(of_kind(step, SendHeartbeat)) == 1
    assert of_kind(node.waits(0.9), SendHeartbeat) == []
    assert len(of_kind(node.waits(0.2), SendHeartbeat)) == 1


def test_a_renewal_that_was_granted_changes_nothing() -> None:
    node = active()
    before = node.state.durable, node.state.phase, node.state.held_term

    node.takes(node.renewed(term=TERM + 1))

    assert (node.state.durable, node.state.phase, node.state.held_term) == before


# --- a container is beyond repair: hand over (H5, S5) ---------------------------------------------


def test_a_handover_asks_the_peer_first_and_stops_nothing() -> None:
    node = active(policy(restart_attempts=0))
    node.takes(node.died("web"))
    node.lives(29.9, node.beat())

    step = node.lives(0.2, node.beat())

    (sent,) = of_kind(step, SendVoteRequest)
    assert (sent.to, sent.request.kind, sent.request.term) == (BACKUP, VoteKind.PREPARE, TERM + 1)
    assert sent.request.reason is Reason.CONTAINER_DOWN
    assert of_kind(step, StopContainers) == []
    assert node.state.phase is Phase.ACTIVE


def test_the_peer_says_that_it_will_take_it_and_the_containers_are_stopped_last_first() -> None:
    node = with_web_down()

    step = node.takes(node.vote(VoteKind.PREPARE))

    assert phases(step) == [(Phase.DEMOTING, Reason.CONTAINER_DOWN)]
    assert of_kind(step, StopContainers) == [StopContainers(TERM + 1, ("web", "db"), None)]
    assert of_kind(step, SendRelease) == []
    assert node.state.held_term == TERM + 1


def test_the_release_is_said_once_everything_is_confirmed_stopped_and_names_the_peer() -> None:
    node = with_web_down()
    node.takes(node.vote(VoteKind.PREPARE))

    saved = node.would_save(ContainersStopped(TERM + 1))
    step = node.takes(ContainersStopped(TERM + 1), after_s=0.5)

    assert saved is not None
    assert saved.released
    assert phases(step) == [(Phase.STANDBY, Reason.ALL_STOPPED)]
    (sent,) = of_kind(step, SendRelease)
    assert (sent.to, sent.request.term, sent.request.to) == (BACKUP, TERM + 1, BACKUP)
    assert sent.request.reason is Reason.CONTAINER_DOWN
    assert node.state.held_term is None
    assert [view.alive for view in node.state.containers.values()] == [False, False]


def test_the_release_is_said_until_it_is_answered() -> None:
    node = with_web_down()
    node.takes(node.vote(VoteKind.PREPARE))
    node.takes(ContainersStopped(TERM + 1))

    assert len(of_kind(node.waits(2.0), SendRelease)) == 2
    node.takes(ReleaseFailed(BACKUP, TERM + 1, "timed out"))
    node.takes(node.release_answered(TERM))
    assert node.state.counters.stale == 1
    assert len(of_kind(node.waits(1.0), SendRelease)) == 1

    node.takes(node.release_answered(TERM + 1))

    assert of_kind(node.waits(5.0), SendRelease) == []
    node.takes(node.release_answered(TERM + 1))
    assert node.state.counters.stale == 2


def test_the_old_holder_stands_back_and_then_may_be_a_candidate_again() -> None:
    node = with_web_down()
    node.takes(node.vote(VoteKind.PREPARE))
    node.takes(ContainersStopped(TERM + 1))

    assert phases(node.lives(2.9, node.beat())) == []
    assert phases(node.lives(1.2, node.beat()))[0] == (Phase.ACQUIRING, Reason.NOBODY_ACTIVE)


def test_a_peer_that_refuses_is_asked_again_each_interval_and_the_service_goes_on() -> None:
    node = with_web_down()

    step = node.takes(node.vote(VoteKind.PREPARE, Refusal.NOT_READY))

    assert of_kind(step, StopContainers) == []
    assert len(of_kind(node.lives(3.0, node.beat()), SendVoteRequest)) == 3
    assert node.state.phase is Phase.ACTIVE


@pytest.mark.parametrize(
    "changes",
    [
        {"readiness": Readiness.CANNOT, "not_ready_because": ("no engine",)},
        {"readiness": Readiness.DIFFERS, "not_ready_because": ("web: another image",)},
        {"may_lead": False},
    ],
)
def test_nothing_is_handed_to_a_peer_that_is_not_ready(changes: dict[str, object]) -> None:
    node = active(policy(restart_attempts=0))
    beat = node.beat(**changes)
    node.takes(beat, node.died("web"))

    step = node.lives(120, beat)

    assert of_kind(step, SendVoteRequest) == []
    assert node.state.phase is Phase.ACTIVE
    assert "container_down" in alarms(node)


def test_nothing_is_handed_to_a_peer_that_is_silent() -> None:
    node = active(policy(restart_attempts=0))
    node.takes(node.died("web"))

    step = node.waits(120)

    assert of_kind(step, SendVoteRequest) == []
    assert node.state.phase is Phase.ACTIVE


def test_a_container_that_comes_back_before_the_answer_keeps_the_service_here() -> None:
    node = with_web_down()
    answer = node.vote(VoteKind.PREPARE)
    node.takes(changed("web", incarnation="web-2"))

    step = node.takes(answer)

    assert of_kind(step, StopContainers) == []
    assert node.state.phase is Phase.ACTIVE


@pytest.mark.parametrize("case", ["another term", "too late", "nothing was asked"])
def test_only_an_answer_to_what_was_asked_stops_anything(case: str) -> None:
    node = active() if case == "nothing was asked" else with_web_down()
    answer = node.vote(VoteKind.PREPARE, term=TERM if case == "another term" else None)
    if case == "too late":
        answer = replace(answer, sent_at_s=node.now - 10.1)

    step = node.takes(answer)

    assert of_kind(step, StopContainers) == []
    assert node.state.counters.stale == 1


def test_an_answer_that_comes_twice_is_stale() -> None:
    node = with_web_down()
    answer = node.vote(VoteKind.PREPARE)
    node.takes(answer)

    step = node.takes(answer, VoteFailed(BACKUP, VoteKind.PREPARE, TERM + 1, "late"))

    assert of_kind(step, StopContainers) == []
    assert node.state.counters.stale == 1


def test_a_late_yes_to_an_earlier_decision_stops_nothing() -> None:
    node = with_web_down()
    early = node.vote(VoteKind.PREPARE)
    node.takes(changed("web", incarnation="web-2"))
    node.lives(5.0, node.beat())
    assert node.state.handover is None
    node.takes(StopRequested())

    step = node.takes(early)

    assert of_kind(step, StopContainers) == []
    assert node.state.counters.stale == 1
    assert len(of_kind(node.takes(node.vote(VoteKind.PREPARE)), StopContainers)) == 1


def test_a_yes_to_any_question_since_the_decision_counts() -> None:
    node = with_web_down()
    early = node.vote(VoteKind.PREPARE)
    node.lives(3.0, node.beat())

    assert phases(node.takes(early)) == [(Phase.DEMOTING, Reason.CONTAINER_DOWN)]


def test_a_prepare_that_was_not_answered_keeps_the_service_here() -> None:
    node = with_web_down()

    step = node.takes(VoteFailed(BACKUP, VoteKind.PREPARE, TERM + 1, "timed out"))

    assert of_kind(step, StopContainers) == []
    assert node.state.phase is Phase.ACTIVE


# --- a promotion that fails -----------------------------------------------------------------------


def test_a_promotion_that_fails_keeps_what_runs_and_says_so() -> None:
    node = promoting()
    node.takes(node.beat(readiness=Readiness.DIFFERS, not_ready_because=("another image",)))

    step = node.takes(StartFailed(TERM + 1, "web", "port in use"))

    assert phases(step) == [(Phase.FAILED, Reason.START_FAILED)]
    assert of_kind(step, StopContainers) == []
    assert node.state.failed_because == "web: port in use"
    assert "failed" in alarms(node)
    assert node.state.held_term == TERM + 1


def test_a_promotion_that_fails_goes_back_to_a_peer_that_is_ready() -> None:
    node = promoting()

    step = node.takes(StartFailed(TERM + 1, "web", "port in use"))

    (sent,) = of_kind(step, SendVoteRequest)
    assert (sent.request.kind, sent.request.reason) == (VoteKind.PREPARE, Reason.START_FAILED)
    step = node.takes(node.vote(VoteKind.PREPARE))
    assert phases(step) == [(Phase.DEMOTING, Reason.START_FAILED)]
    step = node.takes(ContainersStopped(TERM + 1))
    assert of_kind(step, SendRelease)[0].request.reason is Reason.START_FAILED


def test_a_node_whose_start_failed_is_not_handed_to_for_a_while_and_longer_each_time() -> None:
    node = promoting()
    node.takes(StartFailed(TERM + 1, "web", "port in use"))
    node.takes(node.vote(VoteKind.PREPARE))
    node.takes(ContainersStopped(TERM + 1))

    beat = of_kind(node.waits(1.0), SendHeartbeat)[0].beat

    assert beat.readiness is Readiness.DIFFERS
    assert beat.not_ready_because == ("the last start here failed: web: port in use",)
    assert node.state.not_able_until_s == pytest.approx(node.now - 1.0 + 120.0)
    assert node.state.failures == 1


def test_a_failed_node_repairs_even_where_no_repair_is_wanted_otherwise() -> None:
    node = failed(policy(restart_attempts=0))

    step = node.waits(25)

    assert RepairContainer(TERM + 1, "web") in step.effects


def test_a_failed_node_on_which_everything_runs_again_is_active() -> None:
    node = failed()

    step = node.takes(all_up(node))

    assert phases(step) == [(Phase.ACTIVE, Reason.REPAIRED)]
    assert (node.state.failures, node.state.failed_because) == (0, "")
    assert "failed" not in alarms(node)


def test_failed_on_both_sides_the_service_stays_where_it_is() -> None:
    node = failed()
    broken = node.beat(
        readiness=Readiness.DIFFERS, not_ready_because=("the last start here failed: web",)
    )

    step = node.lives(120, broken)

    assert phases(step) == []
    assert of_kind(step, StopContainers) == []
    assert len(of_kind(step, RepairContainer)) == 1, "the first one has not been answered"


def test_a_failed_node_goes_on_trying() -> None:
    node = failed()
    broken = node.beat(readiness=Readiness.DIFFERS, not_ready_because=("another image",))
    repairs = 0

    for _ in range(60):
        step = node.lives(10, broken)
        for repair in of_kind(step, RepairContainer):
            repairs += 1
            node.takes(RepairFinished(repair.term, repair.name, "port in use"))

    assert repairs > 30


# --- a stop that cannot be confirmed --------------------------------------------------------------


def test_a_stop_that_cannot_be_confirmed_releases_nothing_and_is_tried_again() -> None:
    node = demoting()

    step = node.takes(StopFailed(TERM + 1, ("web",), "timed out"))

    assert phases(step) == [(Phase.FAILED, Reason.STOP_NOT_CONFIRMED)]
    assert of_kind(step, SendRelease) + of_kind(step, StopContainers) == []
    assert node.state.failed_because == "web: timed out"
    step = node.lives(1.0, node.beat())
    assert of_kind(step, StopContainers) == [StopContainers(TERM + 1, ("web", "db"), None)]
    assert node.state.held_term == TERM + 1


def test_a_stop_that_is_confirmed_later_releases_after_all() -> None:
    node = stuck()
    node.lives(1.0, node.beat())

    step = node.takes(ContainersStopped(TERM + 1))

    assert phases(step) == [
        (Phase.DEMOTING, Reason.AGENT_STOPPING),
        (Phase.STANDBY, Reason.ALL_STOPPED),
    ]
    assert len(of_kind(step, SendRelease)) == 1


def test_a_second_failed_stop_is_tried_again_too() -> None:
    node = stuck()
    node.lives(1.0, node.beat())

    step = node.takes(StopFailed(TERM + 1, ("db",), "timed out"))

    assert phases(step) == []
    assert node.state.failed_because == "db: timed out"
    assert len(of_kind(node.lives(1.0, node.beat()), StopContainers)) == 1


@pytest.mark.parametrize("event", [ContainersStopped(TERM), StopFailed(TERM, ("web",), "no")])
def test_the_end_of_a_stop_of_another_term_is_stale(event: Event) -> None:
    node = demoting()

    step = node.takes(event)

    assert (phases(step), node.state.counters.stale) == ([], 1)


# --- the disk fails -------------------------------------------------------------------------------


def test_nothing_is_handed_over_that_could_not_be_released_afterwards() -> None:
    node = with_web_down()
    answer = node.vote(VoteKind.PREPARE)
    node.takes(RecordWriteFailed("disk full"))

    step = node.takes(answer)

    assert of_kind(step, StopContainers) == []
    assert of_kind(node.lives(60, node.beat()), SendVoteRequest) == []
    node.takes(RecordWritable())
    assert len(of_kind(node.lives(1, node.beat()), SendVoteRequest)) == 1


def test_what_is_stopped_and_cannot_be_released_is_started_here_again() -> None:
    node = with_web_down()
    node.takes(node.vote(VoteKind.PREPARE), RecordWriteFailed("disk full"))

    step = node.takes(ContainersStopped(TERM + 1))

    assert phases(step) == [(Phase.FAILED, Reason.RECORD_NOT_WRITABLE)]
    assert of_kind(step, SendRelease) == []
    assert node.state.failed_because == "the release could not be saved: disk full"


def test_a_stop_that_is_confirmed_late_and_cannot_be_released_is_undone_too() -> None:
    node = with_web_down()
    node.takes(node.vote(VoteKind.PREPARE))
    node.takes(StopFailed(TERM + 1, ("web",), "timed out"), RecordWriteFailed("disk full"))
    node.lives(1.0, node.beat())

    step = node.takes(ContainersStopped(TERM + 1))

    assert phases(step) == []
    assert (node.state.phase, node.state.handover) == (Phase.FAILED, None)


@pytest.mark.parametrize("case", ["a newer term", "the host shuts down"])
def test_where_it_must_not_run_here_the_release_waits_for_the_disk(case: str) -> None:
    node = active()
    if case == "a newer term":
        node.takes(node.leading_beat(TERM + 2))
    else:
        node.takes(StopRequested(host_is_shutting_down=True))
        node.takes(node.vote(VoteKind.PREPARE))
    node.takes(RecordWriteFailed("disk full"))

    step = node.takes(ContainersStopped(TERM + 1))

    assert phases(step) == []
    step = node.lives(1.0, node.beat())
    assert len(of_kind(step, StopContainers)) == 1
    node.takes(RecordWritable())
    step = node.takes(ContainersStopped(TERM + 1))
    assert phases(step) == [(Phase.STANDBY, Reason.ALL_STOPPED)]


# --- flapping -------------------------------------------------------------------------------------


def moved(times: int) -> Node:
    """An active node of a service that has moved so often within the window."""
    node = active(policy(restart_attempts=0))
    node.state = replace(node.state, moves_at_s=(node.now - 60,) * times)
    node.takes(node.died("web"))
    return node


def test_a_service_that_moved_too_often_stays_and_an_alarm_says_so() -> None:
    node = moved(3)

    step = node.lives(60, node.beat())

    assert of_kind(step, SendVoteRequest) == []
    assert node.state.durable.on_hold_for_flapping
    assert {"flapping", "container_down"} <= alarms(node)


def test_where_nothing_runs_any_more_it_moves_all_the_same() -> None:
    node = moved(3)
    node.takes(node.died("db"))

    step = node.lives(31, node.beat())

    assert len(of_kind(step, SendVoteRequest)) > 0


def test_below_the_limit_it_moves() -> None:
    node = moved(2)

    assert len(of_kind(node.lives(31, node.beat()), SendVoteRequest)) > 0


def test_moves_outside_the_window_do_not_count() -> None:
    node = moved(3)
    node.state = replace(node.state, moves_at_s=(node.now - 3600,) * 3)

    assert len(of_kind(node.lives(31, node.beat()), SendVoteRequest)) > 0


def test_a_node_on_hold_is_not_handed_to_either() -> None:
    node = moved(3)
    node.lives(31, node.beat())

    beat = reply(node.takes(node.beat())).beat

    assert beat.readiness is Readiness.DIFFERS
    assert "failover-agent resume ends it" in beat.not_ready_because[0]


def test_resume_allows_automatic_moves_again() -> None:
    node = moved(3)
    node.lives(31, node.beat())

    told = order(node, CommandKind.RESUME)

    assert told.accepted
    assert not node.state.durable.on_hold_for_flapping
    assert len(of_kind(node.lives(1, node.beat()), SendVoteRequest)) > 0


def test_resume_with_nothing_on_hold_says_so_and_forgets_what_was_counted() -> None:
    node = active()
    node.state = replace(node.state, moves_at_s=(node.now,))

    told = order(node, CommandKind.RESUME)

    assert told.accepted
    assert told.sentence.startswith("Nothing was on hold")
    assert node.state.moves_at_s == ()


def test_resume_after_a_failed_start_makes_the_node_ready_again() -> None:
    node = active()
    node.state = replace(node.state, not_able_until_s=node.now + 60, failures=2)

    told = order(node, CommandKind.RESUME)

    assert told.sentence.startswith("Automatic moves are allowed again")
    assert (node.state.not_able_until_s, node.state.failures) == (node.now, 0)


def test_resume_is_refused_while_the_record_cannot_be_written() -> None:
    node = moved(3)
    node.takes(RecordWriteFailed("disk full"))

    told = order(node, CommandKind.RESUME)

    assert (told.accepted, told.sentence) == (False, "The record cannot be written: disk full.")


def test_resume_while_a_stop_is_tried_again_stops_nothing_in_the_same_step() -> None:
    node = stuck()
    node.state = replace(node.state, durable=replace(node.state.durable, on_hold_for_flapping=True))

    assert order(node, CommandKind.RESUME).accepted


def test_a_hold_for_flapping_is_noted_only_where_it_can_be_saved() -> None:
    node = moved(3)
    node.takes(RecordWriteFailed("disk full"))

    step = node.lives(31, node.beat())

    assert of_kind(step, SendVoteRequest) == []
    assert not node.state.durable.on_hold_for_flapping


@pytest.mark.parametrize(("limit", "kept"), [(3, 3), (0, 1)])
def test_only_as_many_moves_as_matter_are_kept(limit: int, kept: int) -> None:
    node = active(policy(max_failovers=limit))
    node.state = replace(node.state, moves_at_s=(node.now - 60,) * 5)
    node.takes(node.leading_beat(TERM + 9))
    node.takes(ContainersStopped(TERM + 1))

    assert len(node.state.moves_at_s) == kept


def test_moves_that_were_ordered_do_not_count() -> None:
    node = demoting()
    node.takes(ContainersStopped(TERM + 1))

    assert node.state.moves_at_s == ()


def test_moves_on_silence_and_after_a_failure_count_on_both_sides() -> None:
    taker = a_lonely_standby()
    taker.waits(1)
    giver = with_web_down()
    giver.takes(giver.vote(VoteKind.PREPARE))
    giver.takes(ContainersStopped(TERM + 1))

    assert (len(taker.state.moves_at_s), len(giver.state.moves_at_s)) == (1, 1)


# --- H7: a higher term was granted while we lead --------------------------------------------------


def refused(node: Node, term: int, holder: Holder | None = None) -> HeartbeatAnswered:
    """A voter granted `term`, and is promised to `holder` or to nobody."""
    vote = Vote(False, term, holder, None, Refusal.OLD_TERM)
    return HeartbeatAnswered(
        BACKUP,
        node.now,
        held_term(node),
        BeatAnswer(peer_sender(node), peer_beat(node, term=term), vote),
    )


@pytest.mark.parametrize("holder", [None, THE_PRIMARY])
def test_a_holder_that_is_told_of_a_higher_term_raises_its_own_and_stops_nothing(
    holder: Holder | None,
) -> None:
    node = active()

    step = node.takes(refused(node, 20, holder))

    (sent,) = of_kind(step, SendVoteRequest)
    assert (sent.request.kind, sent.request.term) == (VoteKind.CANDIDACY, 21)
    assert (node.state.phase, node.state.held_term) == (Phase.ACTIVE, TERM + 1)
    step = node.takes(node.vote(VoteKind.CANDIDACY))
    assert of_kind(step, StopContainers) + of_kind(step, StartContainers) == []
    assert (node.state.phase, node.state.held_term, node.state.candidacy) == (
        Phase.ACTIVE,
        21,
        None,
    )


def test_nothing_is_raised_while_the_voter_is_promised_to_another() -> None:
    node = active()

    step = node.takes(refused(node, 20, THE_BACKUP))

    assert of_kind(step, SendVoteRequest) == []


def test_a_holder_whose_own_term_was_granted_to_another_raises_it_too() -> None:
    node = active()

    step = node.takes(refused(node, TERM + 1))

    assert [sent.request.term for sent in of_kind(step, SendVoteRequest)] == [TERM + 2]


@pytest.mark.parametrize("refusal", [Refusal.CONTAINERS_RUN, Refusal.LEADING])
def test_a_refusal_for_another_cause_raises_nothing(refusal: Refusal) -> None:
    node = active()
    event = refused(node, 20)
    assert event.answer.vote is not None
    vote = replace(event.answer.vote, refusal=refusal)

    step = node.takes(replace(event, answer=replace(event.answer, vote=vote)))

    assert of_kind(step, SendVoteRequest) == []


def test_a_refusal_in_a_lower_term_raises_nothing() -> None:
    node = active()

    step = node.takes(refused(node, TERM))

    assert of_kind(step, SendVoteRequest) == []


@pytest.mark.parametrize("build", [promoting, demoting, failed, with_web_down])
def test_a_term_is_raised_in_calm_only(build: object) -> None:
    assert callable(build)
    node: Node = build()

    step = node.takes(refused(node, 20))

    assert VoteKind.CANDIDACY not in {sent.request.kind for sent in of_kind(step, SendVoteRequest)}


def test_a_term_is_not_raised_while_a_container_is_being_repaired_or_the_disk_is_full() -> None:
    node = active()
    node.takes(node.died("web"))
    node.lives(2.0, node.beat())
    assert node.state.repairing
    assert of_kind(node.takes(refused(node, 20)), SendVoteRequest) == []

    node = active()
    node.takes(RecordWriteFailed("disk full"))
    assert of_kind(node.takes(refused(node, 20)), SendVoteRequest) == []


def test_a_term_is_not_raised_by_a_node_that_is_leaving() -> None:
    node = active()
    node.takes(StopRequested(restarting=True))

    assert of_kind(node.takes(refused(node, 20)), SendVoteRequest) == []


def test_a_raise_that_is_refused_is_dropped_and_not_tried_again_at_once() -> None:
    node = active()
    node.takes(refused(node, 20))

    node.takes(node.vote(VoteKind.CANDIDACY, Refusal.CONTAINERS_RUN))

    assert (node.state.candidacy, node.state.held_term) == (None, TERM + 1)
    assert of_kind(node.takes(refused(node, 21)), SendVoteRequest) == []
    node.lives(10.2, node.beat())
    assert len(of_kind(node.takes(refused(node, 21)), SendVoteRequest)) == 1


def test_a_raise_that_is_not_answered_is_dropped_after_the_timeout() -> None:
    node = active()
    node.takes(refused(node, 20))

    node.lives(10.0, node.beat())
    asked = node.state.candidacy
    node.lives(0.2, node.beat())

    assert asked is not None
    assert node.state.candidacy is None
    assert node.state.held_term == TERM + 1


def test_a_release_after_an_unanswered_raise_gives_the_raised_term_back() -> None:
    node = active()
    node.takes(refused(node, 20))
    node.takes(node.leading_beat(40))
    assert (node.state.phase, node.state.candidacy) == (Phase.DEMOTING, None)

    step = node.takes(ContainersStopped(TERM + 1))

    assert of_kind(step, SendRelease)[0].request.term == 21


def test_an_answer_without_a_vote_means_nothing() -> None:
    node = active()

    step = node.takes(node.answered())

    assert phases(step) == []


# --- two actives meet -----------------------------------------------------------------------------


@pytest.mark.parametrize("build", [promoting, active, failed])
def test_the_lower_term_stops_at_once_at_first_contact(build: object) -> None:
    assert callable(build)
    node: Node = build()

    step = node.takes(node.leading_beat(TERM + 2))

    assert phases(step) == [(Phase.DEMOTING, Reason.NEWER_TERM)]
    assert len(of_kind(step, StopContainers)) == 1
    assert of_kind(step, SendVoteRequest) == []


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"phase": Phase.DEMOTING}, id="it gives the service up"),
        pytest.param({"phase": Phase.FAILED, "running": 0}, id="it could start nothing"),
    ],
)
def test_nobody_stops_for_a_newer_term_in_which_nothing_is_served(
    changes: dict[str, object],
) -> None:
    node = active()

    step = node.takes(node.leading_beat(TERM + 2, **changes))

    assert phases(step) == []


def test_the_lower_term_stops_for_one_that_failed_and_still_runs_something() -> None:
    node = active()

    step = node.takes(node.leading_beat(TERM + 2, phase=Phase.FAILED, running=1))

    assert phases(step) == [(Phase.DEMOTING, Reason.NEWER_TERM)]


def test_one_that_could_start_nothing_gives_way_to_one_that_is_active_in_a_lower_term() -> None:
    node = failed()
    node.takes(changed("db", DOWN))

    step = node.takes(node.leading_beat(TERM))

    assert phases(step) == [(Phase.DEMOTING, Reason.START_FAILED)]
    step = node.takes(ContainersStopped(TERM + 1))
    assert of_kind(step, SendRelease)[0].request.to is BACKUP


def test_the_release_of_the_lower_term_names_nobody() -> None:
    node = active()
    node.takes(node.leading_beat(TERM + 2))

    step = node.takes(ContainersStopped(TERM + 1))

    assert of_kind(step, SendRelease)[0].request.to is None
    assert node.state.phase is Phase.STANDBY
    node.takes(node.release_answered(TERM + 1))
    assert node.state.release is None


def test_the_higher_term_goes_on() -> None:
    node = active()

    step = node.takes(node.leading_beat(TERM))

    assert phases(step) == []
    assert "two_actives" in alarms(node)


def test_at_equal_terms_the_preferred_one_goes_on() -> None:
    primary = active()
    backup = active(policy(BACKUP), durable=held_by(THE_BACKUP))

    primary.takes(primary.leading_beat(TERM + 1))
    backup.takes(backup.leading_beat(TERM + 1))

    assert (primary.state.phase, backup.state.phase) == (Phase.ACTIVE, Phase.DEMOTING)


def test_a_node_that_stops_already_does_not_stop_twice() -> None:
    node = demoting()

    step = node.takes(node.leading_beat(TERM + 9))

    assert of_kind(step, StopContainers) == []


def test_the_answer_to_a_beat_is_contact_as_well() -> None:
    node = active()
    beat = node.leading_beat(TERM + 2).beat

    step = node.takes(
        HeartbeatAnswered(BACKUP, node.now, TERM + 1, BeatAnswer(beat.sender, beat, None))
    )

    assert phases(step) == [(Phase.DEMOTING, Reason.NEWER_TERM)]


def test_the_overlap_is_measured_from_the_later_beginning_to_the_confirmed_stop() -> None:
    node = active()
    contact_s = node.now

    node.takes(node.leading_beat(TERM + 2, leading_for_s=4.0))
    node.takes(ContainersStopped(TERM + 1), after_s=1.5)

    overlap = node.state.overlap
    assert overlap is not None
    assert (overlap.began_at_s, overlap.ended_at_s) == (contact_s - 4.0, contact_s + 1.5)
    assert node.state.counters.overlaps == 1


def test_the_overlap_begins_no_sooner_than_this_node_did() -> None:
    node = active()

    node.takes(node.leading_beat(TERM, leading_for_s=9000.0))

    assert node.state.overlap is not None
    assert node.state.overlap.began_at_s == node.state.leading_at_s


def test_the_one_that_goes_on_measures_until_the_other_says_that_it_stopped() -> None:
    node = active()
    node.takes(node.leading_beat(TERM, leading_for_s=4.0))
    node.takes(node.leading_beat(TERM, leading_for_s=5.0), after_s=1.0)

    node.takes(node.beat(term=TERM, holder=BACKUP, released=True), after_s=1.0)

    overlap = node.state.overlap
    assert overlap is not None
    assert overlap.ended_at_s == node.now
    assert overlap.ended_at_s - overlap.began_at_s == 6.0
    assert node.state.counters.overlaps == 1
    assert "two_actives" not in alarms(node)
    node.takes(node.beat(), after_s=1.0)
    assert node.state.overlap == overlap


def test_a_second_overlap_is_counted_anew() -> None:
    node = active()
    node.takes(node.leading_beat(TERM), node.beat(term=TERM), node.leading_beat(TERM))

    assert node.state.counters.overlaps == 2


def test_where_one_has_not_led_yet_nothing_overlapped() -> None:
    node = active()

    node.takes(node.leading_beat(TERM, phase=Phase.PROMOTING, leading_for_s=None))

    assert node.state.overlap is None
    assert "two_actives" not in alarms(node)


def test_a_late_beat_of_the_one_that_handed_over_is_no_overlap() -> None:
    node = a_standby()
    node.takes(node.released())
    node.takes(node.vote(VoteKind.POLL))
    node.takes(node.vote(VoteKind.CANDIDACY))
    node.takes(all_up(node), ContainersStarted(TERM + 1))

    node.takes(node.leading_beat(TERM, phase=Phase.DEMOTING))

    assert node.state.overlap is None


# --- resume ---------------------------------------------------------------------------------------


def test_down_containers_count_from_the_resumption() -> None:
    node = starting(durable=held_by(THE_PRIMARY, led=True), boot_is_new=False)
    node.takes(all_up(node), changed("web", DOWN))

    node.takes(node.renewed(), after_s=5.0)

    assert node.state.containers["web"].down_since_s == node.now
    assert node.state.containers["db"].down_since_s is None
