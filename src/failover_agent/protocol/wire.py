"""Core messages <-> JSON values: what may stand in them, and within which bounds.

Extra keys are errors, and so is every number, text or list beyond its bound, so that nothing a
stranger writes grows in here. Lengths of time are finite; a promise on hold, which has no end, is
spelled "hold". Who speaks stands once, in the envelope (auth.py), and not in the message again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import ConfigDict, Field, Strict, TypeAdapter, ValidationError, with_config
from pydantic_core import from_json
from typing_extensions import TypedDict

from failover_agent.core.messages import (
    LONGEST_LEASE_S,
    Beat,
    BeatAnswer,
    Refusal,
    ReleaseAnswer,
    ReleaseRequest,
    Sender,
    Vote,
    VoteAnswer,
    VoteKind,
    VoteRequest,
)
from failover_agent.core.policy import Role
from failover_agent.core.state import FOREVER, Health, Holder, Phase, Profile, Readiness, Reason

MOST_BYTES = 128 * 1024
"""The size of a request or an answer, envelope and all. The bounds below cannot all be used up at
once within it; a profile of MOST_CONTAINERS whose names have LONGEST_NAMES together can. A beat
without a profile has a few hundred bytes, whatever the number of containers."""

MOST_CONTAINERS = 1000
"""In a profile, and so in a configuration."""

LONGEST_NAMES = 24 * 1024
"""The names of the containers of a configuration, together: they stand in a profile twice."""

HIGHEST_NUMBER = 2**53
"""Of terms and sequence numbers: what every JSON reader can hold without rounding."""

LARGEST_STEP = 2**40
"""A term further than this above all that a node ever said itself is malformed. Terms grow by one
an attempt, so nobody gets there in a thousand years, and a node without its record believes them
all the same; but one such number, believed, would leave hardly any above it to go on with (S3).
"""

MOST_SENTENCES = 16
LONGEST_SENTENCE = 200

Json = Mapping[str, object]


class MalformedMessageError(ValueError):
    """`str(error)` names the field and what is wrong with it."""


@unique
class Kind(StrEnum):
    """What is asked of the other node; the last part of the address it is sent to."""

    HEARTBEAT = "heartbeat"
    VOTE = "vote"
    RELEASE = "release"
    HELLO = "hello"


@dataclass(frozen=True, slots=True)
class Hello:
    """`failover-agent check` asks who is there; it changes nothing."""


@dataclass(frozen=True, slots=True)
class HelloAnswer:
    """Who is there: the rest stands in the envelope. `phase` None: it has none, as a witness."""

    version: str
    phase: Phase | None


Request = Beat | VoteRequest | ReleaseRequest | Hello
Answer = BeatAnswer | VoteAnswer | ReleaseAnswer | HelloAnswer

# --- the bounds -----------------------------------------------------------------------------------

Flag = Annotated[bool, Strict()]
Number = Annotated[int, Strict(), Field(ge=0, le=HIGHEST_NUMBER)]
Length = Annotated[float, Strict(), Field(ge=0, le=1e12, allow_inf_nan=False)]
Lease = Annotated[float, Strict(), Field(ge=0, le=LONGEST_LEASE_S, allow_inf_nan=False)]
Remaining = Annotated[float, Strict(), Field(ge=0, le=2 * LONGEST_LEASE_S, allow_inf_nan=False)]
Identifier = Annotated[str, Strict(), Field(min_length=1, max_length=64)]
Digest = Annotated[str, Strict(), Field(max_length=128)]
ProfileDigest = Annotated[str, Strict(), Field(max_length=64)]
Name = Annotated[str, Strict(), Field(max_length=128)]
Setting = Annotated[str, Strict(), Field(max_length=LONGEST_NAMES + 2 * MOST_CONTAINERS)]
Sentence = Annotated[str, Strict(), Field(max_length=LONGEST_SENTENCE)]

strict = with_config(ConfigDict(extra="forbid"))


@strict
class SenderJson(TypedDict):
    """Who speaks; part of the envelope."""

    role: Role
    node_id: Identifier
    run_id: Identifier
    fingerprint: Digest


@strict
class _HolderJson(TypedDict):
    role: Role
    node_id: Identifier


@strict
class _ProfileJson(TypedDict):
    specs: Annotated[tuple[tuple[Name, Digest, Digest], ...], Field(max_length=MOST_CONTAINERS)]
    settings: Annotated[tuple[tuple[Name, Setting], ...], Field(max_length=64)]


@strict
class _BeatJson(TypedDict):
    number: Number
    phase: Phase
    term: Number
    renews: Flag
    hold: Flag
    lease_s: Lease
    longest_lease_s: Lease
    holder: Role | None
    released: Flag
    leading_for_s: Length | None
    health: Health
    running: Number | None
    readiness: Readiness
    not_ready_because: Annotated[tuple[Sentence, ...], Field(max_length=MOST_SENTENCES)]
    may_lead: Flag
    profile_digest: ProfileDigest
    knows_digest: ProfileDigest
    profile: _ProfileJson | None


@strict
class _VoteJson(TypedDict):
    granted: Flag
    term: Number
    holder: _HolderJson | None
    remaining_s: Remaining | Literal["hold"] | None
    refusal: Refusal | None


@strict
class _BeatAnswerJson(TypedDict):
    beat: _BeatJson | None
    vote: _VoteJson | None


@strict
class _VoteRequestJson(TypedDict):
    kind: VoteKind
    term: Number
    lease_s: Lease
    longest_lease_s: Lease
    reason: Reason


@strict
class _VoteAnswerJson(TypedDict):
    kind: VoteKind
    asked_term: Number
    vote: _VoteJson
    phase: Phase | None


@strict
class _ReleaseJson(TypedDict):
    term: Number
    to: Role | None
    reason: Reason


@strict
class _ReleaseAnswerJson(TypedDict):
    released_term: Number
    term: Number


@strict
class _HelloJson(TypedDict):
    pass


@strict
class _HelloAnswerJson(TypedDict):
    version: Name
    phase: Phase | None


_BEAT = TypeAdapter(_BeatJson)
_BEAT_ANSWER = TypeAdapter(_BeatAnswerJson)
_VOTE_REQUEST = TypeAdapter(_VoteRequestJson)
_VOTE_ANSWER = TypeAdapter(_VoteAnswerJson)
_RELEASE = TypeAdapter(_ReleaseJson)
_RELEASE_ANSWER = TypeAdapter(_ReleaseAnswerJson)
_HELLO = TypeAdapter(_HelloJson)
_HELLO_ANSWER = TypeAdapter(_HelloAnswerJson)

# --- to JSON --------------------------------------------------------------------------------------


def kind_of(request: Request) -> Kind:
    """Where `request` is sent."""
    match request:
        case Beat():
            return Kind.HEARTBEAT
        case VoteRequest():
            return Kind.VOTE
        case ReleaseRequest():
            return Kind.RELEASE
        case Hello():
            return Kind.HELLO


def highest_term(message: Request | Answer | Vote | None) -> int:
    """The highest term that a message names; 0 where it names none."""
    match message:
        case Beat() | VoteRequest() | ReleaseRequest() | Vote():
            return message.term
        case BeatAnswer():
            return max(highest_term(message.beat), highest_term(message.vote))
        case VoteAnswer():
            return max(message.asked_term, message.vote.term)
        case ReleaseAnswer():
            return max(message.released_term, message.term)
        case Hello() | HelloAnswer() | None:
            return 0


def to_json(message: Request | Answer) -> Json:
    """What is sent of `message`; its sender is left to the envelope.

    Sentences for people are cut to what the other side takes; all else is in bounds by itself.
    """
    value = _plain(message)
    assert isinstance(value, dict)
    return value


_NAMES: dict[type, tuple[str, ...]] = {
    kind: tuple(field.name for field in dataclasses.fields(kind) if field.name != "sender")
    for kind in (
        *(Beat, BeatAnswer, VoteRequest, VoteAnswer, ReleaseRequest, ReleaseAnswer),
        *(Hello, HelloAnswer, Vote, Holder, Profile),
    )
}
"""The fields of each message, and of each part of one, as they are sent."""


def _plain(value: object) -> object:
    if isinstance(value, float):
        return "hold" if math.isinf(value) else value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    names = _NAMES.get(type(value))
    if names is None:
        return value
    fields = {name: _plain(getattr(value, name)) for name in names}
    if "not_ready_because" in fields:
        sentences = cast("list[str]", fields["not_ready_because"])
        fields["not_ready_because"] = [as_sentence(one) for one in sentences[:MOST_SENTENCES]]
    return fields


def as_sentence(text: str) -> str:
    """`text` as far as it may be said on the wire: not too long, and without stray bytes."""
    clean = text.encode(errors="replace").decode()
    return clean if len(clean) <= LONGEST_SENTENCE else f"{clean[: LONGEST_SENTENCE - 3]}..."


# --- from JSON ------------------------------------------------------------------------------------

T = TypeVar("T")


def parse(body: bytes) -> Any:
    """The JSON value of `body`; anything more than MOST_BYTES is malformed. No NaN, no Infinity."""
    if len(body) > MOST_BYTES:
        raise MalformedMessageError(f"{len(body)} bytes are more than {MOST_BYTES}")
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise MalformedMessageError(f"no JSON: {error}") from None


def check(shape: TypeAdapter[T], value: object) -> T:
    """`value`, if it has this shape; MalformedMessageError names the field that has not."""
    try:
        return shape.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part)[:64] for part in first["loc"]) or "message"
        raise MalformedMessageError(f"{where}: {first['msg']}") from None


def request_of(kind: Kind, value: object, sender: Sender) -> Request:
    """The request of this kind that `value` spells. Raises MalformedMessageError."""
    match kind:
        case Kind.HEARTBEAT:
            return _beat(check(_BEAT, value), sender)
        case Kind.VOTE:
            return VoteRequest(sender=sender, **check(_VOTE_REQUEST, value))
        case Kind.RELEASE:
            return ReleaseRequest(sender=sender, **check(_RELEASE, value))
        case Kind.HELLO:
            check(_HELLO, value)
            return Hello()


def answer_of(kind: Kind, value: object, sender: Sender) -> Answer:
    """The answer to a request of this kind that `value` spells. Raises MalformedMessageError."""
    match kind:
        case Kind.HEARTBEAT:
            both = check(_BEAT_ANSWER, value)
            beat = None if both["beat"] is None else _beat(both["beat"], sender)
            vote = None if both["vote"] is None else _vote(both["vote"])
            _tell_apart(sender, "beat", beat)
            if beat is None and vote is None:
                raise MalformedMessageError("vote: an arbiter always says how its promise stands")
            return BeatAnswer(sender=sender, beat=beat, vote=vote)
        case Kind.VOTE:
            told = check(_VOTE_ANSWER, value)
            _tell_apart(sender, "phase", told["phase"])
            return VoteAnswer(
                sender=sender,
                kind=told["kind"],
                asked_term=told["asked_term"],
                vote=_vote(told["vote"]),
                phase=told["phase"],
            )
        case Kind.RELEASE:
            return ReleaseAnswer(sender=sender, **check(_RELEASE_ANSWER, value))
        case Kind.HELLO:
            return HelloAnswer(**check(_HELLO_ANSWER, value))


def _beat(value: _BeatJson, sender: Sender) -> Beat:
    told = value["profile"]
    if told is not None and not value["profile_digest"]:
        raise MalformedMessageError("profile: it has no digest")
    profile = None if told is None else Profile(**told)
    fields: dict[str, Any] = {**value, "profile": profile}
    return Beat(sender=sender, **fields)


def _tell_apart(sender: Sender, field: str, value: object) -> None:
    """An arbiter runs nothing: it has no phase and no beat, and everybody else has both."""
    if (value is None) != (sender.role is Role.WITNESS):
        has = "has none" if value is not None else "has one"
        raise MalformedMessageError(f"{field}: a {sender.role} {has}")


def _vote(value: _VoteJson) -> Vote:
    remaining_s = value["remaining_s"]
    if value["granted"] and value["refusal"] is not None:
        raise MalformedMessageError("vote: it is granted and refused")
    return Vote(
        granted=value["granted"],
        term=value["term"],
        holder=None if value["holder"] is None else Holder(**value["holder"]),
        remaining_s=FOREVER if remaining_s == "hold" else remaining_s,
        refusal=value["refusal"],
    )
