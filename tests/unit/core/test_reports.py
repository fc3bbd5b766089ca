"""What a node says of itself: readiness with its reasons, health, alarms that open and close."""

from dataclasses import replace

import pytest

from failover_agent.core.effects import Reply, SendHeartbeat
from failover_agent.core.events import (
    AddressLost,
    ConflictKind,
    ConflictSeen,
    ContainersStarted,
    HeartbeatFailed,
    RecordWritable,
    RecordWriteFailed,
    StartFailed,
    StopRequested,
    Tick,
)
from failover_agent.core.messages import BeatAnswer, Refusal, VoteKind
from failover_agent.core.plan import Step
from failover_agent.core.reports import readiness, running
from failover_agent.core.state import ContainerState, Durable, Health, Phase, Readiness
from tests.unit.core.builders import (
    BACKUP,
    PRIMARY,
    TERM,
    Node,
    a_candidate,
    a_lonely_standby,
    a_standby,
    active,
    alarms,
    all_down,
    all_up,
    changed,
    engine_lost,
    failed,
    of_kind,
    peer_beat,
    peer_sender,
    policy,
    promoting,
    starting,
    stuck,
)

DOWN = ContainerState.DOWN


def ready(node: Node) -> tuple[Readiness, tuple[str, ...]]:
    """What the node would say of its readiness now."""
    return readiness(node.state, node.now, node.policy)


def reply_beat(step: Step) -> str:
    """What the answer to a beat says that is known of the sender's profile."""
    (reply,) = of_kind(step, Reply)
    assert isinstance(reply.answer, BeatAnswer)
    assert reply.answer.beat is not None
    return reply.answer.beat.knows_digest


# --- readiness ------------------------------------------------------------------------------------


def test_a_standby_with_everything_in_place_is_ready() -> None:
    assert ready(a_standby()) == (Readiness.READY, ())


def test_before_the_engine_has_answered_nobody_is_ready() -> None:
    assert ready(starting()) == (
        Readiness.CANNOT,
        ("the Docker Engine has not answered yet",),
    )


def test_with_a_lost_engine_it_cannot() -> None:
    node = a_standby()
    node.takes(engine_lost(None))

    assert ready(node) == (
        Readiness.CANNOT,
        ("the Docker Engine does not answer: connection refused",),
    )


def test_without_a_container_it_cannot_and_each_missing_one_is_named() -> None:
    node = a_standby()
    node.takes(changed("web", DOWN, exists=False), changed("db", DOWN, exists=False))

    assert ready(node) == (
        Readiness.CANNOT,
        ("db: no such container", "web: no such container"),
    )


def test_with_a_record_that_cannot_be_written_it_cannot() -> None:
    node = a_standby()
    node.takes(RecordWriteFailed("disk full"))

    assert ready(node) == (Readiness.CANNOT, ("the record cannot be written: disk full",))
    node.takes(RecordWritable())
    assert ready(node) == (Readiness.READY, ())


def test_with_another_image_or_other_settings_it_differs() -> None:
    node = a_standby()
    specs = (("db", "image", "other"), ("web", "other", "other"))

    node.takes(node.leading_beat(specs=specs))

    assert ready(node) == (
        Readiness.DIFFERS,
        ("db: other settings than on the primary", "web: another image than on the primary"),
    )


@pytest.mark.parametrize(
    "specs",
    [
        pytest.param((("db", "", ""), ("web", "", "")), id="the peer does not know its images"),
        pytest.param((("other", "x", "y"),), id="the peer has another container"),
    ],
)
def test_what_cannot_be_compared_does_not_differ(specs: tuple[tuple[str, str, str], ...]) -> None:
    node = a_standby()

    node.takes(node.leading_beat(specs=specs))

    assert ready(node) == (Readiness.READY, ())


def test_what_this_node_does_not_know_of_itself_does_not_differ() -> None:
    node = a_standby()
    node.takes(changed("web", DOWN, image="", settings=""))

    node.takes(node.leading_beat())

    assert ready(node) == (Readiness.READY, ())


def test_a_container_that_is_missing_here_is_missing_and_not_different() -> None:
    node = a_standby()
    node.takes(changed("web", DOWN, exists=False, image="", settings=""))

    node.takes(node.leading_beat())

    assert ready(node) == (Readiness.CANNOT, ("web: no such container",))


def test_while_the_profile_of_the_peer_is_not_known_it_differs() -> None:
    node = a_standby()
    node.takes(node.leading_beat(profile_digest="another one", profile=None))

    said = ("the primary has yet to say how its containers are made",)
    assert ready(node) == (Readiness.DIFFERS, said)
    assert reply_beat(node.takes(node.leading_beat(profile=None, profile_digest="x"))) == ""
    node.takes(node.leading_beat())
    assert ready(node) == (Readiness.READY, ())


def test_a_peer_that_is_gone_makes_no_difference_any_more() -> None:
    node = a_standby()
    node.takes(node.leading_beat(specs=(("web", "other", "other"),)))

    node.now += 10.2

    assert ready(node) == (Readiness.READY, ())


def test_a_node_in_a_wrong_set_up_cannot_and_says_that_it_may_not_lead() -> None:
    node = a_standby()
    node.takes(ConflictSeen(ConflictKind.ENDPOINT_IS_SELF, "the endpoint is this agent itself"))

    (sent,) = of_kind(node.waits(1.0), SendHeartbeat)

    assert sent.beat.readiness is Readiness.CANNOT
    assert sent.beat.not_ready_because == ("the endpoint is this agent itself",)
    assert not sent.beat.may_lead


# --- health ---------------------------------------------------------------------------------------


def test_health_is_one_word() -> None:
    node = active()
    assert (node.state.containers.health, running(node.state)) == (Health.OK, 2)

    node.takes(changed("web", DOWN, alive=True))
    assert (node.state.containers.health, running(node.state)) == (Health.DEGRADED, 2)

    node.takes(node.died("web"))
    assert (node.state.containers.health, running(node.state)) == (Health.DEGRADED, 1)

    node.takes(engine_lost(None))
    assert (node.state.containers.health, running(node.state)) == (Health.UNKNOWN, None)


# --- alarms ---------------------------------------------------------------------------------------


def test_a_healthy_pair_has_no_alarms() -> None:
    assert alarms(active()) == set()
    assert alarms(a_standby()) == set()


def test_an_alarm_keeps_its_start_and_its_sentence_while_it_is_open() -> None:
    node = a_lonely_standby(policy(BACKUP, heartbeat_timeout_s=10.0))
    node.takes(changed("web", DOWN, exists=False))
    opened = node.state.alarms["not_ready"]

    for _ in range(50):
        node.takes(Tick(), after_s=0.7)

    assert node.state.alarms["not_ready"] == opened
    node.takes(changed("web", DOWN))
    assert "not_ready" not in alarms(node)


@pytest.mark.parametrize("case", ["redundancy lost", "container down", "engine lost", "failed"])
def test_no_sentence_changes_by_time_alone(case: str) -> None:
    node = failed() if case == "failed" else active()
    if case == "container down":
        node.takes(node.died("web"))
    if case == "engine lost":
        node.takes(engine_lost(False, "db", "web"))
    node.waits(61)
    before = node.state.alarms
    assert before

    node.waits(61)

    assert node.state.alarms == before


def test_a_record_that_cannot_be_written_is_an_alarm() -> None:
    node = active()

    node.takes(RecordWriteFailed("disk full"))

    alarm = node.state.alarms["record_not_writable"]
    assert (alarm.sentence, alarm.since_s) == (
        "the record cannot be written: disk full",
        node.now,
    )
    assert node.state.phase is Phase.ACTIVE
    node.takes(RecordWritable())
    assert alarms(node) == set()


def test_an_active_node_whose_peer_is_silent_has_lost_its_redundancy() -> None:
    node = active()

    node.waits(11)

    assert node.state.alarms["redundancy_lost"].sentence == "nothing is heard from the backup"


@pytest.mark.parametrize("how", ["refused", "no address"])
def test_why_nothing_is_heard_is_said(how: str) -> None:
    node = active()
    event = (
        HeartbeatFailed(BACKUP, node.now, "connection refused")
        if how == "refused"
        else AddressLost(BACKUP, "connection refused")
    )

    node.takes(event)
    assert alarms(node) == set(), "one lost beat is no alarm"
    node.waits(11)

    assert node.state.alarms["redundancy_lost"].sentence == (
        "nothing is heard from the backup (connection refused)"
    )
    node.takes(node.beat())
    assert alarms(node) == set()
    assert node.state.peers[BACKUP].error == ""


def test_a_peer_that_is_not_ready_is_lost_redundancy_and_it_is_said_why() -> None:
    node = active()

    node.takes(node.beat(readiness=Readiness.DIFFERS, not_ready_because=("web: another image",)))

    assert node.state.alarms["redundancy_lost"].sentence == (
        "the backup is not ready: web: another image"
    )


def test_a_container_beyond_repair_is_an_alarm_and_one_under_repair_is_none() -> None:
    node = active()
    node.takes(node.died("web"))

    node.waits(29)
    assert "container_down" not in alarms(node)
    node.waits(2)

    assert node.state.alarms["container_down"].sentence == "down beyond restart_grace_period: web"


def test_while_it_promotes_nothing_is_beyond_repair() -> None:
    node = promoting()
    node.takes(all_up(node), node.died("web"))

    node.lives(120, node.beat())

    assert alarms(node) == set()


def test_a_failed_node_says_what_failed() -> None:
    assert failed().state.alarms["failed"].sentence == (
        "not everything could be started or stopped: web: port in use"
    )
    assert stuck().state.alarms["failed"].sentence == (
        "not everything could be started or stopped: web: the engine does not answer"
    )


def test_a_standby_sees_that_its_peer_is_degraded() -> None:
    node = a_standby()

    node.takes(node.leading_beat(health=Health.DEGRADED))

    assert node.state.alarms["peer_degraded"].sentence == "a container is down on the primary"


def test_a_standby_sees_that_the_engine_of_its_peer_is_gone() -> None:
    node = a_standby()

    node.takes(node.leading_beat(health=Health.UNKNOWN))

    assert "its engine is gone" in node.state.alarms["peer_degraded"].sentence


def test_a_standby_whose_peer_is_silent_says_so_before_and_after_it_took_over() -> None:
    node = a_standby()
    node.takes(changed("web", DOWN, exists=False))

    node.waits(11)

    assert node.state.alarms["peer_silent"].sentence == "nothing is heard from the primary"
    node.takes(HeartbeatFailed(PRIMARY, node.now, "no route to host"))
    assert node.state.alarms["peer_silent"].sentence == (
        "nothing is heard from the primary (no route to host)"
    )


def test_a_node_that_has_just_started_is_given_a_moment() -> None:
    node = starting(policy(BACKUP), Durable())
    node.takes(Tick())
    assert alarms(node) == set()

    node.waits(1.5)
    assert alarms(node) == {"not_ready"}
    node.takes(all_down(node))
    assert alarms(node) == set()


def test_settings_that_differ_are_named() -> None:
    node = a_standby()

    node.takes(node.leading_beat(settings=(("heartbeat_timeout", "5.0"),)))

    assert node.state.alarms["settings_differ"].sentence == (
        "settings differ from those of the primary: heartbeat_timeout"
    )
    assert ready(node) == (Readiness.READY, ()), "it is alarmed and no more"
    node.takes(node.leading_beat())
    assert alarms(node) == set()


def test_a_peer_that_says_nothing_of_its_settings_does_not_differ() -> None:
    node = a_standby()

    node.takes(node.leading_beat(settings=()))

    assert alarms(node) == set()


def test_a_fingerprint_that_differs_is_an_alarm_on_the_active_node_too() -> None:
    node = active()

    node.takes(node.beat(sender=peer_sender(node, fingerprint="three nodes")))

    assert {"fingerprint_differs"} <= alarms(node)
    assert node.state.phase is Phase.ACTIVE


def test_two_open_conditions_of_one_code_are_one_alarm() -> None:
    node = a_standby()
    node.takes(node.leading_beat(hold=True), StopRequested())

    assert sorted(alarms(node)) == ["held"]


def test_the_peer_that_left_is_named() -> None:
    node = a_standby()

    node.takes(node.leading_beat(hold=True))

    assert node.state.alarms["held"].sentence.startswith(
        "the primary left its containers running: no takeover until it is back;"
    )


def test_a_hold_of_a_node_that_lost_its_record_says_how_it_ends() -> None:
    node = a_standby()
    node.takes(node.leading_beat(hold=True))

    node.takes(node.beat(sender=peer_sender(node, node_id="node-new"), holder=None))

    assert node.state.alarms["held"].sentence == (
        "the primary that left its containers running has lost its record:"
        " failover-agent takeover --peer-is-off on the primary ends the hold"
    )


def test_a_pair_in_which_nobody_comes_to_lead_says_why() -> None:
    node = a_candidate()
    node.takes(node.vote(VoteKind.POLL, Refusal.CONTAINERS_RUN))
    assert alarms(node) == set()

    for _ in range(40):
        node.lives(1.0, node.beat(), node.vote(VoteKind.POLL, Refusal.CONTAINERS_RUN))

    assert node.state.alarms["nobody_active"].sentence == (
        "nobody is active, and the backup refused: containers_run"
    )
    node.takes(node.leading_beat(TERM + 1))
    assert alarms(node) == set()


@pytest.mark.parametrize("phase", [Phase.PROMOTING, Phase.DEMOTING])
def test_a_peer_that_starts_or_stops_is_not_degraded(phase: Phase) -> None:
    node = a_standby()

    node.takes(node.leading_beat(phase=phase, health=Health.DEGRADED))

    assert alarms(node) == set()


def test_an_alarm_of_a_wrong_set_up_ends_when_nothing_more_is_seen_of_it() -> None:
    node = active()
    node.takes(ConflictSeen(ConflictKind.OTHER_CLUSTER, "the peer is of cluster mill"))
    assert node.state.alarms["other_cluster"].sentence == "the peer is of cluster mill"

    node.lives(11, node.beat())

    assert alarms(node) == set()


def test_a_promotion_that_failed_here_is_said_by_the_standby_it_becomes() -> None:
    node = promoting()
    node.takes(StartFailed(TERM + 1, "web", "port in use"))
    node.takes(node.vote(VoteKind.PREPARE))
    state = replace(node.state, not_able_until_s=node.now + 1)
    assert readiness(state, node.now, node.policy)[0] is Readiness.DIFFERS
    assert readiness(state, node.now + 1, node.policy)[0] is Readiness.READY


def test_a_promotion_that_works_clears_an_earlier_failure() -> None:
    node = promoting()
    node.state = replace(node.state, not_able_until_s=node.now + 99, failures=2)

    node.takes(all_up(node), ContainersStarted(TERM + 1))

    assert (node.state.not_able_until_s, node.state.failures) == (0.0, 0)
    assert ready(node) == (Readiness.READY, ())


def test_the_beat_of_a_holder_tells_since_when_its_containers_may_run() -> None:
    node = promoting()
    node.takes(all_up(node), ContainersStarted(TERM + 1), after_s=2.0)

    (sent,) = of_kind(node.waits(1.0), SendHeartbeat)

    assert sent.beat.leading_for_s == pytest.approx(3.0)
    assert sent.deadline_s == node.policy.heartbeat_timeout_s
    assert peer_beat(node).leading_for_s is None
