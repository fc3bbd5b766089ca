"""One vote: a promise, what of it is on disk, and whom else it could be given to (V1-V4, V7, V8).

A node has a voter and asks more of itself before it votes (`votes`); a witness is one voter for
each pair, and nothing but that. Pure: each function answers with a new `Voter` or with a `Refusal`.
Moments are seconds on the voter's own CLOCK_BOOTTIME; only lengths cross the wire.
"""

from __future__ import annotations

from dataclasses import dataclass

from failover_agent.core.changing import replace
from failover_agent.core.messages import LONGEST_LEASE_S, Refusal, Vote
from failover_agent.core.state import FOREVER, Durable, Holder, Promise

CLOCK_DRIFT = 0.01
"""d of the design: how far the rate of a clock may be off."""


@dataclass(frozen=True)
class Voter:
    """What one voter knows.

    `grants_after_s`: no candidacy is granted before, but that of the holder on disk (V4).
    `began_at_s`: when this process began; `forgot`: it began without a record, so that what it
    promised before is not known. `promise` may have ended; `standing` tells. `newest`: the run and
    the number of the newest beat that it renewed by.
    """

    durable: Durable
    promise: Promise | None
    grants_after_s: float
    began_at_s: float
    forgot: bool = False
    newest: tuple[str, int] = ("", 0)


def begin(
    durable: Durable, now: float, *, timeout_s: float, forgot: bool, is_own: bool = False
) -> Voter:
    """The voter of a new process, from its record (V4, V8).

    `timeout_s`: the longest T that is known without a record. `is_own`: the record names this very
    node, whose hold binds nobody here.
    """
    holder = durable.holder
    if durable.term == 0:
        wait_s = max(durable.longest_lease_s, timeout_s)
    else:
        wait_s = 0.0 if durable.released else durable.longest_lease_s
    promise = None
    if durable.hold and holder is not None and not is_own:
        promise = Promise(holder, durable.term, FOREVER)
    return Voter(
        durable=durable,
        promise=promise,
        grants_after_s=now + wait_s * (1 + CLOCK_DRIFT),
        began_at_s=now,
        forgot=forgot,
    )


def standing(voter: Voter, now: float) -> Promise | None:
    """The promise that still runs, if any (V1)."""
    if voter.promise is not None and now < voter.promise.until_s:
        return voter.promise
    return None


def word(voter: Voter, now: float, refusal: Refusal | None, *, granted: bool) -> Vote:
    """What it says: the highest term granted, whose promise stands, how long that runs (V2)."""
    promise = standing(voter, now)
    remaining_s = None if promise is None else promise.until_s - now
    if refusal is Refusal.JUST_STARTED:
        remaining_s = voter.grants_after_s - now
    return Vote(
        granted=granted,
        term=voter.durable.term,
        holder=None if promise is None else promise.holder,
        remaining_s=remaining_s,
        refusal=refusal,
    )


def is_overtaken(voter: Voter, run_id: str, number: int) -> bool:
    """Did it renew by a newer beat of that run? The older one asks for nothing any more.

    It could undo a hold that was confirmed (V8).
    """
    run, newest = voter.newest
    return run == run_id and number < newest


def refusal_of_renewal(
    voter: Voter, now: float, holder: Holder, term: int, lease_s: float
) -> Refusal | None:
    """Why the holder of `term` may not renew, or None (V2). Granted throughout a start (V4)."""
    durable = voter.durable
    if lease_s > LONGEST_LEASE_S:
        return Refusal.LEASE_TOO_LONG
    promise = standing(voter, now)
    if promise is not None and promise.holder != holder:
        return Refusal.PROMISED
    if term < durable.term:
        return Refusal.OLD_TERM
    if term == durable.term and (durable.holder != holder or durable.released):
        return Refusal.OLD_TERM
    return None


def refusal_of_candidacy(
    voter: Voter,
    now: float,
    candidate: Holder,
    term: int | None,
    lease_s: float,
    *,
    run_id: str,
    by_operator: bool,
    way_of: Holder | None = None,
) -> Refusal | None:
    """Why `candidate` may not have `term` (None: a poll), or None (V2, V4, V8).

    `run_id`: the run of the candidate. `by_operator`: his word ends a hold of a node that lost its
    record (V8). `way_of`: the voter's own candidacy, which gives way to this one (V6).
    """
    durable = voter.durable
    if lease_s > LONGEST_LEASE_S:
        return Refusal.LEASE_TOO_LONG
    is_named = durable.holder == candidate and not durable.released
    if now < voter.grants_after_s and not is_named:
        return Refusal.JUST_STARTED
    promise = standing(voter, now)
    free = promise is None or promise.holder in (candidate, way_of)
    if not free and not (durable.hold and by_operator):
        return Refusal.PROMISED
    if is_named and durable.hold and run_id == voter.newest[0]:
        return Refusal.OLD_TERM  # It leaves: what it asked for before comes late, in any term.
    again = is_named or (way_of is not None and durable.holder == way_of)
    lowest = durable.term if again else durable.term + 1
    return Refusal.OLD_TERM if term is not None and term < lowest else None


def grant(
    voter: Voter,
    now: float,
    holder: Holder,
    term: int,
    lease_s: float,
    *,
    hold: bool = False,
    led: bool = False,
) -> Voter:
    """Promise `term` to `holder` for `lease_s` on our clock, or on hold without an end (V1, V8).

    A promise is never made shorter by a renewal: a longer one may be relied on already.
    """
    until_s = FOREVER if hold else now + lease_s * (1 + CLOCK_DRIFT)
    before = voter.promise
    if before is not None and (before.holder, before.term) == (holder, term):
        until_s = until_s if before.until_s == FOREVER else max(until_s, before.until_s)
    durable = replace(
        voter.durable,
        term=term,
        holder=holder,
        released=False,
        led=led,
        hold=hold,
        longest_lease_s=max(voter.durable.longest_lease_s, lease_s),
    )
    return replace(voter, durable=durable, promise=Promise(holder, term, until_s))


def release(voter: Voter, now: float, holder: Holder, term: int) -> Voter | None:
    """`holder` gave `term` back, so its promise is empty; None if it is not the holder (V7).

    Whoever forgot what it promised waits on: the holder that it does not know of gave nothing back.
    """
    durable = voter.durable
    if durable.holder != holder or term < durable.term:
        return None
    promise = voter.promise
    if promise is not None and promise.holder == holder:
        promise = None
    grants_after_s = voter.grants_after_s if voter.forgot else min(voter.grants_after_s, now)
    return replace(
        voter,
        durable=replace(durable, term=term, released=True, hold=False),
        promise=promise,
        grants_after_s=grants_after_s,
    )


def wait_as_told(voter: Voter, longest_lease_s: float) -> Voter:
    """A voter without a record waits out the longest lease that anybody knows of (V4)."""
    told_s = min(longest_lease_s, LONGEST_LEASE_S) * (1 + CLOCK_DRIFT)
    if not (voter.forgot or voter.durable.term == 0):
        return voter
    return replace(voter, grants_after_s=max(voter.grants_after_s, voter.began_at_s + told_s))
