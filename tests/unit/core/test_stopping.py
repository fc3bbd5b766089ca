"""SIGTERM: hand over, leave, restart, shut down (section 6); the last words of an agent."""

import pytest

from failover_agent.core.effects import (
    Exit,
    SendHeartbeat,
    SendRelease,
    SendVoteRequest,
    StopContainers,
)
from failover_agent.core.events import (
    ContainersStarted,
    ContainersStopped,
    HeartbeatAnswered,
    RecordWriteFailed,
    StopRequested,
    Tick,
    VoteFailed,
)
from failover_agent.core.messages import BeatAnswer, Refusal, Vote, VoteKind
from failover_agent.core.plan import Step
from failover_agent.core.policy import OnStop, Policy
from failover_agent.core.state import FOREVER, Phase, Readiness, Reason
from tests.unit.core.builders import (
    BACKUP,
    TERM,
    THE_PRIMARY,
    Node,
    a_standby,
    active,
    alarms,
    all_down,
    all_up,
    demoting,
    held_by,
    held_term,
    leading,
    of_kind,
    peer_beat,
    peer_sender,
    phases,
    policy,
    promoting,
    starting,
)


def leaving() -> Policy:
    """SIGTERM leaves the containers running."""
    return policy(on_stop=OnStop.LEAVE)


def on_hold(node: Node) -> HeartbeatAnswered:
    """The peer answers our last beat: its promise to us has no end now."""
    vote = Vote(True, held_term(node), THE_PRIMARY, FOREVER)
    return HeartbeatAnswered(
        BACKUP, node.now, held_term(node), BeatAnswer(peer_sender(node), peer_beat(node), vote)
    )


def last_words(step: Step) -> list[str]:
    """What the agent says as it leaves."""
    return [effect.sentence for effect in of_kind(step, Exit)]


# --- handover -------------------------------------------------------------------------------------


def test_an_active_node_that_is_told_to_stop_asks_its_peer_first() -> None:
    node = active()

    step = node.takes(StopRequested())

    (sent,) = of_kind(step, SendVoteRequest)
    assert (sent.request.kind, sent.request.reason) == (VoteKind.PREPARE, Reason.AGENT_STOPPING)
    assert of_kind(step, StopContainers) + of_kind(step, Exit) == []


def test_it_leaves_once_the_peer_holds_the_service() -> None:
    node = demoting()
    node.takes(ContainersStopped(TERM + 1))
    assert node.state.phase is Phase.STANDBY
    assert last_words(node.lives(1.0, node.beat())) == []

    step = node.takes(node.leading_beat(TERM + 2, phase=Phase.PROMOTING))

    assert last_words(step) == ["This agent holds no term: nothing is left to do."]


def test_until_then_it_still_votes_for_the_one_that_takes_over() -> None:
    node = demoting()
    node.takes(ContainersStopped(TERM + 1))

    step = node.takes(node.asked(VoteKind.CANDIDACY, TERM + 2))

    assert node.state.durable.term == TERM + 2
    assert last_words(step) == []


def test_it_leaves_after_its_patience_if_nobody_takes_the_service() -> None:
    node = demoting()
    node.takes(ContainersStopped(TERM + 1))

    assert last_words(node.lives(2.9, node.beat())) == []
    assert len(last_words(node.lives(0.2, node.beat()))) == 1


def test_it_does_not_ask_for_the_service_itself_any_more() -> None:
    node = demoting()
    node.takes(ContainersStopped(TERM + 1))

    assert phases(node.lives(10, node.beat())) == []


def test_a_node_that_promotes_hands_over_too() -> None:
    node = promoting()
    node.takes(StopRequested())

    step = node.takes(node.vote(VoteKind.PREPARE))

    assert phases(step) == [(Phase.DEMOTING, Reason.AGENT_STOPPING)]
    assert len(of_kind(step, StopContainers)) == 1


def test_asked_twice_it_stops_once() -> None:
    node = active()
    node.takes(StopRequested())
    asked_at_s = node.now

    step = node.takes(StopRequested(host_is_shutting_down=True), after_s=0.1)

    assert node.state.stopping is not None
    assert node.state.stopping.asked_at_s == asked_at_s
    assert of_kind(step, SendVoteRequest) == []


# --- nobody can take it: leave it running, on hold ------------------------------------------------


@pytest.mark.parametrize("case", ["not ready", "refuses", "does not answer"])
def test_without_a_peer_that_takes_it_the_service_is_left_running_on_hold(case: str) -> None:
    node = active()
    if case == "not ready":
        node.takes(node.beat(readiness=Readiness.CANNOT, not_ready_because=("no engine",)))
    step = node.takes(StopRequested())
    if case == "refuses":
        step = node.takes(node.vote(VoteKind.PREPARE, Refusal.NOT_READY))
    if case == "does not answer":
        node.lives(2.9, VoteFailed(BACKUP, VoteKind.PREPARE, TERM + 1, "timed out"))
        step = node.lives(0.1)

    (sent,) = [sent for sent in of_kind(step, SendHeartbeat) if sent.beat.hold]
    assert sent.beat.renews
    assert of_kind(step, StopContainers) == []
    assert "held" in alarms(node)
    step = node.takes(on_hold(node))
    (said,) = last_words(step)
    assert said.startswith("The containers are left running; the backup holds: nobody will take")


def test_a_yes_that_comes_after_its_patience_stops_nothing_any_more() -> None:
    node = active()
    node.takes(StopRequested())
    answer = node.vote(VoteKind.PREPARE)
    node.lives(3.0)

    step = node.takes(answer)

    assert of_kind(step, StopContainers) == []
    assert node.state.counters.stale == 1


def test_its_own_absence_is_no_silence_of_the_peer_that_it_asked() -> None:
    """The machine stood still for longer than its patience; the answer waits in the socket."""
    node = active()
    node.takes(StopRequested())
    answer = node.vote(VoteKind.PREPARE)

    step = node.takes(Tick(), answer, after_s=3.5)

    assert len(of_kind(step, StopContainers)) == 1
    assert node.state.phase is Phase.DEMOTING


def test_one_that_is_kept_from_running_again_and_again_leaves_all_the_same() -> None:
    node = active(leaving())
    node.takes(StopRequested())
    said: list[str] = []

    for _ in range(6):
        said += last_words(node.takes(Tick(), after_s=2.9))

    assert said


def test_its_own_absence_does_not_end_the_wait_for_a_hold() -> None:
    node = active(leaving())
    node.takes(StopRequested())
    held = on_hold(node)

    step = node.takes(Tick(), after_s=3.5)
    assert last_words(step) == []
    (said,) = last_words(node.takes(held))

    assert said.startswith("The containers are left running; the backup holds")


def test_a_peer_that_is_silent_is_named_in_the_last_words() -> None:
    node = active()
    node.waits(11)

    step = node.takes(StopRequested())

    assert last_words(step) == []
    assert last_words(node.waits(2.9)) == []
    (said,) = last_words(node.waits(0.2))
    assert said.startswith("The containers are left running, but the backup could not be told")


# --- on_stop = "leave", and a restart -------------------------------------------------------------


@pytest.mark.parametrize("restarting", [False, True])
def test_leave_asks_for_a_hold_at_once_and_stops_nothing(restarting: bool) -> None:
    node = active(None if restarting else leaving())

    step = node.takes(StopRequested(restarting=restarting))

    (sent,) = of_kind(step, SendHeartbeat)
    assert sent.beat.hold
    assert of_kind(step, StopContainers) + of_kind(step, SendVoteRequest) == []
    assert len(last_words(node.takes(on_hold(node)))) == 1


def test_a_renewal_without_a_hold_does_not_let_it_leave() -> None:
    node = active(leaving())
    node.takes(StopRequested())

    assert last_words(node.takes(node.renewed(term=TERM + 1))) == []


def test_a_hold_that_nobody_asked_for_lets_nobody_leave() -> None:
    node = active()

    assert last_words(node.takes(on_hold(node))) == []


def test_a_hold_of_an_earlier_term_does_not_let_it_leave() -> None:
    node = active(leaving())
    node.takes(StopRequested())
    late = on_hold(node)

    step = node.takes(HeartbeatAnswered(BACKUP, node.now, TERM, late.answer))

    assert last_words(step) == []


def test_a_stop_that_is_under_way_is_brought_to_its_end_before_anybody_leaves() -> None:
    node = active(leaving())
    node.takes(node.leading_beat(TERM + 2))
    assert node.state.phase is Phase.DEMOTING

    step = node.takes(StopRequested())

    assert not any(sent.beat.hold for sent in of_kind(step, SendHeartbeat))
    assert last_words(node.lives(10, on_hold(node))) == []
    step = node.takes(ContainersStopped(TERM + 1))
    assert len(of_kind(step, SendRelease)) == 1
    assert len(last_words(node.takes(node.leading_beat(TERM + 2)))) == 1


def test_a_start_that_is_under_way_is_brought_to_its_end_before_anybody_leaves() -> None:
    node = promoting(leaving())

    step = node.takes(StopRequested())

    assert not any(sent.beat.hold for sent in of_kind(step, SendHeartbeat))
    assert last_words(node.lives(10, node.beat())) == []
    node.takes(all_up(node), ContainersStarted(TERM + 1))
    (sent,) = of_kind(node.lives(1.0, node.beat()), SendHeartbeat)
    assert sent.beat.hold
    assert len(last_words(node.takes(on_hold(node)))) == 1


def test_a_standby_that_is_told_to_stop_leaves_at_once() -> None:
    node = a_standby()

    assert last_words(node.takes(StopRequested())) == [
        "This agent holds no term: nothing is left to do."
    ]


# --- told to stop before it knows where it stands -------------------------------------------------


def restarted(policy_: Policy | None = None) -> Node:
    """The containers run, the agent has just been started again."""
    node = starting(policy_, held_by(THE_PRIMARY, led=True), boot_is_new=False)
    node.takes(all_up(node))
    return node


def test_an_agent_that_would_resume_asks_for_the_hold_in_its_old_term() -> None:
    node = restarted()

    step = node.takes(StopRequested(restarting=True))

    (sent,) = of_kind(step, SendHeartbeat)
    assert (sent.beat.renews, sent.beat.hold, sent.beat.term) == (True, True, TERM)
    assert last_words(step) == []
    vote = Vote(True, TERM, THE_PRIMARY, FOREVER)
    answer = HeartbeatAnswered(
        BACKUP, node.now, TERM, BeatAnswer(peer_sender(node), peer_beat(node), vote)
    )
    assert phases(node.takes(answer)) == [(Phase.ACTIVE, Reason.RESUMED)]
    assert len(last_words(node.takes(on_hold(node)))) == 1


def test_an_agent_that_would_resume_and_hears_nobody_leaves_after_its_patience() -> None:
    node = restarted()
    node.takes(StopRequested())

    assert last_words(node.waits(2.9)) == []
    (said,) = last_words(node.waits(0.2))
    assert said.startswith("Nobody confirmed the term of this restarted agent;")


# --- the host shuts down: always hand over --------------------------------------------------------


def test_a_host_that_shuts_down_hands_over_even_where_leave_is_set() -> None:
    node = active(leaving())

    step = node.takes(StopRequested(host_is_shutting_down=True))

    (sent,) = of_kind(step, SendVoteRequest)
    assert sent.request.kind is VoteKind.PREPARE


@pytest.mark.parametrize("case", ["silent", "refuses", "does not answer"])
def test_a_host_that_shuts_down_without_a_taker_stops_in_order_and_gives_its_term_back(
    case: str,
) -> None:
    node = active()
    if case == "silent":
        node.waits(11)
    step = node.takes(StopRequested(host_is_shutting_down=True))
    if case == "refuses":
        step = node.takes(node.vote(VoteKind.PREPARE, Refusal.NOT_READY))
    if case == "does not answer":
        step = node.lives(3.0)

    assert phases(step) == [(Phase.DEMOTING, Reason.AGENT_STOPPING)]
    step = node.takes(ContainersStopped(TERM + 1))
    (sent,) = of_kind(step, SendRelease)
    assert sent.request.to is BACKUP
    assert not any(sent.beat.hold for sent in of_kind(step, SendHeartbeat))
    assert len(last_words(node.lives(3.1, node.beat()))) == 1


def test_nobody_is_asked_to_hold_for_a_service_that_does_not_run() -> None:
    node = demoting()
    node.takes(all_down(node), RecordWriteFailed("disk full"))

    step = node.takes(ContainersStopped(TERM + 1))

    assert node.state.phase is Phase.FAILED
    step = node.lives(10.0, node.beat())
    assert not any(sent.beat.hold for sent in of_kind(step, SendHeartbeat))


def test_a_node_that_stops_still_gives_way_to_a_newer_term() -> None:
    node = active()
    node.takes(StopRequested())

    step = node.takes(
        HeartbeatAnswered(
            BACKUP, node.now, 6, BeatAnswer(peer_sender(node), leading(node, 9), None)
        )
    )

    assert phases(step) == [(Phase.DEMOTING, Reason.NEWER_TERM)]
