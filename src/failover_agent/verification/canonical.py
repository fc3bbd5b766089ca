"""When are two states the same? When all that is still to come is, but for a quantum of time.

Moments become lengths from now, in quanta; what is over is over, however long ago; terms count from
the highest one; who is who by role. What is for people alone is forgotten. A field of the core is
either looked at or forgotten here, by name: a test fails when there is one that is neither.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from types import FunctionType
from typing import Any, assert_never

from failover_agent.core.events import (
    ContainersObserved,
    HeartbeatAnswered,
    HeartbeatReceived,
)
from failover_agent.core.messages import (
    Answer,
    Beat,
    BeatAnswer,
    ReleaseAnswer,
    ReleaseRequest,
    Request,
    Vote,
    VoteAnswer,
    VoteRequest,
)
from failover_agent.core.policy import Role
from failover_agent.core.state import (
    Candidacy,
    ContainerView,
    Durable,
    EngineView,
    Fencing,
    Handover,
    Holder,
    PeerView,
    PendingRelease,
    Promise,
    State,
)
from failover_agent.verification.machines import Agent, Host, Letter
from failover_agent.verification.world import World

SAME, NEST, SINCE, LONG_SINCE, UNTIL, TERM, ROLES_SINCE = range(7)

LOOKED_AT: Mapping[type[Any], Mapping[str, int]] = {
    State: {
        "may_resume": SAME, "boot_is_new": SAME, "durable": NEST, "phase": SAME,
        "stepped_at_s": SINCE, "next_beat_at_s": UNTIL, "peers": NEST, "containers": NEST,
        "engine": NEST, "promise": NEST, "grants_after_s": UNTIL, "forgot": SAME, "is_first": SAME,
        "held_term": TERM, "renewed_at_s": ROLES_SINCE, "on_hold_at": SAME, "guarded": TERM,
        "is_guard_armed": SAME, "step_at": SAME, "fencing": NEST, "is_killing": SAME,
        "start_job": TERM, "stop_job": TERM, "repairing": SAME, "leaderless_at_s": LONG_SINCE,
        "prepared_for": SAME, "invitation": SAME, "candidacy": NEST, "ask_again_at_s": UNTIL,
        "handover": NEST, "release": NEST, "stand_back_until_s": UNTIL, "retry_at_s": UNTIL,
        "not_able_until_s": UNTIL, "recovers_at_s": UNTIL, "woke_at_s": SINCE,
        "hold_ends_at_s": UNTIL, "stopping": SAME, "record_error": SAME, "guard_error": SAME,
    },
    Durable: {
        "term": TERM, "holder": NEST, "released": SAME, "led": SAME, "hold": SAME,
        "longest_lease_s": SAME, "heard": SAME, "on_hold_for_flapping": SAME,
    },
    Promise: {"holder": NEST, "term": TERM, "until_s": UNTIL},
    PeerView: {
        "heard_at_s": SINCE, "silent_since_s": SINCE, "phase": SAME, "term": TERM,
        "holding": SAME, "holder": SAME, "released": SAME, "running": SAME, "readiness": SAME,
        "may_lead": SAME, "released_term": TERM, "longest_lease_s": SAME, "promised_to": NEST,
        "promised_until_s": UNTIL,
    },
    ContainerView: {
        "state": SAME, "alive": SAME, "down_since_s": SINCE, "next_attempt_at_s": UNTIL,
    },
    EngineView: {"reachable": SAME},
    Candidacy: {
        "stage": SAME, "term": TERM, "reason": SAME, "begun_at_s": SINCE, "granted": SAME,
        "refused": SAME, "unable": SAME, "answered_at_s": ROLES_SINCE, "fenced": SAME,
        "asked_at_s": SINCE, "silence_counts": SAME, "by_word": SAME,
    },
    Handover: {
        "to": SAME, "reason": SAME, "decided_at_s": SINCE, "asked_at_s": SINCE, "is_stopping": SAME,
    },
    Fencing: {"term": TERM, "target": SAME, "is_running": SAME, "retry_at_s": UNTIL},
    PendingRelease: {
        "term": TERM, "to": SAME, "reason": SAME, "next_at_s": UNTIL, "until_s": UNTIL,
        "answered": SAME,
    },
}  # fmt: skip

FORGOTTEN: Mapping[type[Any], frozenset[str]] = {
    # Looked at in `_state` and in `_letter`, only where it decides something, or who it is.
    State: frozenset({
        "role", "node_id", "run_id", "started_at_s", "lease_until_s", "promoted_at_s", "refusals",
        "failures", "since_s", "newest_renewal",
        # For people, or about what no history here has: failing containers, operators, strangers.
        "reason", "leading_at_s", "beats", "stop_names", "managing", "refused_because",
        "failed_because", "moves_at_s", "conflicts", "overlap", "counters", "alarms",
    }),
    Durable: frozenset({"peer_fingerprint"}),
    Promise: frozenset(),
    PeerView: frozenset({
        "role", "node_id", "run_id", "fingerprint", "health", "not_ready_because", "leading_at_s",
        "profile_digest", "knows_digest", "profile", "beat_number", "error", "paths", "ending_run",
    }),
    ContainerView: frozenset({
        "name", "detail", "exists", "incarnation", "image", "settings", "restart_policy",
        "up_since_s", "attempts", "restarts",
    }),
    EngineView: frozenset({"lost_at_s", "error", "withheld", "policy_error"}),
    Candidacy: frozenset(),
    Handover: frozenset(),
    Fencing: frozenset({"reason", "failures", "error"}),
    PendingRelease: frozenset(),
}  # fmt: skip


class Canon:
    """Makes the key of a world, in quanta of `quantum_s`."""

    def __init__(self, quantum_s: float, timeout_s: float, startup_grace_s: float) -> None:
        """`timeout_s` is T: what was heard longer ago than T is silent, and no more than that."""
        self._quantum_s = quantum_s
        self._most = math.ceil(timeout_s * 1.05 / quantum_s) + 1
        self._most_long = math.ceil((startup_grace_s + timeout_s) * 1.05 / quantum_s) + 1
        self._now_s = 0.0
        self._top = 0
        self._ids: dict[Role, str] = {}
        self._plans = {kind: tuple(fields.items()) for kind, fields in LOOKED_AT.items()}

    def key(self, world: World) -> Hashable:
        """Equal for worlds from which the same can come."""
        self._top = _highest_term(world)
        self._ids = {role: host.record.node_id for role, host in world.hosts.items() if host.record}
        hosts = tuple(self._host(world, host) for host in world.hosts.values())
        witness = self._witness(world)
        now_s = self._now_s = world.now_s
        queue = sorted(
            (self._length(at_s - now_s), function.__name__, repr(self._args(world, args)))
            for at_s, _, function, args in world.queue
        )
        alive = [host.is_alive for host in world.hosts.values()]
        calm = None
        if alive.count(True) != 1 and not world.trouble:
            calm = self._length(now_s - world.calm_since_s)
        crashed = None
        if world.crashed_at_s is not None:
            crashed = (self._length(now_s - world.crashed_at_s), len(world.spent))
        outage = world.outage_since_s
        overlap = world.overlap_since_s
        return hash((
            hosts, witness, tuple(queue), world.cuts, world.trouble, calm, crashed,
            None if outage is None else self._length(now_s - outage),
            None if overlap is None else self._length(now_s - overlap),
        ))  # fmt: skip

    # --- machines -------------------------------------------------------------------------------

    def _host(self, world: World, host: Host) -> Hashable:
        self._now_s = host.clock.read(world.now_s)
        record = None
        if host.record is not None:
            record = (host.record.boot == host.boot, self._nest(host.record.durable))
        lease = host.watch.lease
        watch = None
        if lease is not None:
            watch = (self._term(lease.term), self._until(lease.valid_until_s), host.watch.is_over)
        call = None
        if host.call_until_s > world.now_s:
            call = self._length(host.call_until_s - world.now_s)
        heard = min(self._length(world.now_s - host.heard_at_s), self._most)
        mail = tuple(function.__name__ for function, _ in host.guard_mail)
        return (
            host.is_on, record, watch, host.is_guard_frozen, mail, host.is_alive, call, heard,
            None if host.agent is None else self._agent(world, host.agent),
        )  # fmt: skip

    def _agent(self, world: World, agent: Agent) -> Hashable:
        saving = None if agent.saving is None else self._state(world, agent.saving.state)
        inbox = tuple(type(event).__name__ for event, _ in agent.inbox)
        backlog = tuple(
            (call[0].__name__, repr(self._args(world, call[1]))) for call in agent.backlog
        )
        state = self._state(world, agent.state)
        return (agent.is_frozen, agent.stops, saving, inbox, backlog, state)

    def _state(self, world: World, state: State) -> Hashable:
        starting = None
        if state.phase == "starting" or state.durable.holder is None:
            starting = min(self._length(self._now_s - state.started_at_s), self._most_long)
        lease = self._until(state.lease_until_s) if state.may_resume else None
        failing = None
        if state.containers.counted:
            failing = (state.failures, self._since(state.promoted_at_s))
        asks = (state.ask_again_at_s > state.since_s, min(state.refusals, 5))
        runs = tuple(peer.run_id == _run_id(world, role) for role, peer in state.peers.items())
        knows = tuple(
            (bool(peer.profile_digest), peer.profile is None, bool(peer.knows_digest))
            for peer in state.peers.values()
        )
        return (self._nest(state), starting, lease, failing, asks, runs, knows)

    def _witness(self, world: World) -> Hashable:
        witness = world.witness
        if witness is None:
            return None
        voter, now_s = witness.voter, witness.clock.read(world.now_s)
        self._now_s = now_s
        disk = None if witness.disk is None else self._nest(witness.disk)
        if voter is None:
            return (disk, witness.is_frozen)
        promise = None if voter.promise is None else self._nest(voter.promise)
        forgot = self._since(voter.began_at_s) if voter.forgot else None
        backlog = tuple(repr(self._args(world, args)) for _, args in witness.backlog)
        return (
            disk,
            promise,
            self._until(voter.grants_after_s),
            forgot,
            witness.is_frozen,
            backlog,
        )

    # --- what is under way ----------------------------------------------------------------------

    def _args(self, world: World, args: tuple[Any, ...]) -> tuple[Hashable, ...]:
        return tuple(self._arg(world, arg) for arg in args)

    def _arg(self, world: World, arg: Any) -> Hashable:
        match arg:
            case Letter():
                return self._letter(world, arg)
            case tuple():
                return self._args(world, arg)
            case ContainersObserved():
                return "snapshot"
            case HeartbeatReceived() | HeartbeatAnswered():
                return type(arg).__name__
            case bool() | float() | str() | None:
                return arg
            case int():
                return "n"  # A run, a boot or a term: what is under way is of the present one.
            case FunctionType():
                return arg.__name__
            case _:
                return type(arg).__name__

    def _letter(self, world: World, letter: Letter) -> Hashable:
        asker = letter.source if letter.question is None else letter.target
        host = world.hosts[asker]
        is_current = host.agent is not None and host.agent.run == letter.run
        age = min(self._length(world.now_s - letter.sent_at_s), 2 * self._most)
        body = self._body(letter.body)
        return (letter.source, letter.target, is_current, age, body, _is_newest(world, letter))

    def _body(self, body: Request | Answer) -> Hashable:
        match body:
            case Beat():
                tells = (body.profile is not None, bool(body.knows_digest))
                term = self._term(body.term)
                return ("beat", body.renews, term, body.phase, body.released, tells)
            case BeatAnswer():
                said = None if body.beat is None else self._body(body.beat)
                return ("answer", said, None if body.vote is None else self._vote(body.vote))
            case VoteRequest():
                return ("asks", body.kind, self._term(body.term), body.reason)
            case VoteAnswer():
                return ("vote", body.kind, self._term(body.asked_term), self._vote(body.vote))
            case ReleaseRequest():
                return ("release", self._term(body.term), body.to)
            case ReleaseAnswer():
                return ("released", self._term(body.released_term))
            case _:
                assert_never(body)

    def _vote(self, vote: Vote) -> Hashable:
        remaining = None if vote.remaining_s is None else self._length(vote.remaining_s)
        return (vote.granted, self._term(vote.term), vote.refusal, remaining)

    # --- values ---------------------------------------------------------------------------------

    def _nest(self, value: Any) -> Hashable:
        if value is None:
            return None
        if isinstance(value, Holder):
            return (value.role, self._ids.get(value.role) == value.node_id)
        if isinstance(value, Mapping):
            return tuple((name, self._nest(one)) for name, one in value.items())
        found: list[Hashable] = []
        for name, how in self._plans[type(value)]:
            one = getattr(value, name)
            if one is None or how == SAME:
                found.append(one)
            elif how == NEST:
                found.append(self._nest(one))
            elif how == SINCE:
                found.append(self._since(one))
            elif how == UNTIL:
                found.append(self._until(one))
            elif how == TERM:
                found.append(self._term(one))
            elif how == ROLES_SINCE:
                found.append(tuple((role, self._since(at_s)) for role, at_s in one.items()))
            else:
                found.append(min(self._length(self._now_s - one), self._most_long))
        return tuple(found)

    def _term(self, term: int) -> int:
        """How far below the highest one; 0 is none at all."""
        return max(term - self._top, -4) if term else 1

    def _since(self, at_s: float | None) -> float | None:
        return None if at_s is None else min(self._length(self._now_s - at_s), self._most)

    def _until(self, at_s: float) -> float:
        return max(0.0, self._length(at_s - self._now_s))

    def _length(self, seconds: float) -> float:
        return round(seconds / self._quantum_s) if math.isfinite(seconds) else seconds


def _run_id(world: World, role: Role) -> str:
    host = world.hosts.get(role)
    return "" if host is None or host.agent is None else host.agent.state.run_id


def _is_newest(world: World, letter: Letter) -> bool:
    """Is no newer renewal known to the one it is for than this?"""
    host = world.hosts.get(letter.target)
    if host is None or host.agent is None or not isinstance(letter.body, Beat):
        return True
    run_id, number = host.agent.state.newest_renewal
    return run_id != letter.body.sender.run_id or letter.body.number > number


def _highest_term(world: World) -> int:
    terms = [1]
    for host in world.hosts.values():
        if host.record is not None:
            terms.append(host.record.durable.term)
        if host.agent is not None:
            terms.append(host.agent.state.durable.term)
    if world.witness is not None and world.witness.disk is not None:
        terms.append(world.witness.disk.term)
    return max(terms)
