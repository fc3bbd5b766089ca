"""State, events and effects <-> JSON: for each journal line and each replay."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failover_agent.core.effects import Effect, StopContainers
from failover_agent.core.events import ContainersStarted, ContainersStopped, EngineLost, Event
from failover_agent.core.policy import Policy, Role
from failover_agent.core.state import (
    FOREVER,
    Conflict,
    Containers,
    ContainerView,
    Durable,
    Holder,
    PeerView,
    Phase,
    Promise,
    Reason,
    State,
)
from failover_agent.protocol.codec import (
    CodecError,
    decode,
    decode_effect,
    decode_event,
    encode,
)

# No moment is NaN, which equals nothing.
st.register_type_strategy(float, st.floats(allow_nan=False))
st.register_type_strategy(
    Containers, st.lists(st.from_type(ContainerView), max_size=3).map(Containers)
)

STATE = State(
    role=Role.PRIMARY,
    node_id="aa",
    run_id="a1",
    may_resume=False,
    boot_is_new=False,
    durable=Durable(term=3, holder=Holder(Role.PRIMARY, "aa"), released=False),
    phase=Phase.ACTIVE,
    reason=Reason.FIRST_START,
    since_s=1.5,
    started_at_s=1.0,
    stepped_at_s=2.0,
    next_beat_at_s=3.0,
    peers={Role.BACKUP: PeerView(Role.BACKUP)},
    containers=Containers([ContainerView("web")]),
    promise=Promise(Holder(Role.PRIMARY, "aa"), 3, FOREVER),
)


def _through_json(value: Any) -> Any:
    return json.loads(json.dumps(value, allow_nan=False))


@pytest.mark.parametrize("kind", get_args(Event))
def test_every_event_comes_back_equal(kind: type) -> None:
    @given(st.from_type(kind))
    def check(event: Any) -> None:
        assert decode_event(_through_json(encode(event))) == event

    check()


@pytest.mark.parametrize("kind", get_args(Effect))
def test_every_effect_comes_back_equal(kind: type) -> None:
    @given(st.from_type(kind))
    def check(effect: Any) -> None:
        assert decode_effect(_through_json(encode(effect))) == effect

    check()


@pytest.mark.parametrize("kind", [State, Durable, Policy])
def test_every_state_comes_back_equal(kind: type) -> None:
    @given(st.from_type(kind))
    def check(known: Any) -> None:
        assert decode(kind, _through_json(encode(known))) == known

    check()


def test_what_has_its_default_is_left_out() -> None:
    assert encode(Durable(term=3)) == {"is": "Durable", "term": 3}


def test_a_line_is_compact_and_says_what_is_what() -> None:
    assert encode(STATE) == {
        "is": "State",
        "role": "primary",
        "node_id": "aa",
        "run_id": "a1",
        "may_resume": False,
        "boot_is_new": False,
        "durable": {
            "term": 3,
            "holder": {"role": "primary", "node_id": "aa"},
            "released": False,
        },
        "phase": "active",
        "reason": "first_start",
        "since_s": 1.5,
        "started_at_s": 1.0,
        "stepped_at_s": 2.0,
        "next_beat_at_s": 3.0,
        "peers": {"backup": {"role": "backup"}},
        "containers": {"web": {"name": "web"}},
        "promise": {
            "holder": {"role": "primary", "node_id": "aa"},
            "term": 3,
            "until_s": "inf",
        },
    }


def test_sets_and_mappings_and_pairs_with_none_come_back() -> None:
    state = replace(
        STATE,
        durable=Durable(heard=frozenset({Role.WITNESS, Role.BACKUP})),
        conflicts={"same_role": Conflict("same_role", "two", 1.0)},
        moves_at_s=(1.0, -math.inf),
    )
    lost = EngineLost("gone", (("web", None), ("db", True)))

    assert encode(state)["durable"] == {"heard": ["backup", "witness"]}
    decoded = decode(State, _through_json(encode(state)))
    assert decoded == state
    assert isinstance(decoded.peers, Mapping)
    assert decode_event(_through_json(encode(lost))) == lost


def test_what_a_type_does_not_tell_apart_its_name_does() -> None:
    assert encode(ContainersStarted(7)) != encode(ContainersStopped(7))


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (None, "None is no object"),
        ({}, "None is none of State, "),
        ({"is": "Nothing"}, "'Nothing' is none of State, "),
        ({"is": "ContainersStarted"}, "ContainersStarted: no term"),
        ({"is": "ContainersStarted", "term": "7"}, "term: '7' is no int"),
        ({"is": "ContainersStarted", "term": True}, "term: True is no int"),
        ({"is": "ContainersStarted", "term": 7, "x": 1}, "ContainersStarted: what is 'x'?"),
        ({"is": "EngineLost", "error": "", "alive": [["web"]]}, "alive: 0: 1 items instead of 2"),
        ({"is": "EngineLost", "error": "", "alive": {}}, "alive: {} is no array"),
        (
            {"is": "HeartbeatFailed", "to": "nobody", "sent_at_s": 1, "error": ""},
            "to: 'nobody' is no Role",
        ),
        (
            {"is": "HeartbeatFailed", "to": "backup", "sent_at_s": "soon", "error": ""},
            "sent_at_s: 'soon' is no number",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(value: object, complaint: str) -> None:
    with pytest.raises(CodecError) as refused:
        decode_event(value)

    assert str(refused.value).startswith(complaint)


def test_a_container_under_another_name_is_refused() -> None:
    told = {**encode(STATE), "containers": {"db": {"name": "web"}}}

    with pytest.raises(CodecError, match=r"^containers: 'db' is the name of another container$"):
        decode(State, told)


def test_one_thing_is_not_taken_for_another() -> None:
    stop = encode(StopContainers(term=7, names=("web",), grace_s=None))

    assert decode(StopContainers, stop).term == 7
    with pytest.raises(CodecError, match=r"^StopContainers is no event$"):
        decode_event(stop)
    with pytest.raises(CodecError, match=r"^StopContainers is no State$"):
        decode(State, stop)
    with pytest.raises(CodecError, match=r"^ContainersStarted is no effect$"):
        decode_effect(encode(ContainersStarted(7)))
