"""A register in the place of an arbiter: one promise, under one key of etcd (design, section 4).

A register keeps a value and no time. It is a voter only as each node sees it, by that node's own
clock: the promise began when the first answer arrived that showed the present mod_revision, and
whoever has seen the same one for `lease_s·(1+d)` may take it. For every read is linearizable, so
the write that it shows was made before it arrived; and every write compares the mod_revision, so it
is refused where anything, a renewal above all, was written since. What is written and answered is
decided by `ballot`, as by a witness.

Pure, so that the adapter and the simulator run the same: `begun` when an order comes, then
`next_move` and `saw` in turn until there is an answer. A transaction that was refused shows the
present value, so it is a read; one whose outcome was lost is nothing, and `next_move` decides anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from failover_agent.core import ballot
from failover_agent.core.changing import replace
from failover_agent.core.messages import (
    LONGEST_LEASE_S,
    Answer,
    Beat,
    BeatAnswer,
    ReleaseRequest,
    Request,
    Sender,
    Vote,
    VoteAnswer,
    VoteKind,
    VoteRequest,
)
from failover_agent.core.policy import Role
from failover_agent.core.state import FOREVER, NEVER, Durable, Holder, Promise
from failover_agent.core.voter import CLOCK_DRIFT, Voter


@dataclass(frozen=True, slots=True)
class Entry:
    """The value under the key: `term` was granted to `holder` for `lease_s` seconds.

    `hold`: without an end (V8). `released`: the holder gave it back (V7).
    """

    holder: Holder
    term: int
    lease_s: float
    hold: bool = False
    released: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The key as one linearizable answer showed it.

    `store` names the etcd cluster, `revision` is that of everything in it when it answered and
    orders snapshots; `mod_revision` is that of the key, 0 where there is none, and `entry` None.
    """

    store: str
    revision: int
    mod_revision: int = 0
    entry: Entry | None = None


@dataclass(frozen=True, slots=True)
class Sighting:
    """The newest snapshot that this node has, on its own clock.

    `since_s`: the arrival of the first answer that showed this mod_revision; `seen_at_s`: of the
    last.
    """

    snapshot: Snapshot
    since_s: float
    seen_at_s: float


@dataclass(frozen=True, slots=True)
class View:
    """What one run of one node knows of the register. `sender` signs what it says to the core.

    `newest_renewal`: the number of the newest beat that asked for a renewal; an older one writes no
    more, or it could undo a hold that was confirmed. `is_leaving`: that one asked for a hold, so a
    candidacy of this run came before it. `longest_lease_s`: the longest that anybody is
    known to have asked for. `forgot_at_s`: when it was last seen that the key is not there, or that
    the store went back: that is a voter which lost its record, and waits (V4).
    """

    sender: Sender
    sighting: Sighting | None = None
    newest_renewal: int = 0
    is_leaving: bool = False
    longest_lease_s: float = 0.0
    forgot_at_s: float = NEVER


@dataclass(frozen=True, slots=True)
class Read:
    """Read the key, linearizably."""


@dataclass(frozen=True, slots=True)
class Write:
    """Put `entry` if the key still has this `mod_revision`, and read it if not.

    Only if it was put is `answer` the answer, and it counts from when the transaction left.
    """

    mod_revision: int
    entry: Entry
    answer: Answer


@dataclass(frozen=True, slots=True)
class Overtaken:
    """A newer beat asks for the renewal, or for a hold: this one is not answered."""


Move = Read | Write | Overtaken | Answer


def speaker(me: Sender) -> Sender:
    """Who signs for a register. It has no fingerprint of its own to differ by (V9)."""
    return Sender(Role.WITNESS, node_id="etcd", run_id="", fingerprint=me.fingerprint)


def begun(view: View, request: Request) -> View:
    """The core ordered `request`."""
    told_s = 0.0
    number, is_leaving = view.newest_renewal, view.is_leaving
    if not isinstance(request, ReleaseRequest):
        told_s = min(max(request.lease_s, request.longest_lease_s), LONGEST_LEASE_S)
    if isinstance(request, Beat) and request.renews and request.number > number:
        number, is_leaving = request.number, request.hold
    return replace(
        view,
        newest_renewal=number,
        is_leaving=is_leaving,
        longest_lease_s=max(view.longest_lease_s, told_s),
    )


def saw(view: View, snapshot: Snapshot, *, asked_at_s: float, now: float) -> View:
    """`snapshot` arrived, of a question that left at `asked_at_s`.

    One that was overtaken on its way changes nothing. One that is older than what had been seen
    when it was asked for is the word of a store that went back, or of another one.
    """
    known, entry = view.sighting, snapshot.entry
    went_back = False
    if known is not None:
        before = known.snapshot
        went_back = snapshot.store != before.store or snapshot.revision < before.revision
        if went_back and asked_at_s <= known.seen_at_s:
            return view
        if not went_back and snapshot.mod_revision == before.mod_revision:
            seen = replace(known, snapshot=snapshot, seen_at_s=max(known.seen_at_s, now))
            return replace(view, sighting=seen)
    return replace(
        view,
        sighting=Sighting(snapshot, since_s=now, seen_at_s=now),
        longest_lease_s=max(view.longest_lease_s, 0.0 if entry is None else entry.lease_s),
        forgot_at_s=now if went_back or entry is None else view.forgot_at_s,
    )


def as_voter(view: View) -> Voter:
    """The register as a voter, by what this node has seen and on its clock."""
    sighting = view.sighting
    assert sighting is not None
    entry = sighting.snapshot.entry
    durable, promise = Durable(), None
    if entry is not None:
        durable = Durable(
            term=entry.term,
            holder=entry.holder,
            released=entry.released,
            hold=entry.hold,
            longest_lease_s=entry.lease_s,
        )
        # Whom a value names that is older than what was seen says nothing of who leads now (V4).
        went_back = view.forgot_at_s == sighting.since_s
        durable = replace(durable, released=durable.released or went_back)
        if not durable.released:
            ends_at_s = sighting.since_s + entry.lease_s * (1 + CLOCK_DRIFT)
            promise = Promise(entry.holder, entry.term, FOREVER if entry.hold else ends_at_s)
    return Voter(
        durable=durable,
        promise=promise,
        grants_after_s=view.forgot_at_s + view.longest_lease_s * (1 + CLOCK_DRIFT),
        began_at_s=view.forgot_at_s,
        forgot=view.forgot_at_s > NEVER,
    )


def next_move(view: View, request: Request, now: float, *, is_fresh: bool) -> Move:
    """What to do for `request`: read, write, or answer.

    `is_fresh`: something was seen since it was ordered. What is to be written may be decided by an
    older sighting, since the write compares; everything else is not said before a fresh one.
    """
    if isinstance(request, Beat) and request.renews and request.number < view.newest_renewal:
        return Overtaken()
    if isinstance(request, VoteRequest) and view.is_leaving:
        return Overtaken()
    if view.sighting is None:
        return Read()
    before = as_voter(view)
    after, answer = ballot.decide(before, request, now, view.sender)
    match answer:
        case BeatAnswer(vote=Vote(granted=True)):
            is_written = True
        case VoteAnswer(kind=VoteKind.CANDIDACY, vote=Vote(granted=True)):
            is_written = True
        case _:
            is_written = after.durable != before.durable
    if is_written:
        return Write(view.sighting.snapshot.mod_revision, _entry(view, request, after), answer)
    return answer if is_fresh else Read()


def _entry(view: View, request: Request, after: Voter) -> Entry:
    """`after` as a value.

    The length does not shrink within a term: its holder may rely on a longer answer already (V1).
    """
    assert view.sighting is not None
    durable, holder = after.durable, after.durable.holder
    assert holder is not None
    was = view.sighting.snapshot.entry
    lease_s = durable.longest_lease_s
    if not isinstance(request, ReleaseRequest):
        lease_s = request.lease_s
    if was is not None and (was.holder, was.term) == (holder, durable.term):
        lease_s = max(lease_s, was.lease_s)
    return Entry(holder, durable.term, lease_s, durable.hold, durable.released)


def compare_and_set(before: Snapshot, write: Write) -> tuple[bool, Snapshot]:
    """What a register does with `write`: was it put, and what is there now."""
    if before.mod_revision != write.mod_revision:
        return False, before
    revision = before.revision + 1
    return True, replace(before, revision=revision, mod_revision=revision, entry=write.entry)
