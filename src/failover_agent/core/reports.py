"""What a node says of itself: health, readiness, and the beat that carries them."""

from __future__ import annotations

from failover_agent.core import leases
from failover_agent.core.changing import replace
from failover_agent.core.events import ConflictKind
from failover_agent.core.managed import some
from failover_agent.core.messages import LONGEST_LEASE_S, Beat, Sender, VoteKind, VoteRequest
from failover_agent.core.policy import Policy, RestartPolicyMode
from failover_agent.core.state import (
    FOREVER,
    Conflict,
    PeerView,
    Phase,
    Profile,
    Readiness,
    Reason,
    State,
)


def silent_at_s(peer: PeerView, policy: Policy) -> float:
    """When `peer` will have been silent for T, counted only while we ourselves ran."""
    heard_at_s = peer.heard_at_s
    if heard_at_s is None or heard_at_s < peer.silent_since_s:
        heard_at_s = peer.silent_since_s
    return heard_at_s + policy.promise_length_s


def is_silent(peer: PeerView, now: float, policy: Policy) -> bool:
    """Has nothing been heard from `peer` for T?"""
    return now >= silent_at_s(peer, policy)


def is_reachable(peer: PeerView, now: float, policy: Policy) -> bool:
    """Was `peer` ever heard, and lately enough?"""
    return peer.heard_at_s is not None and not is_silent(peer, now, policy)


def is_heard_lately(peer: PeerView, now: float, policy: Policy) -> bool:
    """Was `peer` heard within the last few beats, so that it cannot be off?"""
    return peer.heard_at_s is not None and now - peer.heard_at_s < policy.patience_s


def is_holding(peer: PeerView, now: float, policy: Policy) -> bool:
    """Does `peer`, by its own word and lately enough, hold a term?"""
    return peer.holding and is_reachable(peer, now, policy)


def serves(phase: Phase | None, running: int | None) -> bool:
    """Does a holder in this phase run the service, or is it about to?

    One that gives it up does not, nor one that could start nothing (S5).
    """
    return phase is not Phase.DEMOTING and not (phase is Phase.FAILED and running == 0)


def holders(state: State, now: float, policy: Policy) -> list[PeerView]:
    """The other voters that hold a term, by their own word and lately enough."""
    return [peer for peer in state.peers.values() if is_holding(peer, now, policy)]


def members(state: State, policy: Policy) -> list[PeerView]:
    """What is known of the other members."""
    return [state.peers[role] for role in policy.others]


def is_able(peer: PeerView, now: float, policy: Policy) -> bool:
    """Could `peer` start the service if nobody else did?"""
    return (
        is_reachable(peer, now, policy)
        and peer.may_lead
        and peer.readiness is not None
        and peer.readiness is not Readiness.CANNOT
    )


def abstains(peer: PeerView, now: float, policy: Policy) -> bool:
    """Does `peer` say itself that it runs nothing, holds nothing, and could not lead?

    It may be unable even to vote (a full disk). Where silence counts as a vote, this word does too:
    a half-dead peer must not be worse than a dead one.
    """
    return (
        is_reachable(peer, now, policy)
        and not peer.holding
        and peer.readiness is Readiness.CANNOT
        and peer.running == 0
    )


def may_receive(peer: PeerView, now: float, policy: Policy) -> bool:
    """Is `peer` one to hand a running service to?"""
    return is_able(peer, now, policy) and peer.readiness is Readiness.READY


def is_ending(peer: PeerView) -> bool:
    """Did this very run of `peer` hand over to us because it was told to stop? For people alone:
    it votes to its end, and decides for itself what it may do.
    """
    return peer.ending_run is not None and peer.ending_run == peer.run_id


def why_not_ready(peer: PeerView) -> tuple[str, ...]:
    """Its own reasons, and that it ends."""
    ends = ("its agent was told to stop",) if is_ending(peer) else ()
    return (*peer.not_ready_because, *ends)


FINGERPRINT_DIFFERS = "members, arbiter or partition_policy differ from those of the peer"


def differing_fingerprint(state: State, policy: Policy) -> bool:
    """V9: is what decides quorum another on the peer, by the last that it said, to any run of ours?

    Another pair of rules on the other side of a cut wire is not to be guessed at.
    """
    last = state.durable.peer_fingerprint
    for role in policy.others:
        last = state.peers[role].fingerprint or last
    return bool(last) and last != policy.fingerprint


def is_deaf(state: State, now: float, policy: Policy) -> bool:
    """Is no other voter heard, where one is needed for a lease? The others may hear us well."""
    if not policy.requires_lease:
        return False
    others = [state.peers[role] for role in policy.voters if role is not state.role]
    return all(is_silent(peer, now, policy) for peer in others)


def longest_lease_s(state: State, policy: Policy) -> float:
    """The longest length that we know anybody to have asked for, or to be set to (V4)."""
    told = [peer.longest_lease_s for peer in state.peers.values()]
    longest_s = max(policy.heartbeat_timeout_s, state.durable.longest_lease_s, *told)
    return min(longest_s, LONGEST_LEASE_S)


def active_conflict(state: State, now: float, policy: Policy) -> str:
    """Why the set-up forbids this node to be a candidate, or "" (V9).

    Where our own endpoint leads says so, and a living rival for our role. A stranger who sends to
    us is an alarm alone: it must not be able to keep a standby from taking over (S6). Nor does one
    of several endpoints that leads astray: the others hear the peer, or miss it, as well as one
    alone would.
    """
    for conflict in open_conflicts(state, now, policy):
        if conflict.kind == ConflictKind.SAME_ROLE:
            outranked = conflict.holding or (conflict.may_lead and conflict.node_id < state.node_id)
            if outranked:
                return conflict.detail
        elif not conflict.received and not _has_another_way(state, conflict, now, policy):
            return conflict.detail
    return ""


def open_conflicts(state: State, now: float, policy: Policy) -> tuple[Conflict, ...]:
    """The ways in which the set-up was seen to be wrong within T."""
    if not state.conflicts:
        return ()
    conflicts = state.conflicts.values()
    return tuple(one for one in conflicts if now - one.seen_at_s <= policy.promise_length_s)


def _has_another_way(state: State, conflict: Conflict, now: float, policy: Policy) -> bool:
    """Has its peer another endpoint, that was not seen to lead astray?"""
    astray = {one.endpoint for one in open_conflicts(state, now, policy) if not one.received}
    ways = next(
        (
            [path.endpoint for path in peer.paths]
            for peer in state.peers.values()
            if any(path.endpoint == conflict.endpoint for path in peer.paths)
        ),
        [],
    )
    return not astray.issuperset(ways)


def is_stopped(state: State) -> bool:
    """Is it confirmed that no managed container runs here and no start is outstanding (V5)?"""
    return state.start_job is None and not state.repairing and state.containers.are_stopped


def running(state: State) -> int | None:
    """How many managed containers have a living process; None when one cannot be told."""
    return state.containers.running


def cannot_because(state: State, now: float, policy: Policy) -> tuple[str, ...]:
    """Why this node could not take over at all; empty when it could."""
    reasons: list[str] = []
    if state.record_error:
        reasons.append(f"the record cannot be written: {state.record_error}")
    if state.engine.reachable is None:
        reasons.append("the Docker Engine has not answered yet")
    elif state.engine.reachable is False:
        reasons.append(f"the Docker Engine does not answer: {state.engine.error}")
    else:
        reasons += some(f"{name}: no such container" for name in state.containers.missing)
    if policy.restart_policy is RestartPolicyMode.REFUSE:
        reasons += some(
            f"{name}: its restart policy is not no: docker update --restart=no {name}"
            for name in state.containers.self_starting
        )
    if differing_fingerprint(state, policy):
        reasons.append(FINGERPRINT_DIFFERS)
    if is_deaf(state, now, policy):
        reasons.append("neither the peer nor the arbiter is heard")
    conflict = active_conflict(state, now, policy)
    if conflict:
        reasons.append(conflict)
    return tuple(reasons)


OTHERWISE = {"image": "another image", "settings": "other settings"}


def differs_because(state: State, now: float, policy: Policy) -> tuple[str, ...]:
    """Why nobody should hand a running service to this node, though it takes over from the dead."""
    reasons: list[str] = []
    if state.not_able_until_s > now:
        reasons.append(f"the last start here failed: {state.failed_because}")
    if state.recovers_at_s > now:
        reasons.append("its guard had to end the lease of the agent before this one")
    if state.durable.on_hold_for_flapping:
        reasons.append("on hold after max_failovers moves; failover-agent resume ends it")
    for peer in state.peers.values():
        if not peer.profile_digest or not is_reachable(peer, now, policy):
            continue
        if peer.profile is None:
            reasons.append(f"the {peer.role} has yet to say how its containers are made")
            continue
        reasons += some(
            f"{name}: {OTHERWISE[part]} than on the {peer.role}"
            for name, part in state.containers.unlike(peer.profile.specs)
        )
    return tuple(reasons)


def readiness(state: State, now: float, policy: Policy) -> tuple[Readiness, tuple[str, ...]]:
    """Could this node take over, and why not (section 5)?"""
    cannot = cannot_because(state, now, policy)
    if cannot:
        return Readiness.CANNOT, cannot
    differs = differs_because(state, now, policy)
    if differs:
        return Readiness.DIFFERS, differs
    return Readiness.READY, ()


def sender(state: State, policy: Policy) -> Sender:
    """This node, as each of its messages names it (V9)."""
    return Sender(state.role, state.node_id, state.run_id, policy.fingerprint)


def question(
    state: State, policy: Policy, kind: VoteKind, term: int, reason: Reason
) -> VoteRequest:
    """What this node asks a voter, with the lengths by which the answer is to be counted."""
    return VoteRequest(
        sender=sender(state, policy),
        kind=kind,
        term=term,
        lease_s=policy.heartbeat_timeout_s,
        longest_lease_s=longest_lease_s(state, policy),
        reason=reason,
    )


def asks_to_resume(state: State) -> bool:
    """Is this a restarted agent whose record says that it still holds its term (H6)?"""
    return state.phase is Phase.STARTING and state.may_resume and state.led_and_kept


def is_on_hold_since_before(state: State) -> bool:
    """Did the agent before this one leave on hold, and has no renewal ended that yet (V8)?

    The first plain renewal makes a promise with an end of it, heard by us or not: so before that
    the guard has to have one too (G1).
    """
    return asks_to_resume(state) and state.lease_until_s == FOREVER


def is_leaving(state: State) -> bool:
    """Does this agent end, and its containers stay as they are?

    A start or a stop that is under way is brought to its end first.
    """
    stays = state.phase in (Phase.ACTIVE, Phase.FAILED) or asks_to_resume(state)
    gives_up = state.handover is not None and state.handover.is_stopping
    return stays and not gives_up and state.stopping is not None and state.stopping.leave


def asks_to_hold(state: State) -> bool:
    """Is the peer to hold (V8)? Not for a service of which nothing runs (S5)."""
    return is_leaving(state) and running(state) != 0


def beat(state: State, now: float, policy: Policy) -> Beat:
    """What this node says now, as number `state.beats + 1`.

    Only a holder whose lease runs, or one that resumes, asks for a renewal (V2, H2).
    """
    ready, because = readiness(state, now, policy)
    durable = state.durable
    return Beat(
        sender=sender(state, policy),
        number=state.beats + 1,
        phase=state.phase,
        term=durable.term if state.held_term is None else state.held_term,
        renews=leases.is_running(state, now, policy)
        or (asks_to_resume(state) and not is_on_hold_since_before(state)),
        hold=asks_to_hold(state),
        lease_s=policy.heartbeat_timeout_s,
        longest_lease_s=longest_lease_s(state, policy),
        holder=None if durable.holder is None else durable.holder.role,
        released=durable.released,
        leading_for_s=None if state.leading_at_s is None else max(0.0, now - state.leading_at_s),
        health=state.containers.health,
        running=running(state),
        readiness=ready,
        not_ready_because=because,
        may_lead=not active_conflict(state, now, policy),
    )


def profile_digest(state: State, policy: Policy) -> str:
    """What names the profile of this node: equal for equal ones, and of one length."""
    return state.containers.digest + policy.settings_digest


def said_to(beat: Beat, state: State, policy: Policy, peer: PeerView) -> Beat:
    """`beat` as it is said to `peer`: with our profile, until its newest word is that it has it."""
    digest = profile_digest(state, policy)
    is_known = peer.knows_digest == digest
    return replace(
        beat,
        profile_digest=digest,
        knows_digest="" if peer.profile is None else peer.profile_digest,
        profile=None if is_known else Profile(state.containers.specs, policy.settings),
    )
