"""Core messages <-> JSON: the same comes back, and nothing else gets in."""

import contextlib
import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failover_agent.core.messages import (
    Beat,
    BeatAnswer,
    Refusal,
    ReleaseAnswer,
    Sender,
    Vote,
    VoteAnswer,
    VoteKind,
    VoteRequest,
)
from failover_agent.core.policy import Role
from failover_agent.core.state import Health, Holder, Phase, Profile, Readiness, Reason
from failover_agent.protocol import wire
from failover_agent.protocol.wire import Kind, MalformedMessageError
from tests.unit import strategies

PRIMARY = Sender(Role.PRIMARY, "aa", "a1", "f")
WITNESS = Sender(Role.WITNESS, "ww", "w1", "")
BEAT = Beat(
    sender=PRIMARY,
    number=3,
    phase=Phase.ACTIVE,
    term=7,
    renews=True,
    hold=False,
    lease_s=10.0,
    longest_lease_s=10.0,
    holder=Role.PRIMARY,
    released=False,
    leading_for_s=812.4,
    health=Health.OK,
    running=2,
    readiness=Readiness.READY,
    not_ready_because=(),
    may_lead=True,
    profile_digest="d1",
    knows_digest="d2",
    profile=Profile((("web", "i1", "s1"),), (("heartbeat_timeout", "10.0"),)),
)


def _profile(specs: object) -> dict[str, object]:
    return {"specs": specs, "settings": []}


def _over_the_wire(value: object) -> Any:
    return wire.parse(json.dumps(value, allow_nan=False).encode())


def _sender_of(message: object) -> Sender:
    return getattr(message, "sender", PRIMARY)


@given(strategies.requests)
def test_a_request_arrives_as_it_was_sent(request: wire.Request) -> None:
    raw = _over_the_wire(wire.to_json(request))

    assert wire.request_of(wire.kind_of(request), raw, _sender_of(request)) == request


@given(strategies.answers)
def test_an_answer_arrives_as_it_was_sent(answer: tuple[Kind, wire.Answer]) -> None:
    kind, message = answer

    raw = _over_the_wire(wire.to_json(message))

    assert wire.answer_of(kind, raw, _sender_of(message)) == message


def test_a_promise_on_hold_has_a_value_of_its_own() -> None:
    vote = Vote(granted=False, term=3, holder=None, remaining_s=math.inf)
    answer = VoteAnswer(PRIMARY, VoteKind.POLL, 0, vote, Phase.STANDBY)

    raw = wire.to_json(answer)

    assert raw["vote"] == {
        "granted": False,
        "term": 3,
        "holder": None,
        "remaining_s": "hold",
        "refusal": None,
    }
    assert wire.answer_of(Kind.VOTE, raw, PRIMARY) == answer


def test_who_speaks_is_left_to_the_envelope() -> None:
    assert "sender" not in wire.to_json(BEAT)


def test_sentences_for_people_are_cut_and_cleaned_before_they_are_sent() -> None:
    beat = replace(BEAT, not_ready_because=("x" * 5000, "bad \udcff byte", *["more"] * 50))

    raw = _over_the_wire(wire.to_json(beat))

    arrived = wire.request_of(Kind.HEARTBEAT, raw, PRIMARY)
    assert isinstance(arrived, Beat)
    assert len(arrived.not_ready_because) == wire.MOST_SENTENCES
    assert arrived.not_ready_because[0] == "x" * 197 + "..."
    assert arrived.not_ready_because[1] == "bad ? byte"


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("term", -1, "term: Input should be greater than or equal to 0"),
        ("term", 2**53 + 1, "term: "),
        ("term", 7.0, "term: Input should be a valid integer"),
        ("term", True, "term: Input should be a valid integer"),
        ("term", "7", "term: Input should be a valid integer"),
        ("term", None, "term: "),
        ("lease_s", 3600.1, "lease_s: Input should be less than or equal to 3600"),
        ("lease_s", -0.1, "lease_s: "),
        ("lease_s", "hold", "lease_s: "),
        ("lease_s", math.inf, "lease_s: Input should be a finite number"),
        ("leading_for_s", math.nan, "leading_for_s: Input should be a finite number"),
        ("renews", 1, "renews: Input should be a valid boolean"),
        ("phase", "asleep", "phase: Input should be"),
        ("phase", 3, "phase: Input should be"),
        ("holder", "nobody", "holder: Input should be"),
        ("not_ready_because", ["x" * 201], "not_ready_because.0: String should have at most 200"),
        ("not_ready_because", ["x"] * 17, "not_ready_because: Tuple should have at most 16"),
        ("not_ready_because", "x", "not_ready_because: Input should be a valid tuple"),
        ("profile", _profile([["web", "1"]]), "profile.specs.0.2: Field required"),
        ("profile", _profile([["web", "1", "2"]] * 1001), "profile.specs: Tuple should have"),
        ("profile", _profile([["web", 1, "2"]]), "profile.specs.0.1: Input should be a valid str"),
        ("profile", _profile([]) | {"more": 1}, "profile.more: Extra inputs are not permitted"),
        ("profile_digest", "", "profile: it has no digest"),
        ("profile_digest", "x" * 65, "profile_digest: String should have at most 64"),
        ("knows_digest", None, "knows_digest: Input should be a valid string"),
        ("surprise", 1, "surprise: Extra inputs are not permitted"),
    ],
)
def test_a_field_out_of_its_bounds_is_refused_by_name(
    field: str, value: object, complaint: str
) -> None:
    raw = {**wire.to_json(BEAT), field: value}

    with pytest.raises(MalformedMessageError) as refused:
        wire.request_of(Kind.HEARTBEAT, raw, PRIMARY)

    assert str(refused.value).startswith(complaint)


@pytest.mark.parametrize("field", sorted(wire.to_json(BEAT)))
def test_a_missing_field_is_refused_by_name(field: str) -> None:
    raw = {name: value for name, value in wire.to_json(BEAT).items() if name != field}

    with pytest.raises(MalformedMessageError, match=rf"^{field}: Field required$"):
        wire.request_of(Kind.HEARTBEAT, raw, PRIMARY)


def test_a_whole_number_of_seconds_is_a_length_too() -> None:
    raw = {**wire.to_json(BEAT), "lease_s": 10}

    assert wire.request_of(Kind.HEARTBEAT, raw, PRIMARY) == BEAT


def test_a_request_of_one_kind_is_none_of_another() -> None:
    request = VoteRequest(PRIMARY, VoteKind.POLL, 0, 10.0, 10.0, Reason.PEER_SILENT)

    with pytest.raises(MalformedMessageError):
        wire.request_of(Kind.RELEASE, wire.to_json(request), PRIMARY)


def test_an_arbiter_has_no_phase_and_no_beat_and_a_node_has_both() -> None:
    vote = Vote(granted=False, term=3, holder=None, remaining_s=None)
    beat, word = (
        wire.to_json(BeatAnswer(PRIMARY, BEAT, None)),
        wire.to_json(BeatAnswer(WITNESS, None, vote)),
    )
    voted = wire.to_json(VoteAnswer(PRIMARY, VoteKind.POLL, 0, vote, Phase.STANDBY))

    for kind, raw, sender, complaint in [
        (Kind.HEARTBEAT, beat, WITNESS, "beat: a witness has none"),
        (Kind.HEARTBEAT, word, PRIMARY, "beat: a primary has one"),
        (Kind.HEARTBEAT, {**word, "vote": None}, WITNESS, "vote: an arbiter always says"),
        (Kind.VOTE, voted, WITNESS, "phase: a witness has none"),
        (Kind.VOTE, {**voted, "phase": None}, PRIMARY, "phase: a primary has one"),
    ]:
        with pytest.raises(MalformedMessageError, match=f"^{complaint}"):
            wire.answer_of(kind, raw, sender)


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("remaining_s", -0.1, "vote.remaining_s"),
        ("remaining_s", math.inf, "vote.remaining_s"),
        ("remaining_s", 7200.1, "vote.remaining_s"),
        ("term", -1, "vote.term"),
        ("term", 2**53 + 1, "vote.term"),
        ("granted", True, "vote: it is granted and refused"),
        ("granted", "yes", "vote.granted"),
        ("refusal", "no", "vote.refusal"),
        ("holder", {"role": "nobody", "node_id": "aa"}, "vote.holder.role"),
    ],
)
def test_a_vote_that_lies_in_shape_is_refused_by_name(
    field: str, value: object, complaint: str
) -> None:
    vote = Vote(False, 3, Holder(Role.PRIMARY, "aa"), 4.0, Refusal.PROMISED)
    raw: Any = wire.to_json(BeatAnswer(WITNESS, None, vote))

    with pytest.raises(MalformedMessageError, match=f"^{re.escape(complaint)}"):
        wire.answer_of(Kind.HEARTBEAT, {**raw, "vote": {**raw["vote"], field: value}}, WITNESS)


def test_the_highest_term_of_a_message_is_found_wherever_it_stands() -> None:
    vote = Vote(granted=True, term=9, holder=None, remaining_s=None)

    assert [
        wire.highest_term(message)
        for message in (
            BEAT,
            BeatAnswer(PRIMARY, BEAT, None),
            BeatAnswer(PRIMARY, BEAT, vote),
            BeatAnswer(WITNESS, None, vote),
            VoteAnswer(WITNESS, VoteKind.CANDIDACY, 11, vote, None),
            ReleaseAnswer(WITNESS, 3, 4),
            wire.Hello(),
        )
    ] == [7, 7, 9, 9, 11, 4, 0]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'"\xff"',
        b'"\\ud800"',
        b"[" * 60_000,
        b"1" * 60_000,
        b'"' + b"x" * wire.MOST_BYTES + b'"',
    ],
)
def test_what_is_no_json_or_too_much_of_it_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        wire.parse(body)


@given(st.binary(max_size=200))
def test_garbage_is_json_or_malformed(body: bytes) -> None:
    with contextlib.suppress(MalformedMessageError):
        wire.parse(body)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner),
    max_leaves=10,
)


@given(st.sampled_from(Kind), JSON_VALUES)
def test_any_json_value_is_a_message_or_malformed(kind: Kind, value: object) -> None:
    for read in (wire.request_of, wire.answer_of):
        with contextlib.suppress(MalformedMessageError):
            read(kind, value, PRIMARY)


@given(st.sampled_from(sorted(wire.to_json(BEAT))), JSON_VALUES)
def test_any_value_in_any_field_is_taken_or_malformed(field: str, value: object) -> None:
    with contextlib.suppress(MalformedMessageError):
        wire.request_of(Kind.HEARTBEAT, {**wire.to_json(BEAT), field: value}, PRIMARY)


def test_a_profile_of_as_many_containers_as_a_configuration_may_name_fits() -> None:
    long = wire.LONGEST_NAMES // wire.MOST_CONTAINERS
    names = [f"{number:04}".ljust(long, "x") for number in range(wire.MOST_CONTAINERS)]
    specs = tuple((name, "a" * 16, "b" * 16) for name in names)
    settings = (("containers", ", ".join(names)), *(("heartbeat_timeout", "10"),) * 15)
    beat = replace(BEAT, profile=Profile(specs, settings), not_ready_because=("x" * 200,) * 16)

    said = json.dumps(wire.to_json(beat)).encode()

    assert len(said) < wire.MOST_BYTES - 4096
    assert wire.request_of(Kind.HEARTBEAT, wire.parse(said), PRIMARY) == beat


def test_a_beat_without_a_profile_is_small() -> None:
    assert len(json.dumps(wire.to_json(replace(BEAT, profile=None))).encode()) < 600
