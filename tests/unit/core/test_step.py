"""The frame: plan, invariants, deadlines, stale and strange events, the order inside a step."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from failover_agent.core import invariants, machine
from failover_agent.core.effects import (
    Effect,
    SendHeartbeat,
    SendRelease,
    StartContainers,
    StopContainers,
)
from failover_agent.core.events import (
    AddressLost,
    ContainersStopped,
    Event,
    HeartbeatAnswered,
    HeartbeatFailed,
    HeartbeatReceived,
    RecordWriteFailed,
    ReleaseAnswered,
    ReleaseFailed,
    ReleaseReceived,
    Tick,
    VoteAnswered,
    VoteFailed,
    VoteRequested,
)
from failover_agent.core.invariants import Breach
from failover_agent.core.messages import (
    BeatAnswer,
    ReleaseAnswer,
    ReleaseRequest,
    Vote,
    VoteAnswer,
    VoteKind,
    VoteRequest,
)
from failover_agent.core.plan import Save, Step, plan
from failover_agent.core.policy import Role
from failover_agent.core.state import FOREVER, Phase, Reason, State
from failover_agent.core.votes import standing_promise
from tests.unit.core.builders import (
    BACKUP,
    PRIMARY,
    TERM,
    THE_BACKUP,
    THE_PRIMARY,
    Node,
    a_candidate,
    a_standby,
    active,
    all_down,
    changed,
    demoting,
    failed,
    held_by,
    of_kind,
    peer_beat,
    peer_sender,
    phases,
    policy,
    promoting,
    reply,
    starting,
    vote_in,
)

STOP = StopContainers(TERM, ("web", "db"), None)
START = StartContainers(TERM, ("db", "web"))


# --- plan: stop, save, act ------------------------------------------------------------------------


def test_stops_come_first_then_the_save_then_the_rest_in_their_order() -> None:
    before = a_standby().state
    after = replace(before, durable=replace(before.durable, term=TERM + 1))
    others: tuple[Effect, ...] = (START, SendHeartbeat(BACKUP, peer_beat(a_standby()), 1.0))

    planned = plan(before, Step(after, (others[0], STOP, others[1])))

    assert planned == (STOP, Save(after.durable), *others)


def test_nothing_is_saved_where_nothing_durable_changed() -> None:
    before = a_standby().state

    assert plan(before, Step(replace(before, retry_at_s=7.0), (START, STOP))) == (STOP, START)


def test_a_start_comes_after_the_save_of_its_term() -> None:
    node = a_candidate()
    node.takes(node.vote(VoteKind.POLL))
    before = node.state
    step = machine.step(before, node.vote(VoteKind.CANDIDACY), node.now, node.policy)

    kinds = [type(item) for item in plan(before, step)]

    assert kinds.index(Save) < kinds.index(StartContainers)


def test_a_save_that_failed_leaves_an_active_node_active_and_a_standby_not_ready() -> None:
    node = active()
    node.takes(RecordWriteFailed("disk full"))
    assert phases(node.lives(60, node.beat())) == []

    node = a_standby()
    node.takes(RecordWriteFailed("disk full"))
    assert phases(node.waits(60)) == []


def test_while_the_record_cannot_be_written_nothing_durable_is_changed() -> None:
    node = a_standby()
    node.takes(RecordWriteFailed("disk full"))
    before = node.state.durable

    node.takes(node.leading_beat(), node.leading_beat(TERM + 1), node.leading_beat(lease_s=99.0))
    released = node.takes(node.released())
    node.takes(node.beat(holder=Role.PRIMARY, released=True))
    asked = node.takes(node.asked(VoteKind.CANDIDACY, TERM + 1))

    assert node.state.durable == before
    assert released.effects == (), "no answer: it will be said again"
    assert of_kind(asked, StartContainers) == []


def test_a_renewal_that_needs_no_disk_is_granted_though_the_disk_is_full() -> None:
    node = a_standby()
    node.takes(RecordWriteFailed("disk full"))
    node.now += 5

    node.takes(node.leading_beat())

    promise = standing_promise(node.state, node.now)
    assert promise is not None
    assert promise.until_s == pytest.approx(node.now + 10.1)


# --- invariants: each rule catches a bad step -----------------------------------------------------


def durable(**changes: Any) -> Callable[[State], State]:
    """A step that changed the record like this."""
    return lambda state: replace(state, durable=replace(state.durable, **changes))


def state(**changes: Any) -> Callable[[State], State]:
    """A step that changed the state like this."""
    return lambda before: replace(before, **changes)


@pytest.mark.parametrize(
    ("rule", "build", "change", "effects"),
    [
        ("S3: a term went back", a_standby, durable(term=TERM - 1), ()),
        ("V2: one term was granted to two holders", a_standby, durable(holder=THE_BACKUP), ()),
        ("V5: phase and held term disagree", a_standby, state(held_term=TERM), ()),
        ("V5: phase and held term disagree", active, state(held_term=None), ()),
        ("V5: a holder promised itself away", active, durable(term=99, holder=THE_BACKUP), ()),
        ("S3: a term is held that was never saved", active, state(held_term=99), ()),
        ("V1: a start without a held term", active, state(), (START,)),
        ("V1: a start without a held term", a_standby, state(), (START,)),
        ("plan: a holder's stop waits for a disk", active, durable(released=True), (STOP,)),
        ("V3: a change that cannot be saved", a_standby, durable(hold=True), ()),
        ("policy: a container appeared or went", a_standby, state(containers={}), ()),
    ],
)
def test_a_step_that_breaks_a_rule_is_a_breach(
    rule: str,
    build: Callable[[], Node],
    change: Callable[[State], State],
    effects: tuple[Effect, ...],
) -> None:
    node = build()
    if rule.startswith("V3"):
        node.takes(RecordWriteFailed("disk full"))
    before = node.state

    with pytest.raises(Breach, match=f"^{rule}$"):
        invariants.check(before, Step(change(before), effects), node.policy)


def test_a_candidate_that_gives_way_may_grant_its_own_term_to_another() -> None:
    node = a_candidate(policy(BACKUP), durable=held_by(THE_BACKUP, longest_lease_s=0.0))
    node.takes(node.vote(VoteKind.POLL))
    before = node.state
    after = replace(before, durable=replace(before.durable, holder=THE_PRIMARY))

    invariants.check(before, Step(after, ()), node.policy)


def test_a_good_step_is_no_breach() -> None:
    node = active()

    invariants.check(node.state, Step(node.state, (STOP,)), node.policy)


def test_a_standby_may_stop_a_stray_and_save_in_one_step() -> None:
    node = a_standby()
    after = replace(node.state, durable=replace(node.state.durable, term=TERM + 1))

    invariants.check(node.state, Step(after, (STOP,)), node.policy)


# --- next_deadline --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build", [starting, a_standby, a_candidate, promoting, active, demoting, failed]
)
def test_the_next_moment_is_always_ahead_and_never_more_than_one_interval_away(
    build: Callable[[], Node],
) -> None:
    node = build()
    node.takes(Tick())

    for _ in range(200):
        deadline_s = machine.next_deadline(node.state, node.policy)
        assert node.now < deadline_s <= node.now + node.policy.heartbeat_interval_s
        node.now = deadline_s
        node.takes(Tick())


def test_a_node_that_has_just_begun_is_due_at_once() -> None:
    node = starting()

    assert machine.next_deadline(node.state, node.policy) == node.now
    assert len(of_kind(node.takes(Tick()), SendHeartbeat)) == 1


def test_a_takeover_does_not_wait_for_the_next_beat() -> None:
    node = a_standby(policy(BACKUP, heartbeat_interval_s=3.0))
    heard_at_s = node.now

    while node.state.phase is Phase.STANDBY:
        node.now = machine.next_deadline(node.state, node.policy)
        node.takes(Tick())

    assert node.now == pytest.approx(heard_at_s + 10.1)


def test_a_verdict_and_a_repair_do_not_wait_for_the_next_beat() -> None:
    node = active(policy(heartbeat_interval_s=7.0, heartbeat_timeout_s=60.0))
    node.takes(node.died("web"))

    assert machine.next_deadline(node.state, node.policy) == pytest.approx(node.now + 1.0)


def test_the_end_of_settling_is_a_moment() -> None:
    node = active(policy(heartbeat_interval_s=7.0, heartbeat_timeout_s=60.0))
    node.takes(node.died("web"), changed("web", incarnation="web-2"))

    assert machine.next_deadline(node.state, node.policy) == pytest.approx(node.now + 3.0)


def test_the_next_word_of_a_release_is_a_moment() -> None:
    node = demoting()
    node.takes(ContainersStopped(TERM + 1), after_s=0.4)

    said_at_s = node.now

    beat_s = machine.next_deadline(node.state, node.policy)
    node.takes(Tick(), after_s=beat_s - node.now)

    assert said_at_s < beat_s < said_at_s + 1.0
    assert machine.next_deadline(node.state, node.policy) == pytest.approx(said_at_s + 1.0)


# --- messages of nobody we know -------------------------------------------------------------------


def strange(node: Node, role: Role) -> list[Event]:
    """One of each message, of a role that is no other voter here."""
    sender = peer_sender(node, role=role)
    beat = replace(peer_beat(node), sender=sender)
    vote = Vote(granted=True, term=TERM, holder=None, remaining_s=None)
    return [
        HeartbeatReceived(1, beat),
        HeartbeatAnswered(role, node.now, TERM, BeatAnswer(sender, beat, vote)),
        HeartbeatFailed(role, node.now, "refused"),
        VoteRequested(1, VoteRequest(sender, VoteKind.POLL, 0, 10.0, 10.0, Reason.FIRST_START)),
        VoteAnswered(role, node.now, VoteAnswer(sender, VoteKind.POLL, 0, vote, Phase.STANDBY)),
        VoteFailed(role, VoteKind.POLL, 0, "refused"),
        ReleaseReceived(1, ReleaseRequest(sender, TERM, None, Reason.OPERATOR)),
        ReleaseAnswered(role, ReleaseAnswer(sender, TERM, TERM)),
        ReleaseFailed(role, TERM, "refused"),
        AddressLost(role, "no such name"),
    ]


@pytest.mark.parametrize("role", [Role.PRIMARY, Role.WITNESS])
def test_a_message_of_nobody_we_know_changes_nothing_but_a_counter(role: Role) -> None:
    node = a_candidate()

    for number, event in enumerate(strange(node, role), start=1):
        before = node.state
        step = node.takes(event)
        assert step.effects == ()
        assert node.state.counters.stale == number
        assert replace(node.state, counters=before.counters) == before


# --- the order inside a step ----------------------------------------------------------------------


def test_a_release_is_said_before_a_beat_that_tells_of_it() -> None:
    node = demoting()
    node.takes(Tick(), after_s=0.95)

    step = node.takes(ContainersStopped(TERM + 1), after_s=0.1)

    said = [type(effect) for effect in step.effects if not isinstance(effect, StopContainers)]
    assert said == [SendRelease, SendHeartbeat]


def test_a_candidacy_that_begins_with_a_beat_asks_once() -> None:
    node = starting()
    node.takes(all_down(node))
    node.state = replace(node.state, next_beat_at_s=node.now)

    step = node.takes(node.beat())

    kinds = [type(effect).__name__ for effect in step.effects]
    assert kinds.count("SendVoteRequest") == 1


def test_a_beat_that_a_newer_one_overtook_is_contact_and_tells_nothing() -> None:
    node = a_standby()
    late = node.beat()
    node.takes(node.leading_beat())

    node.takes(late, after_s=1.0)

    peer = node.state.peers[PRIMARY]
    assert (peer.phase, peer.holding, peer.heard_at_s) == (Phase.ACTIVE, True, node.now)
    assert node.state.counters.stale == 1


def test_a_renewal_that_a_newer_one_overtook_ends_no_hold() -> None:
    node = a_standby()
    late = node.leading_beat()
    node.takes(node.leading_beat(hold=True))

    step = node.takes(late)

    assert reply(step).vote is None
    assert node.state.promise is not None
    assert node.state.promise.until_s == FOREVER
    assert node.state.durable.hold


def test_the_first_renewal_of_a_new_run_ends_a_hold() -> None:
    node = a_standby()
    node.takes(node.leading_beat(hold=True))
    sender = peer_sender(node, run_id="the next")

    step = node.takes(node.leading_beat(sender=sender, number=1))

    assert vote_in(step).granted
    assert not node.state.durable.hold
