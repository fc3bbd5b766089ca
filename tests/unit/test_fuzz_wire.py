"""Whatever comes over the wire is judged: taken for what it says, or refused, and never more.

Many more examples than the suite has time for: `make fuzz EXAMPLES=100000`.
"""

import contextlib
import copy
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from failover_agent.core.messages import (
    ReleaseAnswer,
    ReleaseRequest,
    Request,
    Sender,
    VoteAnswer,
    VoteKind,
    VoteRequest,
)
from failover_agent.core.policy import Role
from failover_agent.core.state import Phase, Reason
from failover_agent.protocol import envelope, wire
from failover_agent.protocol.auth import (
    AskAgain,
    Denied,
    Heard,
    Keeper,
    Outgoing,
    Receipt,
    Refused,
    Signed,
    Understood,
)
from failover_agent.protocol.wire import Hello, Kind, MalformedMessageError
from tests.unit import strategies
from tests.unit.speakers import (
    BACKUP,
    LIVING_FOR_S,
    NOW,
    PRIMARY,
    SECRET,
    WITNESS,
    WORD,
    beat,
    hear,
    keeper,
    meet,
    read_reply,
    reply,
    say,
)

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))


def many(usual: int) -> settings:
    """So many examples, or as many as `make fuzz` asks for."""
    return settings(
        max_examples=EXAMPLES or usual,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


# --- what a message may be bent into --------------------------------------------------------------

EXTREMES: list[object] = [
    *(0, -1, 1, 2**31, 2**53, 2**53 + 1, 2**63, 2**64, -(2**63), 10**400),
    *(0.0, -0.0, 1e-320, 1e308, -1e308, 0.5),
    *(None, True, False, "", "hold", "\x00", "é", "7", "x" * 70, "x" * 300, "\ud800"),
    *([], {}, [[]], [None], {"": None}, [1, 2, 3], ["x"] * 200),
    *("primary", "backup", "witness", "0/vote", "9/heartbeat", "10/heartbeat", "-1/vote"),
]
RAW = [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-0", b"00", b"1_0", b"0x1", b"'x'", b"\xff"]
finite = st.floats(allow_nan=False, allow_infinity=False)
values = st.sampled_from(EXTREMES).map(copy.deepcopy) | st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
Place = tuple[object, ...]


def _places(value: object, here: Place = ()) -> list[Place]:
    """Every key and every item within, however deep."""
    inner: list[tuple[object, object]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    found = [(*here, key) for key, _ in inner]
    return found + [place for key, item in inner for place in _places(item, (*here, key))]


def _at(value: Any, place: Place) -> Any:
    for key in place:
        value = value[key]
    return value


def _bytes(value: object) -> bytes:
    return json.dumps(value, allow_nan=False).encode()


def bend(dice: Random, body: bytes) -> bytes:
    """A message that was one, with a few things wrong, in its values or in its bytes."""
    value: Any = json.loads(body)
    for _ in range(dice.randrange(4)):
        places = _places(value)
        if not places:
            break
        *where, key = dice.choice(places)
        holder: Any = _at(value, tuple(where))
        match dice.randrange(5):
            case 0:
                del holder[key]
            case 1:
                holder[key] = _odd(dice)
            case 2 if isinstance(holder, dict):
                holder[f"key {dice.randrange(9)}"] = _odd(dice)
            case 3:
                other = dice.choice(_places(json.loads(body)))
                holder[key] = _at(json.loads(body), other)
            case _:
                holder[key] = [holder[key]]
    raw = bytearray(_bytes(value))
    at = dice.randrange(len(raw) + 1)
    match dice.randrange(8):
        case 0:
            raw[at % len(raw)] ^= 1 << dice.randrange(8)
        case 1:
            raw = raw[:at]
        case 2:
            raw[at:at] = bytes(dice.randrange(256) for _ in range(dice.randrange(20)))
        case 3:
            raw[at:at] = dice.choice(RAW)
        case 4 if isinstance(value, dict) and value:
            more = _bytes({dice.choice(sorted(value)): _odd(dice)})
            raw = bytearray(raw[:-1] + b"," + more[1:])
        case 5 if dice.randrange(4) == 0:
            raw = bytearray(b"\xef\xbb\xbf") + raw
        case _:
            pass
    return bytes(raw)


def _odd(dice: Random) -> object:
    """A value that may be right in one place, and is wrong in most."""
    match dice.randrange(6):
        case 0:
            return dice.randrange(-(2**70), 2**70)
        case 1:
            return dice.uniform(-1e13, 1e13)
        case 2:
            return {str(_odd(dice)): _odd(dice)}
        case _:
            return copy.deepcopy(dice.choice(EXTREMES))


def bent(body: bytes) -> st.SearchStrategy[bytes]:
    """What `bend` may make of it."""
    return st.builds(bend, st.randoms(use_true_random=False), st.just(body))


# --- requests -------------------------------------------------------------------------------------


def _judge(node: Keeper, kind: Kind, body: bytes, secret: bytes | None) -> Heard | Denied:
    """Whatever it is: it is taken for what it says, or refused, and the refusal can be sent."""
    signature = envelope.sign_request(secret, body) if secret else ""
    before = node.rejected.total()
    judged = node.admit(kind, signature, body, NOW)
    if isinstance(judged, Heard):
        said = envelope.read_request(body)
        assert wire.request_of(kind, said.message, said.sender) == judged.request
        assert wire.kind_of(judged.request) is kind
        assert said.path.endswith(f"/{kind}")
    else:
        assert judged.status in (400, 401, 409)
        assert node.rejected.total() == before + 1
        if judged.receipt is not None:
            envelope.read_answer(reply(node, judged)[1].body)
    return judged


@many(100)
@given(strategies.requests, st.data())
def test_a_bent_request_is_judged_and_never_raises(request: wire.Request, data: Any) -> None:
    primary, backup = meet()
    said = request if isinstance(request, Hello) else replace(request, sender=primary.me)
    sent = primary.request(Role.BACKUP, said)
    body = data.draw(bent(sent.signed.body))

    judged = _judge(backup, sent.kind, body, SECRET)
    if isinstance(judged, Heard) and not isinstance(said, Hello):
        again = backup.admit(sent.kind, envelope.sign_request(SECRET, body), body, NOW)
        assert isinstance(again, Denied)
        assert again.error == "replayed"

    stranger = backup.admit(sent.kind, sent.signed.signature, body, NOW)
    assert isinstance(stranger, Denied) or body == sent.signed.body


MESSAGES = 200
"""In one example of the test below, whose own choices are cheap."""


@many(20)
@given(st.integers(0))
def test_every_message_of_a_long_row_is_judged(seed: int) -> None:
    """Requests and answers of all kinds, bent, with the secret."""
    dice = Random(seed)
    for number in range(MESSAGES):
        primary, backup = keeper(PRIMARY), keeper(BACKUP)
        sent = _of_kind(primary, list(Kind)[number % 4])
        judged = hear(backup, sent)
        read_reply(primary, sent, reply(backup, judged))
        sent = _of_kind(primary, list(Kind)[number % 4])
        if number % 8 < 4:
            _judge(backup, sent.kind, bend(dice, sent.signed.body), SECRET)
            continue
        status, signed = _replied(backup, hear(backup, sent))
        body = bend(dice, signed.body)
        signature = envelope.sign_answer(SECRET, sent.signed.signature, status, body)
        read = primary.read_answer(sent, status, signature, body)
        assert isinstance(read, Understood | AskAgain | Refused)


@many(100)
@given(st.sampled_from(Kind), values | st.binary(max_size=2000), st.sampled_from([SECRET, None]))
def test_any_value_as_a_message_is_judged(kind: Kind, value: object, secret: bytes | None) -> None:
    try:
        body = value if isinstance(value, bytes) else _bytes(value)
    except ValueError:
        assume(False)  # a number that JSON cannot spell
        raise
    assert isinstance(_judge(keeper(BACKUP, secret), kind, body, secret), Denied)


@many(100)
@given(st.binary(max_size=500), st.data())
def test_the_cluster_of_anything_is_a_name_or_nothing(raw: bytes, data: Any) -> None:
    primary = keeper(PRIMARY)
    sent = data.draw(bent(primary.request(Role.BACKUP, beat(PRIMARY)).signed.body))
    for body in (raw, sent, b'{"cluster":' + raw + b"}"):
        with contextlib.suppress(MalformedMessageError):
            assert isinstance(envelope.cluster_of(body), str)


# --- answers --------------------------------------------------------------------------------------


@many(100)
@given(strategies.answers, st.data(), st.sampled_from([200, 409, 400, 503, 401, 0, 999]))
def test_a_bent_answer_is_read_and_never_raises(
    answer: tuple[Kind, wire.Answer], data: Any, status: int
) -> None:
    kind, message = answer
    primary, backup = meet()
    sent = _of_kind(primary, kind)
    sender = getattr(message, "sender", BACKUP)
    backup.me = sender if sender.role is not Role.PRIMARY else BACKUP
    signed = backup.answer(Receipt(sent.signed.signature, sent.id, 1), message)
    body = data.draw(bent(signed.body))
    signature = envelope.sign_answer(SECRET, sent.signed.signature, status, body)

    read = primary.read_answer(sent, status, signature, body)

    assert isinstance(read, Understood | AskAgain | Refused)
    if isinstance(read, Understood):
        told = envelope.read_answer(body)
        assert read.answer == wire.answer_of(kind, told.message, told.sender)
        assert told.re in (None, sent.id)
    if isinstance(read, Refused):
        assert read.error
        assert primary.rejected[f"answer_{read.error}"] == 1
    if body != signed.body:
        assert isinstance(primary.read_answer(sent, status, signed.signature, body), Refused)


def _of_kind(node: Keeper, kind: Kind) -> Outgoing:
    vote = VoteRequest(node.me, VoteKind.POLL, 0, 10.0, 10.0, Reason.PEER_SILENT)
    requests: dict[Kind, Request | Hello] = {
        Kind.HEARTBEAT: beat(node.me),
        Kind.VOTE: vote,
        Kind.RELEASE: ReleaseRequest(node.me, 7, None, Reason.OPERATOR),
        Kind.HELLO: Hello(),
    }
    return node.request(Role.BACKUP, requests[kind])


@many(100)
@given(st.binary(max_size=2000), st.integers(0, 999), st.text(max_size=80), st.booleans())
def test_whatever_a_stranger_answers_is_read_and_nothing_of_it_believed(
    body: bytes, status: int, signature: str, has_secret: bool
) -> None:
    node = keeper(PRIMARY, SECRET if has_secret else None)
    sent = node.request(Role.BACKUP, beat(PRIMARY))

    assert isinstance(node.read_answer(sent, status, signature, body), Refused)


# --- conversations --------------------------------------------------------------------------------


@dataclass
class Said:
    """A message that left, and who can have heard it."""

    sent: Outgoing
    by: Keeper
    to: Keeper | None
    is_authentic: bool


ROLES = [Role.PRIMARY, Role.BACKUP, Role.WITNESS]
BETWEEN = st.sampled_from([(by, to) for by in ROLES[:2] for to in ROLES if by is not to])
SENDERS = {Role.PRIMARY: PRIMARY, Role.BACKUP: BACKUP, Role.WITNESS: WITNESS}
SAYINGS: dict[str, Callable[[Sender], Request | Hello]] = {
    "beat": beat,
    "vote": lambda me: VoteRequest(me, VoteKind.CANDIDACY, 8, 10.0, 10.0, Reason.PEER_SILENT),
    "release": lambda me: ReleaseRequest(me, 7, None, Reason.OPERATOR),
    "hello": lambda _: Hello(),
}


def _replied(node: Keeper, judged: Heard | Denied) -> tuple[int, Signed]:
    """As speakers.reply, for votes and releases too."""
    match judged:
        case Heard(request=VoteRequest() as asked):
            phase = None if node.me.role is Role.WITNESS else Phase.STANDBY
            voted = VoteAnswer(node.me, asked.kind, asked.term, WORD, phase)
            return 200, node.answer(judged.receipt, voted)
        case Heard(request=ReleaseRequest() as asked):
            released = ReleaseAnswer(node.me, asked.term, asked.term)
            return 200, node.answer(judged.receipt, released)
        case _:
            return reply(node, judged)


class Conversation(RuleBasedStateMachine):
    """Three nodes, their restarts, two paths between them, and one who has recorded everything."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.runs = 0
        self.nodes = {role: keeper(SENDERS[role]) for role in ROLES}
        self.said: list[Said] = []
        self.heard: set[bytes] = set()
        self.answers: list[tuple[Said, int, str, bytes]] = []

    @rule(ends=BETWEEN, path=st.integers(0, 1), what=st.sampled_from(sorted(SAYINGS)))
    def speak(self, ends: tuple[Role, Role], path: int, what: str) -> None:
        """It leaves; whether, where and how often it arrives is another matter."""
        by, to = ends
        node = self.nodes[by]
        sent = node.request(to, SAYINGS[what](node.me), endpoint=path)
        self.said.append(Said(sent, node, self.nodes[to], is_authentic=True))

    @rule(ends=BETWEEN, what=st.sampled_from(sorted(SAYINGS)))
    def speak_without_the_secret(self, ends: tuple[Role, Role], what: str) -> None:
        """One who knows all names, runs and numbers, and has a secret of its own, or none."""
        by, to = ends
        for secret in (b"another secret", None):
            stranger = keeper(self.nodes[by].me, secret)
            stranger._addresses = self.nodes[by]._addresses
            stranger._sequences = self.nodes[by]._sequences.copy()
            sent = stranger.request(to, SAYINGS[what](stranger.me))
            self.said.append(Said(sent, stranger, self.nodes[to], is_authentic=False))

    @precondition(lambda self: self.said)
    @rule(which=st.integers(0), to=st.sampled_from(ROLES), other=st.none() | st.sampled_from(Kind))
    def deliver(self, which: int, to: Role, other: Kind | None) -> None:
        """Something recorded, of late as a rule, to whomever, at its address or another one."""
        said = self.said[-1 - which % len(self.said)]
        self._deliver(said, self.nodes[to], other or said.sent.kind)

    @precondition(lambda self: self.said)
    @rule()
    def deliver_the_last(self) -> None:
        """As on a good day."""
        said = self.said[-1]
        assert said.to is not None
        self._deliver(said, self.nodes[said.to.me.role], said.sent.kind)

    def _deliver(self, said: Said, node: Keeper, kind: Kind) -> None:
        judged = hear(node, said.sent, self.now, kind)
        if isinstance(judged, Heard):
            assert said.is_authentic, "nobody is heard without the secret"
            assert kind is said.sent.kind, "and at no other address"
            if kind is not Kind.HELLO:
                assert node is said.to, "by nobody else, and by no later run"
                assert said.sent.signed.body not in self.heard, "nothing is heard twice"
                self.heard.add(said.sent.signed.body)
        elif judged.receipt is None:
            assert not said.is_authentic
            return
        status, signed = _replied(node, judged)
        self.answers.append((said, status, signed.signature, signed.body))
        read = said.by.read_answer(said.sent, status, signed.signature, signed.body)
        assert isinstance(read, Understood) == (
            isinstance(judged, Heard) and node.me.role is said.sent.to
        )

    @precondition(lambda self: self.said and self.answers)
    @rule(which=st.integers(0), answer=st.integers(0))
    def answer_something_else(self, which: int, answer: int) -> None:
        """A recorded answer, to a request of which it is none."""
        said = self.said[which % len(self.said)]
        to, status, signature, body = self.answers[answer % len(self.answers)]
        if to is said or not said.is_authentic:
            return
        assert isinstance(said.by.read_answer(said.sent, status, signature, body), Refused)

    @precondition(lambda self: self.said)
    @rule(which=st.integers(0), bit=st.integers(0))
    def flip_a_bit(self, which: int, bit: int) -> None:
        """Of something recorded."""
        sent = self.said[which % len(self.said)].sent
        body = bytearray(sent.signed.body)
        body[bit // 8 % len(body)] ^= 1 << bit % 8
        for node in self.nodes.values():
            assert isinstance(
                node.admit(sent.kind, sent.signed.signature, bytes(body), self.now), Denied
            )

    @rule(role=st.sampled_from(ROLES))
    def restart(self, role: Role) -> None:
        """Another run of the same node; who speaks to it learns of that."""
        self.runs += 1
        self.nodes[role] = keeper(replace(SENDERS[role], run_id=f"run-{self.runs}"))

    @rule(seconds=st.floats(0, 3 * LIVING_FOR_S))
    def wait(self, seconds: float) -> None:
        """Nothing is heard meanwhile."""
        self.now += seconds

    @invariant()
    def little_is_remembered(self) -> None:
        """Whatever was said."""
        for node in self.nodes.values():
            for seat in node._seats.values():
                assert seat._session is None or len(seat._session.windows) <= 8

    def teardown(self) -> None:
        """Nothing that was done keeps those who have the secret from each other."""
        self.now += LIVING_FOR_S + 1
        for by, to in ((Role.PRIMARY, Role.BACKUP), (Role.BACKUP, Role.PRIMARY)):
            assert isinstance(say(self.nodes[by], self.nodes[to], self.now)[0], Understood)
            assert isinstance(
                say(self.nodes[by], self.nodes[Role.WITNESS], self.now)[0], Understood
            )


TestConversation = Conversation.TestCase
TestConversation.settings = settings(many(60), stateful_step_count=30)
