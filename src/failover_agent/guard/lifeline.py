"""What guard and agent say to each other: one JSON object a datagram, on a pair of unix sockets.

SOCK_SEQPACKET keeps datagrams whole and in order, and tells each end when the other has gone.
"""

import json
import math
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

VARIABLE = "FAILOVER_AGENT_LIFELINE"
"""Holds the number of the agent's end of the pair."""

LONGEST = 1 << 16
"""Bytes of a datagram: the names of a thousand containers and more."""


TOO_MUCH = (OverflowError, RecursionError)
"""JSON that says more than can be held."""


class GarbledError(ValueError):
    """Not a message that we know."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The agent's first word. `log_format` is "text" or "json"; the files are engine.TlsFiles."""

    lease_file: str
    docker_host: str
    heartbeat_timeout_s: float
    kill_budget_s: float
    log_format: str
    docker_ca_file: str = ""
    docker_cert_file: str = ""
    docker_key_file: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A managed container, whenever what is known of it has changed; `pid` 0: no process known.

    The pid is one of the agent's own pid namespace, which is the guard's.
    """

    name: str
    container_id: str
    pid: int
    started: str


@dataclass(frozen=True, slots=True)
class Arm:
    """Watch over `names`. Answered by `Armed`."""

    term: int
    names: tuple[str, ...]
    valid_until_s: float


@dataclass(frozen=True, slots=True)
class Move:
    """The lease now ends then; infinite while on hold."""

    term: int
    valid_until_s: float


@dataclass(frozen=True, slots=True)
class Disarm:
    """Everything is seen to be stopped."""

    term: int


@dataclass(frozen=True, slots=True)
class Welcome:
    """The guard's first word, there before the agent looks: until when a lease of ours runs.

    Minus infinity: none does. Infinite: it is on hold. `was_enforced`: its end was enforced, and
    what it names is killed until this agent arms a newer term or disarms (G2).
    """

    lease_until_s: float
    was_enforced: bool = False


@dataclass(frozen=True, slots=True)
class Armed:
    """Answers `Arm`; without an `error` the deadline lies in the lease file."""

    term: int
    error: str


Message = Hello | Seen | Arm | Move | Disarm | Welcome | Armed

_KINDS: dict[str, type[Message]] = {
    kind.__name__.lower(): kind for kind in (Hello, Seen, Arm, Move, Disarm, Welcome, Armed)
}


def encode(message: Message) -> bytes:
    """One datagram. An infinite moment is written as Python's json writes it."""
    return json.dumps({"say": type(message).__name__.lower(), **asdict(message)}).encode()


def decode(datagram: bytes) -> Message:
    """The message; what has a default may be left out. Raises GarbledError."""
    try:
        said = json.loads(datagram)
        kind = _KINDS[said.pop("say")]
        names = [it for it in fields(kind) if it.default is MISSING or it.name in said]
        return kind(**{field.name: _fit(said[field.name], field.type) for field in names})
    except (AttributeError, LookupError, TypeError, ValueError, *TOO_MUCH) as error:
        raise GarbledError(f"{error!r}") from error


def _fit(value: Any, kind: Any) -> Any:
    if kind is float:
        is_fit = type(value) in {int, float} and not math.isnan(value)
        value = float(value) if is_fit else value
    elif kind is int:
        is_fit = type(value) is int and value >= 0
    elif kind in (str, bool):
        is_fit = type(value) is kind
    else:
        is_fit = type(value) is list and all(type(item) is str for item in value)
        value = tuple(value) if is_fit else value
    if not is_fit:
        raise TypeError(f"{value!r} is not of {kind}")
    return value
