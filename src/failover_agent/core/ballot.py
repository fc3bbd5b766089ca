"""What an arbiter answers: one voter for one pair, and nothing but that (V1-V4, V7, V8).

Pure: the witness runs this around its record, and a simulated one does the same. An arbiter has no
containers and no settings, so it asks nothing but its promise; whether the two nodes are set up
alike (V9) is for them to act on, and here an alarm alone. It is never asked to lead, so whoever
wants to hand over to it hears that it is not ready.

Terms are not bounded here: a message whose term nobody can have come to is malformed, and is never
heard (`protocol.wire.LARGEST_STEP`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from failover_agent.core import voter as voters
from failover_agent.core.changing import replace
from failover_agent.core.messages import (
    Answer,
    Beat,
    BeatAnswer,
    Refusal,
    ReleaseAnswer,
    ReleaseRequest,
    Request,
    Sender,
    VoteAnswer,
    VoteKind,
    VoteRequest,
)
from failover_agent.core.policy import Role
from failover_agent.core.state import Alarm, Durable, Holder, Reason
from failover_agent.core.voter import Voter


def decide(voter: Voter, request: Request, now: float, me: Sender) -> tuple[Voter, Answer]:
    """The voter after `request`, and what `me` answers; what `needs_save` says has to come first.

    Total: whatever is asked is answered, and what is refused changes no promise.
    """
    match request:
        case Beat():
            return _on_beat(voter, request, now, me)
        case VoteRequest():
            return _on_vote_request(voter, request, now, me)
        case ReleaseRequest():
            released = voters.release(voter, now, _holder(request.sender), request.term)
            voter = released or voter
            return voter, ReleaseAnswer(me, request.term, voter.durable.term)
        case _:
            assert_never(request)


def _on_beat(voter: Voter, beat: Beat, now: float, me: Sender) -> tuple[Voter, Answer]:
    """A renewal where the beat asks for one, and else no more than how the promise stands.

    One that a newer one overtook asks for nothing any more.
    """
    voter = _told(voter, beat.lease_s, beat.longest_lease_s)
    if not beat.renews or voters.is_overtaken(voter, beat.sender.run_id, beat.number):
        return voter, BeatAnswer(me, None, voters.word(voter, now, None, granted=False))
    holder = _holder(beat.sender)
    refusal = voters.refusal_of_renewal(voter, now, holder, beat.term, beat.lease_s)
    if refusal is None:
        voter = voters.grant(voter, now, holder, beat.term, beat.lease_s, hold=beat.hold)
        voter = replace(voter, newest=(beat.sender.run_id, beat.number))
    return voter, BeatAnswer(me, None, voters.word(voter, now, refusal, granted=refusal is None))


def _on_vote_request(
    voter: Voter, request: VoteRequest, now: float, me: Sender
) -> tuple[Voter, Answer]:
    voter = _told(voter, request.lease_s, request.longest_lease_s)
    candidate = _holder(request.sender)
    refusal: Refusal | None = Refusal.NOT_READY
    if request.kind is not VoteKind.PREPARE:
        refusal = voters.refusal_of_candidacy(
            voter,
            now,
            candidate,
            None if request.kind is VoteKind.POLL else request.term,
            request.lease_s,
            run_id=request.sender.run_id,
            by_operator=request.reason is Reason.OPERATOR,
        )
    if refusal is None and request.kind is VoteKind.CANDIDACY:
        voter = voters.grant(voter, now, candidate, request.term, request.lease_s)
    vote = voters.word(voter, now, refusal, granted=refusal is None)
    return voter, VoteAnswer(me, request.kind, request.term, vote, phase=None)


def _holder(sender: Sender) -> Holder:
    return Holder(sender.role, sender.node_id)


def _told(voter: Voter, *lengths_s: float) -> Voter:
    """Each message tells how long a lease its sender knows of: for a voter that forgot (V4)."""
    return voters.wait_as_told(voter, max(lengths_s))


def needs_save(before: Voter, after: Voter, doubtful: Durable | None) -> bool:
    """Is `after` to be on disk before anybody hears of it (V3)?

    A renewal writes nothing, for the disk names its holder already. Not so where a save for
    somebody else is under way or has failed: then the disk may name that one (`doubtful`), whom
    this voter would serve at once after a start (V4) though its word was given to another.
    """
    if after.durable != before.durable:
        return True
    if doubtful is None or after.promise == before.promise:
        return False
    return doubtful.released or doubtful.holder != after.durable.holder


# --- what is shown of it --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hearing:
    """The last authentic message of a node: who said it, when, and the T it goes by."""

    sender: Sender
    at_s: float
    lease_s: float


@dataclass(frozen=True, slots=True)
class Ballot:
    """One pair as its witness sees it, for status and log. `rejected`: refusals by error code."""

    cluster: str
    me: Sender
    voter: Voter
    heard: Mapping[Role, Hearing]
    alarms: tuple[Alarm, ...]
    rejected: Mapping[str, int]


def differing_fingerprints(heard: Mapping[Role, Hearing], now: float) -> str:
    """What to tell people when both nodes of a pair speak and decide by different rules, or ""."""
    living = [one for one in heard.values() if now - one.at_s <= one.lease_s]
    if len({one.sender.fingerprint for one in living}) < 2:
        return ""
    return "its nodes differ in members, arbiter or partition_policy: give both the same file"
