"""Several ways to one peer: the same said twice, a path that is lost, and one that leads astray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from failover_agent.core import paths, reports
from failover_agent.core.events import (
    ConflictKind,
    ConflictSeen,
    Event,
    HeartbeatFailed,
    HeartbeatReceived,
    PathAnswered,
    PathFailed,
    Tick,
)
from failover_agent.core.messages import VoteKind
from failover_agent.core.policy import Role
from failover_agent.core.state import PathView, Phase, Reason
from tests.unit.core.builders import (
    BACKUP,
    PRIMARY,
    THE_PRIMARY,
    Node,
    a_lonely_standby,
    a_standby,
    active,
    alarms,
    phases,
    vote_in,
)
from tests.unit.core.trio import active_of_three, witness_renews

LAN, CABLE = "http://10.0.0.2:8000", "http://192.168.100.2:8000"
LOST = f"path_lost {CABLE}"


def wired(node: Node, *endpoints: str) -> Node:
    """It is told of the ways to its peer, and that all of them answer."""
    role = node.policy.others[0]
    ways = endpoints or (LAN, CABLE)
    node.state = paths.known(node.state, {role: ways})
    node.takes(*(PathAnswered(role, each) for each in ways))
    return node


def fails(node: Node, endpoint: str = CABLE, error: str = "no answer in time") -> PathFailed:
    """Just now: the last answer came over it a moment ago."""
    return PathFailed(node.policy.others[0], endpoint, node.now, error)


def beat_of_peer(node: Node) -> Event:
    """What its peer says in its phase."""
    return node.beat() if node.state.phase is Phase.ACTIVE else node.leading_beat()


# --- a path that is lost --------------------------------------------------------------------------


@pytest.mark.parametrize("make", [active, a_standby])
def test_a_path_that_is_silent_for_t_while_the_peer_is_heard_is_an_alarm_and_nothing_more(
    make: Callable[[], Node],
) -> None:
    node = wired(make())
    phase = node.state.phase
    node.takes(fails(node))
    failed_at_s = node.now

    node.lives(9, beat_of_peer(node))
    assert alarms(node) == set()
    step = node.lives(30, beat_of_peer(node))

    alarm = node.state.alarms[LOST]
    assert alarm.code == "path_lost"
    assert alarm.sentence == (
        f"the {node.policy.others[0]} does not answer over {CABLE} (no answer in time), and is "
        "heard all the same: look after that cable, its interfaces and their firewalls, before "
        "the next path fails"
    )
    assert 10 <= alarm.since_s - failed_at_s <= 11
    assert alarms(node) == {LOST}
    assert (phases(step), node.state.phase) == ([], phase)
    assert not reports.cannot_because(node.state, node.now, node.policy)


def test_the_alarm_ends_when_the_path_answers_again() -> None:
    node = wired(active())
    node.takes(fails(node))
    node.lives(12, node.beat())
    assert alarms(node) == {LOST}

    node.takes(PathAnswered(BACKUP, CABLE))

    assert alarms(node) == set()
    assert node.state.peers[BACKUP].paths == (PathView(LAN, True), PathView(CABLE, True))


def test_each_lost_path_has_an_alarm_of_its_own() -> None:
    second = "http://172.16.0.2:8000"
    node = wired(active(), LAN, CABLE, second)
    node.takes(fails(node), fails(node, second))

    node.lives(12, node.beat())

    assert alarms(node) == {LOST, f"path_lost {second}"}


def test_where_every_path_is_lost_the_peer_is_silent_and_that_is_said_once() -> None:
    node = wired(active())
    node.takes(fails(node), fails(node, LAN))
    node.takes(HeartbeatFailed(BACKUP, node.now, "neither answers"))

    node.waits(30)

    assert alarms(node) == {"redundancy_lost"}


def test_a_peer_that_falls_silent_has_lost_no_path_at_any_moment() -> None:
    """Its paths are silent for T a little before it is, as each of its own beats counts for it."""
    node = wired(active())
    node.takes(fails(node), fails(node, LAN))
    node.lives(1.0, node.beat())
    seen: set[str] = set()

    for _ in range(60):
        node.waits(0.25)
        seen |= alarms(node)

    assert seen == {"redundancy_lost"}


def test_a_lost_path_stays_lost_while_the_last_one_dies_too() -> None:
    node = wired(active())
    node.takes(fails(node))
    node.lives(15, node.beat())
    assert alarms(node) == {LOST}
    node.takes(fails(node, LAN))

    node.waits(8)
    assert alarms(node) == {LOST}
    node.waits(4)

    assert alarms(node) == {"redundancy_lost"}


def test_the_silence_of_all_paths_is_that_of_the_peer_and_moves_the_service() -> None:
    node = wired(a_standby())
    node.takes(fails(node), fails(node, LAN))

    step = node.waits(30)

    assert (Phase.ACQUIRING, Reason.PEER_SILENT) in phases(step)


def test_a_standby_with_a_lost_path_is_ready_and_takes_over() -> None:
    node = wired(a_standby())
    node.takes(fails(node))
    node.lives(12, node.leading_beat())
    assert alarms(node) == {LOST}

    step = node.waits(30)

    assert (Phase.ACQUIRING, Reason.PEER_SILENT) in phases(step)


def test_the_only_path_is_the_peer_itself_and_needs_no_alarm_of_its_own() -> None:
    node = wired(active(), LAN)
    node.takes(fails(node, LAN))

    node.lives(30, node.beat())

    assert alarms(node) == set()


def test_the_paths_to_a_witness_are_looked_after_too() -> None:
    node = active_of_three()
    node.state = paths.known(node.state, {Role.WITNESS: (LAN, CABLE)})
    node.takes(PathFailed(Role.WITNESS, CABLE, node.now, "no route"))

    for _ in range(12):
        node.takes(node.beat(), witness_renews(node), after_s=1.0)

    assert alarms(node) == {LOST}
    assert node.state.phase is Phase.ACTIVE


def test_silence_of_a_path_counts_only_while_we_ourselves_ran() -> None:
    node = wired(active())
    before_s = node.now

    node.takes(Tick(), after_s=100.0)
    node.takes(PathFailed(BACKUP, CABLE, before_s, "late"), node.beat())
    assert alarms(node) == set()
    node.lives(11, node.beat())

    assert alarms(node) == {LOST}


def test_an_endpoint_that_is_not_known_is_nobodys() -> None:
    node = wired(active())
    before = node.state.peers[BACKUP].paths

    node.takes(fails(node, "http://10.9.9.9:1"))

    assert node.state.peers[BACKUP].paths == before
    assert not paths.is_one_of_several(node.state, "http://10.9.9.9:1")


# --- the same over both ---------------------------------------------------------------------------


def test_a_beat_that_comes_over_both_paths_is_one_beat() -> None:
    node = a_standby()
    beat = node.leading_beat()
    assert isinstance(beat, HeartbeatReceived)
    first = node.takes(beat)
    known, promise = node.state.peers[PRIMARY], node.state.promise

    second = node.takes(replace(beat, request_id=beat.request_id + 1))

    assert vote_in(first).granted
    assert vote_in(second).granted
    assert (node.state.peers[PRIMARY], node.state.promise) == (known, promise)
    assert node.state.counters.stale == 0


def test_the_copy_of_a_beat_that_comes_after_the_next_one_is_overtaken() -> None:
    node = a_standby()
    beat, after = node.leading_beat(), node.leading_beat()
    node.takes(beat, after)

    node.takes(beat)

    assert node.state.counters.stale == 1


def test_the_copy_of_a_candidacy_is_granted_as_it_was_and_gives_no_second_term() -> None:
    node = a_lonely_standby()
    asked = node.asked(VoteKind.CANDIDACY, node.state.durable.term + 1)
    first = vote_in(node.takes(asked))
    promise, durable = node.state.promise, node.state.durable

    second = vote_in(node.takes(asked))

    assert (first.granted, second.granted) == (True, True)
    assert (node.state.promise, node.state.durable) == (promise, durable)


def test_the_late_copy_of_a_candidacy_does_not_end_the_hold_of_who_won_it() -> None:
    node = a_lonely_standby()
    term = node.state.durable.term + 1
    asked = node.asked(VoteKind.CANDIDACY, term)
    node.takes(asked, node.leading_beat(term), node.leading_beat(term, hold=True))
    assert node.state.durable.hold

    late = vote_in(node.takes(asked))

    assert not late.granted
    assert node.state.durable.hold
    assert node.state.durable.holder == THE_PRIMARY


def test_the_copy_of_a_release_releases_nothing_more() -> None:
    node = a_standby()
    released = node.released(to=None)
    node.takes(released)
    durable = node.state.durable

    node.takes(released)

    assert node.state.durable == durable


# --- a path that leads astray ---------------------------------------------------------------------


def astray(endpoint: str = CABLE, kind: ConflictKind = ConflictKind.WRONG_ROLE) -> ConflictSeen:
    return ConflictSeen(kind, f"the endpoint leads astray ({endpoint})", endpoint=endpoint)


WRONG = sorted(set(ConflictKind) - {ConflictKind.SAME_ROLE})


@pytest.mark.parametrize("kind", WRONG)
def test_one_path_that_leads_astray_is_an_alarm_that_names_it_and_keeps_nobody_from_leading(
    kind: ConflictKind,
) -> None:
    node = wired(a_standby())
    node.takes(fails(node, error="it leads to the witness"))

    node.lives(30, node.leading_beat(), astray(kind=kind))

    assert alarms(node) == {f"{kind} {CABLE}"}, "it is said once"
    assert CABLE in node.state.alarms[f"{kind} {CABLE}"].sentence
    assert reports.readiness(node.state, node.now, node.policy)[1] == ()
    step = node.lives(15, astray(kind=kind))
    assert (Phase.ACQUIRING, Reason.PEER_SILENT) in phases(step)


def test_a_path_that_leads_astray_does_not_keep_a_standby_from_a_dead_peer() -> None:
    node = wired(a_standby())

    step = node.lives(30, astray())

    assert (Phase.ACQUIRING, Reason.PEER_SILENT) in phases(step)


def test_paths_that_all_lead_astray_are_as_one_that_does() -> None:
    node = wired(a_standby())

    step = node.lives(60, astray(), astray(LAN, ConflictKind.OTHER_CLUSTER))

    assert phases(step) == []
    assert {f"wrong_role {CABLE}", f"other_cluster {LAN}"} <= alarms(node)


def test_a_rival_for_our_role_counts_over_whatever_path_it_is_found() -> None:
    node = wired(a_standby())
    rival = ConflictSeen(ConflictKind.SAME_ROLE, "two", "node-a", may_lead=True, endpoint=CABLE)

    step = node.lives(60, rival)

    assert phases(step) == []
