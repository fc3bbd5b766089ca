"""GET /v1/status of a witness (design, section 8). Pure.

It has every name that the status of a node has, so that a script need not ask first; what a witness
has not is null, or empty. What it says besides is one entry in `clusters` for each pair.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from failover_agent.core import voter as voters
from failover_agent.core.ballot import Ballot
from failover_agent.core.policy import Role
from failover_agent.core.state import Alarm
from failover_agent.protocol.envelope import PROTOCOL


def status_of(
    ballots: Sequence[Ballot],
    now: float,
    *,
    started_at_s: float,
    version: str,
    pid: int,
    rejected: Mapping[str, int],
) -> dict[str, Any]:
    """The whole status. `rejected`: what was for none of the pairs, by error code."""
    only = ballots[0] if len(ballots) == 1 else None
    return {
        "cluster": None if only is None else only.cluster,
        "role": Role.WITNESS,
        "node_id": None if only is None else only.me.node_id,
        "phase": None,
        "term": None if only is None else only.voter.durable.term,
        "reason": None,
        "since_s": round(now - started_at_s, 3),
        "version": version,
        "protocol": PROTOCOL,
        "pid": pid,
        "paused": None,
        "drained": None,
        "held": None,
        "lease": {"required": False, "held": None, "remaining_s": None, "votes": []},
        "peer": None,
        "arbiter": None,
        "containers": [],
        "redundancy": {"ok": True, "lost_because": []},
        "clusters": [_cluster(ballot, now) for ballot in ballots],
        "alarms": [
            {**_alarm(alarm, now), "sentence": f"{ballot.cluster}: {alarm.sentence}"}
            for ballot in ballots
            for alarm in ballot.alarms
        ],
        "counters": {"rejected": dict(sorted(rejected.items()))},
    }


def _cluster(ballot: Ballot, now: float) -> dict[str, Any]:
    """`holder` and `remaining_s` are of the promise that stands now, if one does."""
    durable = ballot.voter.durable
    promise = voters.standing(ballot.voter, now)
    remaining_s = None if promise is None else promise.until_s - now
    return {
        "cluster": ballot.cluster,
        "term": durable.term,
        "holder": None if promise is None else promise.holder.role,
        "remaining_s": _seconds(remaining_s),
        "hold": promise is not None and durable.hold,
        "last_heard_s": {
            role: None if role not in ballot.heard else _seconds(now - ballot.heard[role].at_s)
            for role in (Role.PRIMARY, Role.BACKUP)
        },
        "alarms": [_alarm(alarm, now) for alarm in ballot.alarms],
        "rejected": dict(sorted(ballot.rejected.items())),
    }


def _alarm(alarm: Alarm, now: float) -> dict[str, Any]:
    return {
        "code": alarm.code,
        "sentence": alarm.sentence,
        "since_s": _seconds(now - alarm.since_s),
    }


def _seconds(length_s: float | None) -> float | None:
    """To the millisecond; a length without an end is none."""
    if length_s is None or not math.isfinite(length_s):
        return None
    return round(max(0.0, length_s), 3)
