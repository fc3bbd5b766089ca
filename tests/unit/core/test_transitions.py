"""The table of edges: each is reachable for each of its reasons, and nothing else is allowed."""

from collections.abc import Callable
from itertools import product

import pytest

from failover_agent.core.events import (
    CommandKind,
    ContainersStarted,
    ContainersStopped,
    Event,
    RecordWriteFailed,
    StartFailed,
    StopFailed,
    StopRequested,
    Tick,
)
from failover_agent.core.messages import Refusal, VoteKind
from failover_agent.core.state import ContainerState, Durable, Phase, Reason
from failover_agent.core.transitions import (
    EDGES,
    REASONS,
    IllegalTransitionError,
    edge,
    explain,
)
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
    all_down,
    all_up,
    changed,
    demoting,
    engine_lost,
    failed,
    held_by,
    held_term,
    order,
    policy,
    promoting,
    starting,
    stuck,
)
from tests.unit.core.trio import (
    LEASE_S,
    Voice,
    a_standby_of_three,
    active_of_three,
    fenced,
    fencing_winner,
    goes_on,
    promoting_of_three,
    trio,
    witness_is_free,
    witness_renews,
    witness_votes,
)
from tests.unit.core.trio import (
    begun as begun_of_three,
)

Way = Callable[[], Node]
Arrow = tuple[Phase, Phase, Reason]

ALL_REASONS: list[Arrow] = [
    (before, after, reason)
    for (before, after), found in EDGES.items()
    for reason in sorted(found.reasons)
]


# --- what a way is made of ------------------------------------------------------------------------


def after(build: Way, *events: Callable[[Node], Event]) -> Way:
    """A node in a phase, and then these events one after the other."""

    def walk() -> Node:
        node = build()
        for event in events:
            node.takes(event(node))
        return node

    return walk


def poll_granted(node: Node) -> Event:
    return node.vote(VoteKind.POLL)


def poll_refused(node: Node) -> Event:
    return node.vote(VoteKind.POLL, Refusal.CONTAINERS_RUN)


def candidacy_granted(node: Node) -> Event:
    return node.vote(VoteKind.CANDIDACY)


def prepared(node: Node) -> Event:
    return node.vote(VoteKind.PREPARE)


def started(node: Node) -> Event:
    node.takes(all_up(node))
    return ContainersStarted(held_term(node))


def start_failed(node: Node) -> Event:
    return StartFailed(held_term(node), "web", "port in use")


def told_to_stop(_: Node) -> Event:
    return StopRequested()


def confirmed(node: Node) -> Event:
    return ContainersStopped(held_term(node))


def not_confirmed(node: Node) -> Event:
    return StopFailed(held_term(node), ("web",), "timed out")


def newer_term(node: Node) -> Event:
    return node.leading_beat(TERM + 9)


def ready_peer(node: Node) -> Event:
    return node.beat()


def released_for(reason: Reason) -> Callable[[Node], Event]:
    return lambda node: node.released(TERM, reason=reason)


LEADS = (poll_granted, candidacy_granted, started)


def lives(build: Way, seconds: float, *events: Callable[[Node], Event]) -> Way:
    """A node in a phase, and then these events each interval for so long."""

    def walk() -> Node:
        node = build()
        node.lives(seconds, *(event(node) for event in events))
        return node

    return walk


def by_word(build: Way) -> Way:
    """An operator takes over."""

    def walk() -> Node:
        node = build()
        node.waits(4)
        assert order(node, CommandKind.TAKEOVER).accepted
        node.takes(started(node))
        return node

    return walk


def begun(role: str, durable: Durable | None = None) -> Node:
    """A start at which the engine has answered."""
    node = starting(policy(BACKUP if role == "backup" else PRIMARY), durable)
    node.takes(all_down(node))
    return node


def asking_backup() -> Node:
    return a_candidate(policy(BACKUP), durable=held_by(THE_BACKUP, longest_lease_s=0.0))


def resuming() -> Node:
    node = starting(durable=held_by(THE_PRIMARY, led=True), boot_is_new=False)
    node.takes(all_up(node), node.renewed())
    return node


def web_died(build: Way) -> Way:
    return after(build, lambda node: node.died("web"))


def engine_gone(_: Node) -> Event:
    return engine_lost(False, "db", "web")


def invitable() -> Node:
    return begun("backup", held_by(THE_PRIMARY))


def disk_full(_: Node) -> Event:
    return RecordWriteFailed("disk full")


def web_stuck() -> Node:
    return after(lives(web_died(active), 31, ready_peer), prepared, not_confirmed)()


# --- with an arbiter, and with a fence_command ----------------------------------------------------


def the_witness_polled(node: Node) -> Event:
    return witness_votes(node, VoteKind.POLL)


def the_witness_voted(node: Node) -> Event:
    return witness_votes(node, VoteKind.CANDIDACY)


def the_fence_is_through(node: Node) -> Event:
    return fenced(node)


def falls_silent(node: Node) -> Event:
    """The peer said that it runs nothing; nobody knows whether that is still so."""
    goes_on(node, 4.0, witness_is_free)
    return Tick()


FENCES = (the_witness_polled, the_witness_voted, the_fence_is_through)


def fencing_standby() -> Node:
    return a_standby_of_three(trio(BACKUP, has_fence=True))


def goes_on_with(build: Way, seconds: float, *voices: Voice) -> Way:
    """A node in a phase that goes on for so long and hears these."""

    def walk() -> Node:
        node = build()
        goes_on(node, seconds, *voices)
        return node

    return walk


def first_of_three() -> Node:
    node = starting(trio(has_fence=True), record_lost=True)
    node.takes(all_down(node))
    goes_on(node, 11.0, lambda node: node.beat(running=None), witness_is_free)
    return node


def after_a_kill() -> Node:
    node = begun_of_three(durable=held_by(THE_PRIMARY, led=True), was_enforced=True)
    node.takes(all_down(node))
    return node


def by_word_of_three() -> Node:
    node = fencing_standby()
    node.takes(node.leading_beat(hold=True))
    goes_on(node, 11.0, witness_is_free)
    assert order(node, CommandKind.TAKEOVER).accepted
    return node


def silent_pair() -> Node:
    """A plain pair: the standby fences its silent peer."""
    node = a_lonely_standby(policy(BACKUP, has_fence=True))
    node.waits(0.1)
    assert node.state.phase is Phase.FENCING
    return node


# --- the ways -------------------------------------------------------------------------------------

INVITATIONS = (
    Reason.PEER_RELEASED,
    Reason.CONTAINER_DOWN,
    Reason.ENGINE_LOST,
    Reason.START_FAILED,
    Reason.AGENT_STOPPING,
)
WAYS: list[Way] = [
    # starting
    after(lambda: begun("backup"), newer_term),
    after(invitable, ready_peer),
    after(after_a_kill, ready_peer),
    resuming,
    *(after(invitable, released_for(reason), *LEADS) for reason in INVITATIONS),
    after(lives(lambda: begun("primary", Durable()), 11, ready_peer), *LEADS),
    after(lives(lambda: begun("primary"), 1, ready_peer), *LEADS),
    after(lives(lambda: begun("primary"), 21), started),
    by_word(lambda: begun("primary")),
    # standby
    *(after(a_standby, released_for(reason), *LEADS) for reason in INVITATIONS),
    lives(lambda: begun("backup", Durable()), 40, ready_peer),
    after(lives(after(a_candidate, poll_refused), 2, ready_peer), *LEADS),
    after(lives(a_lonely_standby, 1), started),
    by_word(a_standby),
    # acquiring
    after(a_candidate, poll_refused),
    after(asking_backup, lambda node: node.asked(VoteKind.CANDIDACY, TERM + 1)),
    after(a_candidate, newer_term),
    after(a_candidate, lambda _: changed("web", ContainerState.DOWN, exists=False)),
    # promoting
    after(promoting, start_failed),
    after(promoting, told_to_stop, prepared),
    after(promoting, newer_term),
    # active
    after(lives(web_died(active), 31, ready_peer), prepared),
    after(lives(active, 31, engine_gone, ready_peer), prepared),
    after(active, told_to_stop, prepared),
    after(active, newer_term),
    # failed
    after(failed, all_up),
    after(failed, ready_peer, prepared),
    after(lives(failed, 31, engine_gone, ready_peer), prepared),
    after(failed, ready_peer, told_to_stop, prepared),
    after(failed, newer_term),
    # demoting
    after(demoting, confirmed),
    after(demoting, not_confirmed),
    after(lives(stuck, 1.0, ready_peer), confirmed),
    after(lives(web_stuck, 1.0, ready_peer), confirmed),
    after(demoting, disk_full, confirmed),
    # fencing
    *(after(fencing_standby, released_for(why), falls_silent, *FENCES) for why in INVITATIONS),
    after(first_of_three, *FENCES),
    after(fencing_winner, the_fence_is_through),
    after(goes_on_with(fencing_standby, 10.2, witness_is_free), *FENCES),
    after(by_word_of_three, *FENCES),
    after(silent_pair, ready_peer, poll_refused),
    after(silent_pair, ready_peer, lambda node: node.asked(VoteKind.CANDIDACY, TERM + 1)),
    after(silent_pair, newer_term),
    after(silent_pair, engine_gone),
    after(fencing_winner, newer_term),
    after(goes_on_with(fencing_winner, 12.0, witness_renews), told_to_stop),
    goes_on_with(fencing_winner, LEASE_S),
    # the end of a lease
    goes_on_with(promoting_of_three, LEASE_S),
    goes_on_with(active_of_three, LEASE_S),
    goes_on_with(after(promoting_of_three, start_failed), LEASE_S),
]


@pytest.fixture(scope="module")
def reached() -> set[Arrow]:
    """Every change of phase on every way, each of them found in the table when it was made."""
    return {
        (transition.before, transition.after, transition.reason)
        for walk in WAYS
        for transition in walk().history
    }


@pytest.mark.parametrize("arrow", ALL_REASONS, ids=" ".join)
def test_each_edge_is_reachable_for_each_of_its_reasons(arrow: Arrow, reached: set[Arrow]) -> None:
    assert arrow in reached, "no way above leads here: the table allows more than the core does"


def test_each_change_of_phase_is_told_with_its_rule_and_a_sentence() -> None:
    node = a_lonely_standby()

    step = node.waits(1)

    told = step.transitions[0]
    assert (told.before, told.after, told.reason) == (
        Phase.STANDBY,
        Phase.ACQUIRING,
        Reason.PEER_SILENT,
    )
    assert (told.rule, told.term) == ("H0", TERM)
    assert told.sentence == (
        "asks for leave to run the service (nothing was heard from the peer for heartbeat_timeout)"
    )
    assert step.transitions[1].term == TERM + 1


@pytest.mark.parametrize("before", list(Phase))
def test_every_other_change_of_phase_is_refused(before: Phase) -> None:
    for after_, reason in product(Phase, Reason):
        if (before, after_, reason) not in ALL_REASONS:
            with pytest.raises(IllegalTransitionError, match=f"no edge from {before} to {after_}"):
                edge(before, after_, reason)


def test_every_reason_has_its_words_and_every_edge_a_sentence() -> None:
    assert set(REASONS) == set(Reason)
    for (before, after_), found in EDGES.items():
        for reason in found.reasons:
            assert explain(before, after_, reason) == f"{found.sentence} ({REASONS[reason]})"


def test_every_reason_leads_somewhere() -> None:
    used = {reason for found in EDGES.values() for reason in found.reasons}

    assert set(Reason) - used == {Reason.AGENT_STARTED}, "that one is where a process begins"


def test_every_phase_that_can_be_entered_has_a_way_out() -> None:
    entered = {after_ for _, after_ in EDGES}

    assert entered <= {before for before, _ in EDGES}
