"""The managed containers: what is asked of all of them, found out once for each change."""

import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest

from failover_agent.core import invariants, machine, managed, reports
from failover_agent.core.events import Event, HeartbeatReceived, Tick
from failover_agent.core.managed import Containers, ContainerState, ContainerView, Health, some
from failover_agent.core.policy import Policy
from tests.unit.core.builders import (
    BACKUP,
    PRIMARY,
    Node,
    a_standby,
    active,
    leading,
    peer_beat,
    policy,
)
from tests.unit.core.trio import WITNESS, a_standby_of_three, active_of_three

UP = ContainerView(
    "db", ContainerState.UP, "running", exists=True, alive=True, image="sha256:1", settings="s"
)
DOWN = replace(UP, name="web", state=ContainerState.DOWN, alive=False, down_since_s=3.0)
BOTH = Containers([UP, DOWN])


def test_they_are_a_mapping_in_start_order() -> None:
    assert list(BOTH) == ["db", "web"]
    assert (BOTH["web"], len(BOTH), "db" in BOTH) == (DOWN, 2, True)
    assert {"db": UP, "web": DOWN} == BOTH
    assert repr(Containers([])) == "Containers([])"


def test_what_is_seen_replaces_what_was_and_keeps_the_order() -> None:
    gone = replace(UP, exists=False)

    after = BOTH.seen([gone])

    assert list(after.values()) == [gone, DOWN]
    assert BOTH["db"] is UP


def test_where_nothing_is_new_they_are_the_same_ones() -> None:
    assert BOTH.seen([replace(UP), DOWN]) is BOTH
    assert BOTH.seen([]) is BOTH


def test_what_follows_from_them() -> None:
    strange = replace(UP, name="odd", alive=None, exists=False, restart_policy="always")
    three = Containers([UP, DOWN, replace(strange, state=ContainerState.UNKNOWN)])

    assert (BOTH.alive, BOTH.running, BOTH.are_stopped) == (("db",), 1, False)
    assert (three.alive, three.running, three.are_stopped) == (("db",), None, False)
    assert Containers([DOWN]).are_stopped
    assert (BOTH.health, three.health) == (Health.DEGRADED, Health.UNKNOWN)
    assert Containers([UP]).health is Health.OK
    assert three.counted == (DOWN,)
    assert (three.missing, three.self_starting) == (("odd",), ("odd",))
    assert three.specs == (("db", "1", "s"), ("web", "1", "s"))


def test_the_digest_tells_how_they_are_made_and_not_how_they_are() -> None:
    other_image = BOTH.seen([replace(UP, image="sha256:2")])
    stopped = BOTH.seen([replace(UP, alive=False, state=ContainerState.DOWN)])

    assert BOTH.digest == stopped.digest
    assert len({BOTH.digest, other_image.digest, Containers([UP]).digest}) == 3


@pytest.mark.parametrize(
    ("spec", "differs"),
    [
        (("db", "1", "s"), ()),
        (("db", "2", "s"), (("db", "image"),)),
        (("db", "2", "t"), (("db", "image"),)),
        (("db", "1", "t"), (("db", "settings"),)),
        (("db", "", "t"), (("db", "settings"),)),
        (("db", "", ""), ()),
        (("other", "2", "t"), ()),
    ],
)
def test_what_one_side_does_not_know_does_not_differ(
    spec: managed.Spec, differs: tuple[tuple[str, str], ...]
) -> None:
    specs = (spec,)

    assert Containers([UP]).unlike(specs) == differs
    assert Containers([replace(UP, image="", settings="")]).unlike(specs) == ()


def test_a_comparison_with_other_specs_is_another_one() -> None:
    like, unlike = (("db", "1", "s"),), (("db", "2", "s"),)

    assert [BOTH.unlike(specs) for specs in (like, unlike, unlike, like)] == [
        (),
        (("db", "image"),),
        (("db", "image"),),
        (),
    ]


def test_of_many_the_first_few_are_named_and_the_others_counted() -> None:
    assert some(map(str, range(8))) == tuple("01234567")
    assert some(map(str, range(200))) == (*"01234567", "and 192 more")


def _instructions(node: Node, *events: Event) -> int:
    """How many instructions of Python a node executes to take these, all but its own checks."""
    count = 0

    def trace(frame: FrameType, what: str, _: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += what == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for event in events:
            after = machine.step(node.state, event, node.now, node.policy)
            invariants.check(node.state, after, node.policy)
            machine.next_deadline(after.state, node.policy)
            node.state = after.state
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("make", [active_of_three, a_standby_of_three, active, a_standby])
def test_a_beat_costs_the_same_for_two_containers_and_for_three_hundred(
    make: Callable[[Policy], Node],
) -> None:
    role = BACKUP if make in (a_standby, a_standby_of_three) else PRIMARY
    arbiter = WITNESS if make in (active_of_three, a_standby_of_three) else None
    spent = []
    for number in (2, 300):
        names = tuple(f"web-{one}" for one in range(number))
        node = make(policy(role, containers=names, arbiter=arbiter))
        own = reports.profile_digest(node.state, node.policy)
        beat = peer_beat if role is PRIMARY else leading
        known: dict[str, Any] = {"knows_digest": own, "profile": None}
        for _ in range(2):
            node.now += 1.0
            said = HeartbeatReceived(1, beat(node, **known))
            spent.append(_instructions(node, Tick(), said, node.answered(**known), Tick()))

    assert spent[1] == spent[3], "the first exchange finds out about all of them, and no other"
