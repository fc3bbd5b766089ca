"""What the nodes say to each other. No clocks cross the wire: lengths and terms only.

The envelope (cluster, protocol, sequence, signature) is `protocol`'s; what is here is what the core
decides by.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique

from failover_agent.core.policy import Role
from failover_agent.core.state import Health, Holder, Phase, Profile, Readiness, Reason

LONGEST_LEASE_S = 3600.0
"""A voter refuses to promise for longer than this (V1)."""


@unique
class VoteKind(StrEnum):
    """What a vote request asks.

    poll: would you grant me a term? Nothing is promised (H0). prepare: will you take the service
    from me? (H5). candidacy: promise me this term.
    """

    POLL = "poll"
    PREPARE = "prepare"
    CANDIDACY = "candidacy"


@unique
class Refusal(StrEnum):
    """Why a voter said no."""

    PROMISED = "promised"
    OLD_TERM = "old_term"
    CONTAINERS_RUN = "containers_run"
    JUST_STARTED = "just_started"
    LEADING = "leading"
    NOT_READY = "not_ready"
    FINGERPRINT = "fingerprint"
    PREFERRED = "preferred"
    LEASE_TOO_LONG = "lease_too_long"


@dataclass(frozen=True, slots=True)
class Sender:
    """Who speaks: on every message (V9)."""

    role: Role
    node_id: str
    run_id: str
    fingerprint: str


@dataclass(frozen=True)
class Beat:
    """A heartbeat, as request and as answer alike.

    `number` grows with each beat of a run, so that one overtaken is known for what it is.
    `renews`: the sender holds `term`, its lease has not ended, and it asks the receiver to renew
    its promise for `lease_s` (H2); with `hold` the promise becomes endless (V8). `term` is
    otherwise the highest term the sender granted, `holder` and `released` what became of it.
    `longest_lease_s`: the longest length that the sender knows anybody to have asked for, for
    voters that lost their record (V4). `leading_for_s`: how long the sender has been active.
    `running`: how many managed containers have a living process, None when it cannot
    tell. `may_lead` is false while the sender's own set-up forbids it ever to be a candidate.
    `profile_digest` names the sender's profile, `knows_digest` the one of the receiver that it has
    ("": none); `profile` is said only to who does not have it, so that a beat is of one size,
    however many the containers. An arbiter is told nothing of it.
    """

    sender: Sender
    number: int
    phase: Phase
    term: int
    renews: bool
    hold: bool
    lease_s: float
    longest_lease_s: float
    holder: Role | None
    released: bool
    leading_for_s: float | None
    health: Health
    running: int | None
    readiness: Readiness
    not_ready_because: tuple[str, ...]
    may_lead: bool
    profile_digest: str = ""
    knows_digest: str = ""
    profile: Profile | None = None


@dataclass(frozen=True, slots=True)
class Vote:
    """A voter's word on a renewal or a request (V2): whose promise stands, and how long it runs.

    `remaining_s` None: no promise runs; infinite: on hold.
    """

    granted: bool
    term: int
    holder: Holder | None
    remaining_s: float | None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class BeatAnswer:
    """The answer to a beat: the receiver's own beat, and its vote where a renewal was asked.

    An arbiter has no beat, and always tells how its promise stands.
    """

    sender: Sender
    beat: Beat | None
    vote: Vote | None


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """`term` is the term asked for (candidacy) or held (prepare); 0 in a poll.

    `longest_lease_s` as in a beat.
    """

    sender: Sender
    kind: VoteKind
    term: int
    lease_s: float
    longest_lease_s: float
    reason: Reason


@dataclass(frozen=True, slots=True)
class VoteAnswer:
    """The answer to a `VoteRequest` of the same `kind` and `asked_term`.

    An arbiter has no phase.
    """

    sender: Sender
    kind: VoteKind
    asked_term: int
    vote: Vote
    phase: Phase | None


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """The holder of `term` is confirmed stopped and gives it back (V7); `to` is to take it."""

    sender: Sender
    term: int
    to: Role | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class ReleaseAnswer:
    """The release is on the receiver's disk; `term` is the highest it granted."""

    sender: Sender
    released_term: int
    term: int


Request = Beat | VoteRequest | ReleaseRequest
Answer = BeatAnswer | VoteAnswer | ReleaseAnswer
