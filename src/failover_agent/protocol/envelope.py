"""What stands around a message, and how both are signed.

A request and its answer are one JSON object each; the signature goes in a header of its own and
covers the bytes as they are sent; it is HMAC-SHA256 with the secret over

    request   "failover-agent request" 0 body
    answer    "failover-agent answer" 0 signature of the request 0 status 0 body

so an answer fits one request alone, and neither can be taken for the other. Without a secret there
is no signature, and everything else is the same.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from typing import Annotated, NotRequired

from pydantic import Field, JsonValue, Strict, TypeAdapter
from typing_extensions import TypedDict

from failover_agent.core.messages import Sender
from failover_agent.core.policy import Role
from failover_agent.protocol import wire
from failover_agent.protocol.wire import (
    HIGHEST_NUMBER,
    Flag,
    Identifier,
    Json,
    MalformedMessageError,
    Number,
    SenderJson,
    strict,
)

PROTOCOL = 1
SPOKEN = frozenset({1})
"""Ours, and the one before it once there is one."""

SIGNATURE_HEADER = "Failover-Signature"


class OtherProtocolError(Exception):
    """A message of a version that we do not speak."""

    def __init__(self, version: int) -> None:
        super().__init__(f"protocol {version}")
        self.version = version


@dataclass(frozen=True, slots=True)
class Id:
    """Which request: no two have the same."""

    run_id: str
    path: str
    seq: int


@dataclass(frozen=True, slots=True)
class RequestEnvelope:
    """`to_run` and `session` are what the receiver last called itself and our conversation with it;
    "" and 0 before the first contact. `path` is "<number of the endpoint>/<kind>".
    """

    cluster: str
    sender: Sender
    to: Role
    to_run: str
    session: int
    path: str
    seq: int
    message: object

    @property
    def id(self) -> Id:
        """Which request this is."""
        return Id(self.sender.run_id, self.path, self.seq)


@dataclass(frozen=True, slots=True)
class Rival:
    """The other node of a role that there are two of; does it hold a term, or could it?"""

    node_id: str
    holding: bool
    may_lead: bool


@dataclass(frozen=True, slots=True)
class AnswerEnvelope:
    """Either a `message`, or an `error` code with a `detail` for people. `session` is the one to
    name from now on. `re` is the request answered, None where it could not be read.
    """

    cluster: str
    sender: Sender
    session: int
    re: Id | None
    message: object
    error: str
    detail: str
    rival: Rival | None = None


# --- signatures -----------------------------------------------------------------------------------


def sign_request(secret: bytes, body: bytes) -> str:
    """The signature of a request, in hex."""
    return hmac.digest(secret, b"failover-agent request\0" + body, "sha256").hex()


def sign_answer(secret: bytes, request_signature: str, status: int, body: bytes) -> str:
    """The signature of the answer to the request with that signature, in hex."""
    context = f"failover-agent answer\0{request_signature}\0{status}\0".encode()
    return hmac.digest(secret, context + body, "sha256").hex()


def read_token(secret: bytes) -> str:
    """What `Authorization: Bearer` carries where reading wants the secret (read_access).

    Derived, because it crosses the network in the clear: who overhears it can read, and no more.
    """
    return hmac.digest(secret, b"failover-agent read", "sha256").hex()


def is_same(one: str, other: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(one.encode(errors="replace"), other.encode(errors="replace"))


# --- JSON -----------------------------------------------------------------------------------------

MOST_PATHS = 10
"""Endpoints of one node: their number is one digit on the wire."""

_Path = Annotated[str, Strict(), Field(pattern=r"^[0-9]/(heartbeat|vote|release|hello)$")]
_Code = Annotated[str, Strict(), Field(max_length=64)]
_Detail = Annotated[str, Strict(), Field(max_length=wire.LONGEST_SENTENCE)]
_RunId = Annotated[str, Strict(), Field(max_length=64)]
_Cluster = Annotated[str, Strict(), Field(min_length=1, max_length=64)]


@strict
class _ToJson(TypedDict):
    role: Role
    run_id: _RunId
    session: Number


@strict
class _RequestJson(TypedDict):
    protocol: Number
    cluster: _Cluster
    sender: SenderJson
    to: _ToJson
    path: _Path
    seq: Number
    message: dict[str, JsonValue]


@strict
class _IdJson(TypedDict):
    run_id: Identifier
    path: _Path
    seq: Number


@strict
class _RivalJson(TypedDict):
    node_id: _RunId
    holding: Flag
    may_lead: Flag


@strict
class _AnswerJson(TypedDict):
    protocol: Number
    cluster: _Cluster
    sender: SenderJson
    session: Number
    re: _IdJson | None
    message: NotRequired[dict[str, JsonValue]]
    error: NotRequired[_Code]
    detail: NotRequired[_Detail]
    rival: NotRequired[_RivalJson]


_REQUEST = TypeAdapter(_RequestJson)
_ANSWER = TypeAdapter(_AnswerJson)


def write_request(envelope: RequestEnvelope) -> bytes:
    """The body of a request."""
    to = {"role": envelope.to, "run_id": envelope.to_run, "session": envelope.session}
    return _bytes(
        {
            "protocol": PROTOCOL,
            "cluster": envelope.cluster,
            "sender": _sender(envelope.sender),
            "to": to,
            "path": envelope.path,
            "seq": envelope.seq,
            "message": envelope.message,
        }
    )


def cluster_of(body: bytes) -> str:
    """The cluster that a request says it is of, before anything of it is known to be true: so that
    one who serves several knows whose secret to judge it by. Raises MalformedMessageError.
    """
    value = wire.parse(body)
    cluster = value.get("cluster") if isinstance(value, dict) else None
    if not isinstance(cluster, str):
        raise MalformedMessageError("cluster: there is to be a name")
    return cluster


def read_request(body: bytes) -> RequestEnvelope:
    """Raises MalformedMessageError, or OtherProtocolError before it looks at anything else."""
    raw = wire.check(_REQUEST, _spoken(wire.parse(body)))
    return RequestEnvelope(
        cluster=raw["cluster"],
        sender=Sender(**raw["sender"]),
        to=raw["to"]["role"],
        to_run=raw["to"]["run_id"],
        session=raw["to"]["session"],
        path=raw["path"],
        seq=raw["seq"],
        message=raw["message"],
    )


def write_answer(envelope: AnswerEnvelope) -> bytes:
    """The body of an answer."""
    raw: dict[str, object] = {
        "protocol": PROTOCOL,
        "cluster": envelope.cluster,
        "sender": _sender(envelope.sender),
        "session": envelope.session,
        "re": None,
    }
    if (re := envelope.re) is not None:
        raw["re"] = {"run_id": re.run_id, "path": re.path, "seq": re.seq}
    if envelope.error:
        raw |= {"error": envelope.error, "detail": wire.as_sentence(envelope.detail)}
    else:
        raw["message"] = envelope.message
    if (rival := envelope.rival) is not None:
        raw["rival"] = {
            "node_id": rival.node_id,
            "holding": rival.holding,
            "may_lead": rival.may_lead,
        }
    return _bytes(raw)


def read_answer(body: bytes) -> AnswerEnvelope:
    """Raises MalformedMessageError, or OtherProtocolError before it looks at anything else."""
    raw = wire.check(_ANSWER, _spoken(wire.parse(body)))
    if ("message" in raw) == ("error" in raw):
        raise MalformedMessageError("message: there is to be this or an error")
    return AnswerEnvelope(
        cluster=raw["cluster"],
        sender=Sender(**raw["sender"]),
        session=raw["session"],
        re=None if raw["re"] is None else Id(**raw["re"]),
        message=raw.get("message"),
        error=raw.get("error", ""),
        detail=raw.get("detail", ""),
        rival=Rival(**raw["rival"]) if "rival" in raw else None,
    )


def _spoken(value: object) -> object:
    """`value`, unless it says that it is of another version, whose shape we do not know."""
    version = value.get("protocol") if isinstance(value, dict) else None
    if type(version) is int and 0 <= version <= HIGHEST_NUMBER and version not in SPOKEN:
        raise OtherProtocolError(version)
    return value


def _sender(sender: Sender) -> Json:
    return {
        "role": sender.role,
        "node_id": sender.node_id,
        "run_id": sender.run_id,
        "fingerprint": sender.fingerprint,
    }


def _bytes(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
